//! Tends one sidecar: keeps it told which sessions to serve, for as long as it has any.
//!
//! The connection stays open meanwhile, so that a revocation is one packet away; where it breaks it is dialled again
//! with growing pauses, and everything is told anew. Before anything else on a connection the sidecar is proved and
//! gets its certificate. An empty set is told only to a sidecar that was told another before, until it got it or its
//! last session has expired anyway.
//!
//! A sidecar that can say what it did is asked for it once it has been told, now and then, and before we hang up; never in
//! the way of what it is to be told.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use mirrord_certs::UnixTime;
use mirrord_protocol::boot::{Announce, Announcement, Call, Done, REPORTS_SINCE, Report};
use quinn::Endpoint;
use tokio::{sync::watch, time::Instant};

use super::{
    channel::{Channel, ChannelError},
    desired::Twin,
    enroll::{EnrollError, Enroller, RENEW_AFTER},
    report,
};
use crate::{
    back_off::BackOff,
    clock,
    events::Events,
    metrics::{Release, metrics},
};

/// How often a sidecar is asked what it did.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// So many failures in a row are worth an Event: a pod that ends, or begins, has one or two.
const WORTH_AN_EVENT: u32 = 4;

/// What a sidecar is to be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    /// The resource version that this is from.
    pub(super) revision: u64,
    /// The full set.
    pub(super) sessions: Arc<[Announcement]>,
    /// Until then the connection is kept though there is nothing to tell: a session is about to be stored.
    pub(super) hold_until: Option<Instant>,
}

/// What all sidecars' tending shares.
pub(super) struct Hub {
    pub(super) endpoint: Endpoint,
    pub(super) events: Arc<Events>,
    pub(super) enroller: Enroller,
}

/// Tends one sidecar.
pub(super) struct Tending {
    hub: Arc<Hub>,
    twin: Twin,
    /// When the last session that it was told about will have expired by itself.
    told_until: UnixTime,
    /// How often it was told.
    reached: u64,
    back_off: BackOff,
}

impl Tending {
    pub(super) fn new(hub: Arc<Hub>, twin: Twin) -> Self {
        let back_off = BackOff::new(Duration::from_millis(200), Duration::from_secs(15));
        Self { hub, twin, told_until: 0, reached: 0, back_off }
    }

