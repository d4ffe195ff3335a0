//! The installation's keys as they are now. They change while the control plane runs ([`super::rotation`]): who needs them
//! asks for them each time.

use std::sync::Arc;

use mirrord_certs::{Authority, GateKey, GateMaster, UnixTime};
use mirrord_protocol::route::RouteId;
use tokio::sync::watch;

/// All keys of an installation.
pub struct Keys {
    /// What certificates come from.
    pub authority: Authority,
    /// What gate tokens come from.
    pub gate: GateKeys,
    /// What the paths of the webhooks end in ([`crate::server::routes`]).
    pub path_key: String,
}

impl Keys {
    /// Keys of a new installation.
    #[must_use]
    pub fn new(authority: Authority, gate: GateMaster) -> Self {
        let path_key = authority.webhook_path_key();
        Self { authority, gate: GateKeys { current: gate, next: None, previous: None }, path_key }
    }
}

/// The gate keys of an installation. Routers and sidecars open to tokens of all of them.
#[derive(Clone, Debug)]
pub struct GateKeys {
    /// Signs tokens.
    pub current: GateMaster,
    /// Will sign tokens, once routers and sidecars had time to hear of it.
    pub next: Option<GateMaster>,
    /// Signed tokens that may still be about.
    pub previous: Option<GateMaster>,
}

impl GateKeys {
    /// Makes a token for a route, good until a moment.
    #[must_use]
    pub fn issue(&self, route: RouteId, expires_at: UnixTime) -> Vec<u8> {
        self.current.issue(route, expires_at)
    }

    /// The keys of one route, for its sidecar: the one that signs first.
    pub fn of_route(&self, route: RouteId) -> impl Iterator<Item = GateKey> {
        let others = self.next.iter().chain(&self.previous);
        std::iter::once(&self.current).chain(others).map(move |key| key.route_key(route))
    }
}

/// Where to ask for the keys; clones follow the same ones.
#[derive(Clone)]
pub struct Keyring(watch::Receiver<Arc<Keys>>);

impl Keyring {
    /// Follows a sender's keys.
    #[must_use]
    pub fn new(keys_rx: watch::Receiver<Arc<Keys>>) -> Self {
        Self(keys_rx)
    }

    /// The keys as they are now.
    #[must_use]
    pub fn now(&self) -> Arc<Keys> {
        self.0.borrow().clone()
    }

    /// Waits until there are others than [`Self::seen`] or [`Self::changed`] last saw; for ever where there will be none.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The keys as they are now, which count as seen.
    pub fn seen(&mut self) -> Arc<Keys> {
        self.0.borrow_and_update().clone()
    }
}
