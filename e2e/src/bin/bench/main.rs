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

type Group = (&'static str, fn(&mut Report));

/// What is measured, in this order.
const GROUPS: [Group; 9] = [
    ("sizes", sidecar::sizes),
    ("dormant", sidecar::dormant),
    ("admission", admission::pods),
    ("creation", admission::creations),
    ("sessions", admission::sessions),
    ("pods", start::pods),
    ("commands", start::commands),
    ("scale", scale::measure),
    // Last: it rolls the webhooks out anew.
    ("far", far::measure),
];

fn main() {
    let _ = shop();
    if !cluster().has_node("measuring sidecars and moving the cluster away") {
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    if let Some(unknown) = wanted.iter().find(|it| !GROUPS.iter().any(|(name, _)| it == name)) {
        let names: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
        eprintln!("there are no benchmarks {unknown:?}; there are {}", names.join(", "));
        std::process::exit(64);
    }
    let mut report = Report::default();
    for (_, measure) in GROUPS.iter().filter(|(name, _)| is_wanted(name)) {
        measure(&mut report);
    }
    // What was measured of old isn't replaced by a part.
    let name =
        if wanted.is_empty() { "results.json".to_owned() } else { format!("{}.json", wanted.join("-")) };
    let results = checkout().join("target/bench").join(name);
    report.write(&results).expect("target/bench can be written");
    println!("\nwritten to {}", results.display());
}
