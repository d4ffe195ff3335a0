//! Gate tokens: what a client's first packet must carry to pass the ingress.
//!
//! `1 ‖ expiry (u64, big-endian) ‖ route id ‖ first 16 bytes of HMAC-SHA-256(key, all before)`. A token protects the
//! router and dormant sidecars from floods and is good for nothing else: who passes still has to prove the session's key.
//!
//! Each route has a key of its own, HMAC-SHA-256(master, label ‖ route id). The control plane and the ingress hold the
//! master; a sidecar gets its route's key and can let nobody in elsewhere by it.

use std::fmt;

use mirrord_protocol::route::{ROUTE_BYTES, RouteId};
use ring::{hmac, rand::SecureRandom};
use thiserror::Error;

use crate::UnixTime;

/// Length of a token, in bytes.
pub const GATE_TOKEN_BYTES: usize = BODY_BYTES + MAC_BYTES;
const BODY_BYTES: usize = 1 + 8 + ROUTE_BYTES;
const MAC_BYTES: usize = 16;
const FORMAT: u8 = 1;

/// Sets derived keys apart from tokens, which begin with a small number.
const DERIVATION: &[u8] = b"mirrord gate key of route ";

/// The key of one route's tokens, 32 bytes.
#[derive(Clone)]
pub struct GateKey {
    bytes: [u8; 32],
    key: hmac::Key,
}

/// Why a token doesn't open the gate.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum GateError {
    /// Not a token of this format.
    #[error("no gate token")]
    Malformed,
    /// Made for another route.
    #[error("gate token of another route")]
    OtherRoute,
    /// Its time is over.
    #[error("gate token expired")]
    Expired,
    /// Made by another key.
    #[error("gate token with a wrong signature")]
    Forged,
}

impl GateKey {
    /// A key of given bytes; `None` unless there are 32.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 32] = bytes.try_into().ok()?;
        Some(Self { bytes, key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// The key's bytes: for the boot channel only.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Makes a token for a route, good until a moment.
    #[must_use]
    pub fn issue(&self, route: RouteId, expires_at: UnixTime) -> Vec<u8> {
        let mut token = Vec::with_capacity(GATE_TOKEN_BYTES);
        token.push(FORMAT);
        token.extend_from_slice(&expires_at.to_be_bytes());
        token.extend_from_slice(&route.0);
        let mac = hmac::sign(&self.key, &token);
        token.extend_from_slice(&mac.as_ref()[..MAC_BYTES]);
        token
    }

    /// Checks a token: its form, route and time first, which cost nothing, its signature last.
    ///
    /// # Errors
    /// See [`GateError`].
    pub fn verify(&self, token: &[u8], route: RouteId, now: UnixTime) -> Result<(), GateError> {
        let (body, mac) = current(token, route, now)?;
        let expected = hmac::sign(&self.key, body);
        // A timing-safe comparison of the truncated code (NIST SP 800-107 §5.1 allows to truncate).
        let different = expected.as_ref()[..MAC_BYTES].iter().zip(mac).fold(0, |sum, (a, b)| sum | (a ^ b));
        if different == 0 { Ok(()) } else { Err(GateError::Forged) }
    }
}

/// A token's body and code, where its form, route and time are right.
fn current(token: &[u8], route: RouteId, now: UnixTime) -> Result<(&[u8], &[u8]), GateError> {
    if token.len() != GATE_TOKEN_BYTES || token[0] != FORMAT {
        return Err(GateError::Malformed);
    }
    let (body, mac) = token.split_at(BODY_BYTES);
    let (expiry, token_route) = body[1..].split_first_chunk::<8>().ok_or(GateError::Malformed)?;
    if token_route != route.0 {
        return Err(GateError::OtherRoute);
    }
    if u64::from_be_bytes(*expiry) < now {
        return Err(GateError::Expired);
    }
    Ok((body, mac))
}

/// The key that the keys of all routes come from, 32 bytes.
#[derive(Clone)]
pub struct GateMaster(GateKey);

impl GateMaster {
    /// A key of given bytes; `None` unless there are 32.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        GateKey::new(bytes).map(Self)
    }

    /// A fresh random key; `None` where the system has no randomness.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let mut bytes = [0; 32];
        ring::rand::SystemRandom::new().fill(&mut bytes).ok()?;
        Self::new(&bytes)
    }

    /// The key's bytes: for the control plane's Secret only.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key of one route.
    #[must_use]
    pub fn route_key(&self, route: RouteId) -> GateKey {
        let mut context = hmac::Context::with_key(&self.0.key);
        context.update(DERIVATION);
        context.update(&route.0);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        GateKey { bytes, key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) }
    }

    /// Makes a token for a route, good until a moment.
    #[must_use]
    pub fn issue(&self, route: RouteId, expires_at: UnixTime) -> Vec<u8> {
        self.route_key(route).issue(route, expires_at)
    }

    /// Checks a token: its form, route and time first, which cost nothing, its signature last.
    ///
    /// # Errors
    /// See [`GateError`].
    pub fn verify(&self, token: &[u8], route: RouteId, now: UnixTime) -> Result<(), GateError> {
        current(token, route, now)?;
        self.route_key(route).verify(token, route, now)
    }
}

impl fmt::Debug for GateMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateMaster(…)")
    }
}

impl fmt::Debug for GateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateKey(…)")
    }
}