    /// Tends until there is nothing left to tell.
    pub(super) async fn run(mut self, mut order_rx: watch::Receiver<Order>) {
        let mut failures = 0;
        loop {
            let reached = self.reached;
            let Err(error) = self.converse(&mut order_rx).await else { return };
            failures = if self.reached == reached { failures + 1 } else { 1 };
            self.complain(&error, failures);
            if self.has_nothing_to_tell(&order_rx.borrow()) {
                return;
            }
            let pause = clock::pause(self.back_off.next());
            tokio::select! {
                () = pause => {}
                changed = order_rx.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Tells of a failure. The sidecar's own words are among them: text from outside.
    fn complain(&self, error: &EnrollError, failures: u32) {
        metrics().boot.enroll_failures.of(error.fault()).inc();
        let Twin { namespace, pod, route, .. } = &self.twin;
        let error = error.to_string();
        tracing::warn!(namespace, pod, %route, error, failures, "a sidecar can't be told of its sessions");
        if failures == WORTH_AN_EVENT {
            let (hub, twin) = (self.hub.clone(), self.twin.clone());
            tokio::spawn(async move { hub.events.unreachable(&twin, &error).await });
        }
    }

    fn has_nothing_to_tell(&self, order: &Order) -> bool {
        order.sessions.is_empty() && self.told_until <= clock::now() && hold(order).is_none()
    }

    async fn converse(&mut self, order_rx: &mut watch::Receiver<Order>) -> Result<(), EnrollError> {
        let Hub { endpoint, enroller, .. } = &*self.hub;
        let mut keyring = enroller.keyring.clone();
        let channel = Channel::dial(endpoint, &keyring.seen().authority, &self.twin).await?;
        let version = enroller.enroll(&channel, &self.twin).await?;
        let mut reporter = Reporter::new(channel.clone(), version);
        let mut enrolled_at = clock::now();
        let mut others = false;
        loop {
            let order = order_rx.borrow_and_update().clone();
            if others || clock::now() >= enrolled_at + RENEW_AFTER {
                others = false;
                self.hub.enroller.enroll(&channel, &self.twin).await?;
                enrolled_at = clock::now();
            }
            if !order.sessions.is_empty() || self.told_until > clock::now() {
                self.announce(&channel, &order).await?;
                self.back_off.reset();
                self.reached += 1;
            }
            let hold = hold(&order);
            if order.sessions.is_empty() && hold.is_none() {
                tokio::select! {
                    () = reporter.ask() => {}
                    // It has sessions again.
                    Ok(()) = order_rx.changed() => continue,
                }
                channel.close();
                return Ok(());
            }
            tokio::select! {
                changed = order_rx.changed() => if changed.is_err() {
                    channel.close();
                    return Ok(());
                },
                // It needs a certificate and gate keys of today.
                () = keyring.changed() => others = true,
                error = channel.closed() => return Err(error.into()),
                never = reporter.keep_asking(), if !order.sessions.is_empty() => match never {},
                () = clock::pause(hold.unwrap_or_default()), if order.sessions.is_empty() => {}
            }
        }
    }

    async fn announce(&mut self, channel: &Channel, order: &Order) -> Result<(), EnrollError> {
        // Told or not, the sidecar may know them from here on.
        let last = order.sessions.iter().map(|session| session.expires_at).max().unwrap_or(0);
        self.told_until = self.told_until.max(last);
        let (revision, sessions) = (order.revision, order.sessions.to_vec());
        let call = Call::Announce(Announce { revision, sessions, now: clock::now() });
        match channel.call::<Done>(&call).await {
            Ok(_) => {}
            // It lost what was installed: once more, from the beginning.
            Err(ChannelError::Failed(_)) => {
                self.hub.enroller.enroll(channel, &self.twin).await?;
                channel.call::<Done>(&call).await?;
            }
            Err(error) => return Err(error.into()),
        }
        self.told_until = last;
        let Twin { namespace, pod, route, .. } = &self.twin;
        let (revision, sessions) = (order.revision, order.sessions.len());
        tracing::debug!(namespace, pod, %route, revision, sessions, "told");
        Ok(())
    }
}

/// Asks one sidecar what it did, if it can say.
#[derive(Clone)]
struct Reporter {
    channel: Channel,
    speaks: bool,
    /// Whether it has said of which release it is.
    known: Arc<AtomicBool>,
    next: Instant,
}

impl Reporter {
    fn new(channel: Channel, version: u16) -> Self {
        let speaks = version >= REPORTS_SINCE;
        if !speaks {
            metrics().boot.enrolled.of(Release::Unknown).inc();
        }
        Self { channel, speaks, known: Arc::default(), next: Instant::now() }
    }

    /// Asks now and then, for ever. What was asked is heard to its end, also where this is dropped meanwhile.
    async fn keep_asking(&mut self) -> Infallible {
        loop {
            clock::pause(self.next.saturating_duration_since(Instant::now())).await;
            self.next = Instant::now() + REPORT_EVERY;
            let asking = self.clone();
            tokio::spawn(async move { asking.ask().await });
        }
    }

    /// Asks. Where there is no answer, nothing is lost but counts.
    async fn ask(&self) {
        if !self.speaks {
            return;
        }
        match self.channel.call::<Report>(&Call::Report {}).await {
            Ok((report, _)) => {
                if !self.known.swap(true, Relaxed) {
                    metrics().boot.enrolled.of(report::release(&report)).inc();
                }
                report::count(&report);
            }
            Err(error) => tracing::debug!(error = error.to_string(), "a sidecar doesn't say what it did"),
        }
    }
}

/// How long to keep the connection though there is nothing to tell.
fn hold(order: &Order) -> Option<Duration> {
    order.hold_until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}
