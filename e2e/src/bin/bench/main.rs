//! `make bench`: what mirrord costs, in round trips where they can be counted, else in time and bytes.
//!
//! Round trips are counted by distance: the cluster is put behind relays, and what a step takes longer when the cluster is
//! far away, divided by how far, is its round trips. Times of the machine fall out of the difference.
#![forbid(unsafe_code)]

mod admission;
mod far;
mod process;
mod scale;
mod sidecar;
mod start;

use mirrord_e2e::{
    cluster::{checkout, cluster},
    measure::Report,
    shop::shop,
};

fn main() {
    let _ = shop();
    if !cluster().has_node("measuring sidecars and moving the cluster away") {
        return;
    }
    let mut report = Report::default();
    sidecar::sizes(&mut report);
    sidecar::dormant(&mut report);
    admission::pods(&mut report);
    admission::creations(&mut report);
    admission::sessions(&mut report);
    start::pods(&mut report);
    start::commands(&mut report);
    scale::measure(&mut report);
    // Last: it rolls the webhooks out anew.
    far::measure(&mut report);
    let results = checkout().join("target/bench/results.json");
    report.write(&results).expect("target/bench can be written");
    println!("\nwritten to {}", results.display());
}
