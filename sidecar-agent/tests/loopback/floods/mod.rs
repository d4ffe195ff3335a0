//! Floods: whoever sends without end costs a bounded amount, and others are served meanwhile or right after.
//!
//! Times on processors are printed, to be read; memory, threads, descriptors, processes and lines are asserted.

mod forged;
mod packets;
mod sessions;

use std::net::{SocketAddr, UdpSocket};

use mirrord_usage::{Usage, queued};

use crate::support::{Sidecar, within};

/// A memory limit that a sidecar gets where nobody says otherwise, in KiB.
const LIMIT: u64 = 64 * 1024;
/// What may be in the kernel's queue before a flood waits for it to be read: less than what it drops at.
const BURST: u32 = 64;

/// A flood under way.
struct Flood<'a> {
    sidecar: &'a Sidecar,
    name: &'static str,
    before: Usage,
}

impl<'a> Flood<'a> {
    fn begin(sidecar: &'a Sidecar, name: &'static str) -> Self {
        sidecar.forget_peak();
        Self { sidecar, name, before: sidecar.usage() }
    }

    /// Sends so many packets, each read by the sidecar before too many wait.
    async fn send(&self, count: u32, sender: impl Into<SocketAddr>, packet: impl Fn(u32) -> Vec<u8>) {
        let socket = UdpSocket::bind(sender.into()).expect("bound");
        for number in 0..count {
            // Refused where an ICMP message of an earlier one says so.
            let _ = socket.send_to(&packet(number), self.sidecar.address);
            if number % BURST == BURST - 1 {
                self.read().await;
            }
        }
        self.read().await;
    }

    /// Until the sidecar has taken everything from its socket.
    async fn read(&self) {
        within(async {
            while queued(self.sidecar.address.port()) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// What it used at most; the time on processors is what the flood took.
    fn usage(&self) -> Usage {
        let usage = self.sidecar.usage();
        let cpu = usage.cpu.saturating_sub(self.before.cpu);
        println!("{}: before {}; then {}", self.name, self.before, Usage { cpu, ..usage });
        usage
    }
}
