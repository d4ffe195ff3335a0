//! How the programs in the cluster tell what they do: metrics for who asks, and a log. Nothing is ever sent anywhere.
//!
//! Each program declares its metrics in one module, `metrics`, with what is here.
//!
//! | module | what it holds |
//! |---|---|
//! | [`closed`] | metrics with labels: one for each value of a closed set, all there from the start |
//! | [`durations`] | a histogram |
//! | [`read`] | what is counted elsewhere and read when somebody asks |
//! | [`exposition`] | `GET /metrics`, and its text read again |
//! | [`page`] | the page of all metrics |
//! | [`log`] | text or JSON |
#![forbid(unsafe_code)]

pub mod closed;
pub mod durations;
pub mod exposition;
pub mod log;
pub mod page;
pub mod read;

pub use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

pub use self::{
    closed::{Closed, Label},
    durations::Durations,
};

/// The part of a registry whose names begin with `mirrord_` and this program's name, and which tells its release.
pub fn part<'a>(registry: &'a mut Registry, program: &str, version: &'static str) -> &'a mut Registry {
    let part = registry.sub_registry_with_prefix(format!("mirrord_{program}"));
    part.register("build", "The release; always 1", Info::new([("version", version)]));
    part
}
