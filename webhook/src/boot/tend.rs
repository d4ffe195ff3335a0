//! Tends one sidecar: keeps it told which sessions to serve, for as long as it has any.
//!
//! The connection stays open meanwhile, so that a revocation is one packet away; where it breaks it is dialled again
//! with growing pauses, and everything is told anew. Before anything else on a connection the sidecar is proved and
//! gets its certificate. An empty set is told only to a sidecar that was told another before, until it got it or its
//! last session has expired anyway.

use std::{sync::Arc, time::Duration};

use mirrord_certs::UnixTime;
use mirrord_protocol::boot::{Announce, Announcement, Call, Done};
use quinn::Endpoint;
use tokio::{sync::watch, time::Instant};

use super::{
    channel::{Channel, ChannelError},
    desired::Twin,
    enroll::{EnrollError, Enroller, RENEW_AFTER},
};
use crate::{back_off::BackOff, clock};

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
    pub(super) enroller: Enroller,
}

/// Tends one sidecar.
pub(super) struct Tending {
    hub: Arc<Hub>,
    twin: Twin,
    /// When the last session that it was told about will have expired by itself.
    told_until: UnixTime,
    back_off: BackOff,
}

impl Tending {
    pub(super) fn new(hub: Arc<Hub>, twin: Twin) -> Self {
        let back_off = BackOff::new(Duration::from_millis(200), Duration::from_secs(15));
        Self { hub, twin, told_until: 0, back_off }
    }

    /// Tends until there is nothing left to tell.
    pub(super) async fn run(mut self, mut order_rx: watch::Receiver<Order>) {
        loop {
            let Err(error) = self.converse(&mut order_rx).await else { return };
            let Twin { namespace, pod, route, .. } = &self.twin;
            tracing::warn!(namespace, pod, %route, "a sidecar can't be told of its sessions: {error}");
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

    fn has_nothing_to_tell(&self, order: &Order) -> bool {
        order.sessions.is_empty() && self.told_until <= clock::now() && hold(order).is_none()
    }

    async fn converse(&mut self, order_rx: &mut watch::Receiver<Order>) -> Result<(), EnrollError> {
        let Hub { endpoint, enroller } = &*self.hub;
        let channel = Channel::dial(endpoint, &enroller.authority, &self.twin).await?;
        enroller.enroll(&channel, &self.twin).await?;
        let mut enrolled_at = clock::now();
        loop {
            let order = order_rx.borrow_and_update().clone();
            if !order.sessions.is_empty() || self.told_until > clock::now() {
                if clock::now() >= enrolled_at + RENEW_AFTER {
                    self.hub.enroller.enroll(&channel, &self.twin).await?;
                    enrolled_at = clock::now();
                }
                self.announce(&channel, &order).await?;
                self.back_off.reset();
            }
            let hold = hold(&order);
            if order.sessions.is_empty() && hold.is_none() {
                channel.close();
                return Ok(());
            }
            tokio::select! {
                changed = order_rx.changed() => if changed.is_err() {
                    channel.close();
                    return Ok(());
                },
                error = channel.closed() => return Err(error.into()),
                () = clock::pause(hold.unwrap_or_default()), if order.sessions.is_empty() => {}
            }
        }
    }

    async fn announce(&mut self, channel: &Channel, order: &Order) -> Result<(), EnrollError> {
        // Told or not, the sidecar may know them from here on.
        let last = order.sessions.iter().map(|session| session.expires_at).max().unwrap_or(0);
        self.told_until = self.told_until.max(last);
        let call = Call::Announce(Announce { revision: order.revision, sessions: order.sessions.to_vec() });
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

/// How long to keep the connection though there is nothing to tell.
fn hold(order: &Order) -> Option<Duration> {
    order.hold_until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}
