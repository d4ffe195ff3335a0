//! `mirrord-agent`: the sidecar that lends a pod's environment, files, network and names to sessions.
//!
//! | part | what it does |
//! |---|---|
//! | [`cli`], [`copy`], [`identity`] | flags; how the binary gets into the pod; who it is there |
//! | [`dormant`] → [`worker`] | one thread and one socket until the control plane calls; then a child, [`awake`] |
//! | [`gate`], [`ids`], [`door`] | which datagrams reach QUIC at all, and which callers a handshake |
//! | [`boot`], [`sessions`], [`counts`] | the control plane's side: certificate, gate keys, who may do what, what was done |
//! | [`session`] | the client's side: rights, environment, files, connections, names |
//! | [`view`], [`live`], [`obstacle`], [`root`] | whose eyes are lent, why not others', and which paths never are |
#![deny(unsafe_code)]

mod awake;
mod boot;
mod cli;
mod clock;
mod copy;
mod counts;
mod door;
mod dormant;
mod gate;
mod guard;
mod identity;
mod ids;
mod live;
mod mountinfo;
mod obstacle;
pub mod root;
mod serve;
mod session;
mod sessions;
mod sys;
mod telemetry;
mod twin;
mod view;
mod windows;
mod worker;

use std::process::ExitCode;

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    sys::process::hide_from_equals();
    telemetry::install();
    match cli::parse(std::env::args_os().skip(1)).map_err(Into::into).and_then(serve::command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            ExitCode::FAILURE
        }
    }
}
