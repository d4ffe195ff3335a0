//! All that the control plane counts, of itself and of the sidecars, declared here and nowhere else; [`labels`] holds the
//! closed sets. The page
//! `charts/mirrord/METRICS.md` is made from it.
//!
//! There is one set a process, as there is one log, so that no signature carries it. Counting is an addition at a known
//! place ([`mirrord_telemetry::closed`]): a pod's admission pays nanoseconds for it.

use std::sync::LazyLock;

use mirrord_telemetry::{Closed, Counter, Durations, Gauge, Registry, Unit};

mod labels;

pub use labels::*;

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);
    &METRICS
}

/// How all of them are shown.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    let Metrics { pods, sessions, server, boot, cluster, sidecars } = metrics();
    let part = mirrord_telemetry::part(&mut registry, "webhook", env!("CARGO_PKG_VERSION"));
    pods.register(part);
    sessions.register(part);
    server.register(part);
    boot.register(part);
    cluster.register(part);
    sidecars.register(registry.sub_registry_with_prefix("mirrord_sidecar"));
    registry
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Admission of pods.
    pub pods: Pods,
    /// Admission of Sessions.
    pub sessions: Sessions,
    /// The HTTPS server.
    pub server: Server,
    /// Boot channels.
    pub boot: Boot,
    /// What is known of the cluster and said to it.
    pub cluster: Cluster,
    /// What sidecars report.
    pub sidecars: Sidecars,
}

/// Admission of pods.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each is described where it is registered")]
pub struct Pods {
    pub reviews: Closed<PodReview, Counter>,
    pub duration: Durations,
}

/// Admission of Sessions.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each is described where it is registered")]
pub struct Sessions {
    pub reviews: Closed<SessionReview, Counter>,
    pub duration: Durations,
}

/// The HTTPS server.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each is described where it is registered")]
pub struct Server {
    pub connections: Gauge,
    pub opened: Counter,
    pub evicted: Counter,
    pub handshakes_failed: Counter,
    pub refused: Closed<Refused, Counter>,
}

/// Boot channels.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each is described where it is registered")]
pub struct Boot {
    pub stored: Gauge,
    pub live: Gauge,
    pub tended: Gauge,
    pub calls: Closed<(BootCall, CallResult), Counter>,
    pub call_duration: Closed<BootCall, Durations>,
    pub enroll_failures: Closed<EnrollFault, Counter>,
    pub enrolled: Closed<Release, Counter>,
}

/// What is known of the cluster and said to it.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each is described where it is registered")]
pub struct Cluster {
    pub certificate_expiry: Closed<Certificate, Gauge>,
    pub configuration_agrees: Gauge,
    pub watch_restarts: Closed<Watch, Counter>,
    pub rotations: Counter,
    pub events: Closed<(Occasion, EventResult), Counter>,
}

/// What sidecars report.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each is described where it is registered")]
pub struct Sidecars {
    pub reports: Closed<(View, Obstacle), Counter>,
    pub wakes: Counter,
    pub sessions: Counter,
    pub requests: Closed<(SidecarRequest, RequestResult), Counter>,
    pub file_bytes: Counter,
    pub connections: Counter,
    pub guarded: Counter,
    pub sent_bytes: Counter,
    pub received_bytes: Counter,
}

impl Pods {
    fn register(&self, part: &mut Registry) {
        part.register(
            "pod_reviews",
            "Reviews of pods; the reasons are those of webhook/src/injection/skips.md, and faults of ours",
            self.reviews.clone(),
        );
        part.register_with_unit(
            "pod_review_duration",
            "From the arrival of a pod's review to its answer",
            Unit::Seconds,
            self.duration.clone(),
        );
    }
}

impl Sessions {
    fn register(&self, part: &mut Registry) {
        part.register(
            "session_reviews",
            "Reviews of Sessions; the codes are those that clients get",
            self.reviews.clone(),
        );
        part.register_with_unit(
            "session_review_duration",
            "From the arrival of a Session's review to its answer, the API server's answers to us included",
            Unit::Seconds,
            self.duration.clone(),
        );
    }
}

impl Server {
    fn register(&self, part: &mut Registry) {
        part.register("connections", "HTTPS connections that stand", self.connections.clone());
        part.register("connections_opened", "HTTPS connections that were taken", self.opened.clone());
        part.register(
            "connections_evicted",
            "HTTPS connections that were closed because others needed their place",
            self.evicted.clone(),
        );
        part.register(
            "handshakes_failed",
            "TLS handshakes that failed or took too long",
            self.handshakes_failed.clone(),
        );
        part.register("requests_refused", "Requests that were not read, or not whole", self.refused.clone());
    }
}

impl Boot {
    fn register(&self, part: &mut Registry) {
        part.register("sessions_stored", "Sessions that the API server stores", self.stored.clone());
        part.register("sessions_live", "Sessions that sidecars are to serve now", self.live.clone());
        part.register("sidecars_tended", "Sidecars that this replica keeps told", self.tended.clone());
        part.register("boot_calls", "Calls to sidecars", self.calls.clone());
        part.register_with_unit(
            "boot_call_duration",
            "From a call to a sidecar to its answer",
            Unit::Seconds,
            self.call_duration.clone(),
        );
        part.register(
            "enroll_failures",
            "Sidecars that could not be told, by what failed first",
            self.enroll_failures.clone(),
        );
        part.register(
            "sidecars_enrolled",
            "Sidecars that proved who they are, by whether they are of this release; those of others get this one \
             when their pod is made anew",
            self.enrolled.clone(),
        );
    }
}

impl Cluster {
    fn register(&self, part: &mut Registry) {
        part.register_with_unit(
            "certificate_expiry_timestamp",
            "When a certificate ends, since 1970",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        part.register(
            "configuration_agrees",
            "1 while caBundle and paths of the webhook configuration are ours, else 0 and no pod is injected",
            self.configuration_agrees.clone(),
        );
        part.register(
            "watch_restarts",
            "Watches that failed and were begun again",
            self.watch_restarts.clone(),
        );
        part.register(
            "rotations",
            "Steps of a rotation of keys that this replica wrote",
            self.rotations.clone(),
        );
        part.register(
            "events",
            "Kubernetes Events; suppressed ones were too many at once",
            self.events.clone(),
        );
    }
}

impl Sidecars {
    fn register(&self, part: &mut Registry) {
        part.register("reports", "Reports, by whose view the sidecar lends and why", self.reports.clone());
        part.register("wakes", "Times that a sidecar woke up", self.wakes.clone());
        part.register("sessions", "Sessions that were served", self.sessions.clone());
        part.register("requests", "Requests that were answered", self.requests.clone());
        part.register_with_unit(
            "files_read",
            "Contents of files that were sent to clients",
            Unit::Bytes,
            self.file_bytes.clone(),
        );
        part.register(
            "connections_opened",
            "Connections that were opened from pods",
            self.connections.clone(),
        );
        part.register(
            "connections_guarded",
            "Connections that were refused whatever is granted: loopback, link-local, metadata services",
            self.guarded.clone(),
        );
        part.register_with_unit(
            "connections_sent",
            "What clients sent into connections from pods",
            Unit::Bytes,
            self.sent_bytes.clone(),
        );
        part.register_with_unit(
            "connections_received",
            "What came back from connections of pods",
            Unit::Bytes,
            self.received_bytes.clone(),
        );
    }
}
