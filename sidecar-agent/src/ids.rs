//! Connection ids that this process issued, and can tell from all others, and the key of its stateless resets.
//!
//! Every id names the route ([`mirrord_protocol::route`]). Of the seven octets that are left, three are random and four
//! are a code over them by a key of this process. So the gate knows without a table which Initial belongs to a
//! handshake that it let through before: only a client's first flight goes to an id of the client's choice (RFC 9000
//! §7.2).

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use mirrord_protocol::route::{CID_BYTES, ConnectionId, Purpose, RouteId};
use quinn::{
    ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};
use ring::{hmac, rand::SecureRandom};

use crate::worker::RESET_KEY_BYTES;

const NONCE_BYTES: usize = 3;

/// The ids of one route that this process issues.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    route: RouteId,
    key: hmac::Key,
}

impl Ids {
    /// A generator with a key of its own.
    pub(crate) fn new(route: RouteId) -> Self {
        Self { route, key: random_key() }
    }

    /// The route that all ids carry.
    pub(crate) fn route(&self) -> RouteId {
        self.route
    }

    /// Whether this process issued the id.
    pub(crate) fn issued(&self, id: &ConnectionId) -> bool {
        id.route == self.route && self.issue(id.random) == *id
    }

    /// The id of a nonce: its first octets; the rest of the array is replaced.
    fn issue(&self, mut random: [u8; 7]) -> ConnectionId {
        let (nonce, code) = random.split_at_mut(NONCE_BYTES);
        let tag = hmac::sign(&self.key, nonce);
        code.copy_from_slice(&tag.as_ref()[..code.len()]);
        ConnectionId { purpose: Purpose::Session, route: self.route, random }
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&self.issue(random()).to_bytes())
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The key of stateless resets: a random one until the control plane installs the pod's, so that a restarted sidecar
/// ends its predecessor's connections; a worker after a crash has it from the beginning.
#[derive(Debug)]
pub(crate) struct ResetKey {
    before: hmac::Key,
    installed: OnceLock<hmac::Key>,
}

impl ResetKey {
    /// The pod's, where an earlier worker noted it, else random for now.
    pub(crate) fn new(noted: &[u8; RESET_KEY_BYTES]) -> Self {
        let key = Self { before: random_key(), installed: OnceLock::new() };
        if noted.iter().any(|byte| *byte != 0) {
            key.install(noted);
        }
        key
    }

    /// Uses the pod's key from now on; it is the same for this pod for ever, so the first one stays.
    pub(crate) fn install(&self, key: &[u8]) {
        self.installed.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, key));
    }

    fn key(&self) -> &hmac::Key {
        self.installed.get().unwrap_or(&self.before)
    }
}

/// What quinn signs resets with.
struct Shared(Arc<ResetKey>);

impl HmacKey for Shared {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        HmacKey::sign(self.0.key(), data, signature_out);
    }

    fn signature_len(&self) -> usize {
        HmacKey::signature_len(self.0.key())
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        HmacKey::verify(self.0.key(), data, signature)
    }
}

/// The endpoint's configuration. It differs from [`mirrord_tunnel::setup::endpoint`] in that ids can be recognised
/// and the reset key comes later.
pub(crate) fn endpoint(ids: Ids, reset_key: Arc<ResetKey>) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(Shared(reset_key)));
    config.grease_quic_bit(false).cid_generator(move || Box::new(ids.clone()));
    config
}

fn random_key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &random::<32>())
}

/// Random octets. Linux has randomness at any time that a pod runs (getrandom(2)); were it not so, ids would repeat
/// and the gate would let a few more packets through, TLS being made by ring itself, which then refuses.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: RouteId = RouteId([7; 8]);

    fn fresh(ids: &mut Ids) -> ConnectionId {
        ConnectionId::parse(&ids.generate_cid()).expect("of our shape")
    }

    #[test]
    fn issued_ids_are_told_from_others() {
        let mut ids = Ids::new(ROUTE);
        let id = fresh(&mut ids);
        assert_eq!(id.route, ROUTE);
        assert!(ids.issued(&id));
        assert!(!Ids::new(ROUTE).issued(&id), "of another process");
        assert!(!ids.issued(&ConnectionId { route: RouteId([8; 8]), ..id }), "of another route");
        assert!(!ids.issued(&ConnectionId { purpose: Purpose::Boot, ..id }));
        for octet in 0..7 {
            let mut random = id.random;
            random[octet] ^= 1;
            assert!(!ids.issued(&ConnectionId { random, ..id }), "octet {octet}");
        }
        assert_ne!(fresh(&mut ids), id);
    }

    #[test]
    fn resets_of_a_restarted_sidecar_match_once_the_key_is_installed() {
        let sign = |key: &Arc<ResetKey>| {
            let mut signature = [0; 32];
            Shared(Arc::clone(key)).sign(b"id", &mut signature);
            signature
        };
        let (first, second) =
            (Arc::new(ResetKey::new(&[0; RESET_KEY_BYTES])), Arc::new(ResetKey::new(&[0; RESET_KEY_BYTES])));
        assert_ne!(sign(&first), sign(&second));
        assert_eq!(sign(&Arc::new(ResetKey::new(&[1; 32]))), sign(&Arc::new(ResetKey::new(&[1; 32]))));
        first.install(&[1; 32]);
        second.install(&[1; 32]);
        assert_eq!(sign(&first), sign(&second));
        second.install(&[2; 32]);
        assert_eq!(sign(&first), sign(&second), "the first key stays");
        assert!(Shared(first).verify(b"id", &sign(&second)).is_ok());
    }
}
