//! All that the router counts, declared here and nowhere else; the page `charts/mirrord/METRICS.md` is made from it. What
//! moves packets adds to [`Counters`]; they are read when somebody asks.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use mirrord_telemetry::{Label, Registry, Unit, read};

use crate::{
    health::Health,
    reason::{Counters, Reason},
};

impl Label for Reason {
    const COUNT: usize = Self::ALL.len();

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn place(self) -> usize {
        self as usize
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![("reason", self.word())]
    }
}

/// How all of it is shown.
#[must_use]
pub fn registry(counters: &Arc<Counters>, health: &Arc<Health>) -> Registry {
    let of = |field: fn(&Counters) -> &AtomicU64| {
        let counters = Arc::clone(counters);
        move || field(&counters).load(Relaxed)
    };
    let mut registry = Registry::default();
    let part = mirrord_telemetry::part(&mut registry, "ingress", env!("CARGO_PKG_VERSION"));
    part.register(
        "flows",
        "Flows that stand: a client's address with a sidecar",
        read::gauge(of(|it| &it.flows)),
    );
    part.register("flows_opened", "Flows that were opened", read::counter(of(|it| &it.flows_opened)));
    part.register_with_unit(
        "to_sidecars",
        "What was forwarded from clients to sidecars",
        Unit::Bytes,
        read::counter(of(|it| &it.bytes_in)),
    );
    part.register_with_unit(
        "to_clients",
        "What was forwarded from sidecars to clients",
        Unit::Bytes,
        read::counter(of(|it| &it.bytes_out)),
    );
    let dropped = Arc::clone(counters);
    part.register(
        "datagrams_dropped",
        "Datagrams that were dropped; the reasons are those of ingress/src/reason.rs",
        read::counters::<Reason>(move |reason| dropped.dropped(reason)),
    );
    part.register("routes", "Sidecars that Sessions lead to", read::gauge(of(|it| &it.routes)));
    part.register("sessions_watched", "Sessions that are known", read::gauge(of(|it| &it.sessions)));
    part.register(
        "gate_keys",
        "Keys that gate tokens are checked with: two while they change",
        read::gauge(of(|it| &it.gate_keys)),
    );
    let watch = Arc::clone(health);
    part.register(
        "watch_restarts",
        "Times that the watch on Sessions failed and was begun again",
        read::counter(move || watch.watch_failures()),
    );
    registry
}
