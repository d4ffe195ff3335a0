//! Route ids and the layout of connection ids.
//!
//! ```text
//! octet   0         1 ………………… 8     9 ……………………… 15
//!         purpose   route id         random
//! ```
//! The client's first Destination Connection ID and every id that a sidecar issues have this shape, so each packet
//! towards a sidecar names its route in the clear (RFC 8999 §5: ids are visible to anybody on the path).

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Length of all connection ids, in bytes.
pub const CID_BYTES: usize = 16;
/// Length of a route id, in bytes.
pub const ROUTE_BYTES: usize = 8;

/// Where packets of one container's sidecar go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub [u8; ROUTE_BYTES]);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// A client's session, ALPN [`crate::ALPN`].
    Session = 0x01,
    /// The control plane's boot channel, ALPN [`crate::ALPN_BOOT`]; never forwarded by the ingress.
    Boot = 0x02,
}

/// A connection id taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// What the connection is for.
    pub purpose: Purpose,
    /// Which sidecar.
    pub route: RouteId,
    /// What tells connections of a route apart.
    pub random: [u8; CID_BYTES - ROUTE_BYTES - 1],
}

impl RouteId {
    /// The route of a container: first bytes of SHA-256("mirrord-route" ‖ pod UID ‖ container name).
    #[must_use]
    pub fn of(pod_uid: &str, container: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(b"mirrord-route")
            .chain_update(pod_uid.as_bytes())
            .chain_update(container.as_bytes())
            .finalize();
        let mut id = [0; ROUTE_BYTES];
        id.copy_from_slice(&digest[..ROUTE_BYTES]);
        Self(id)
    }

    /// The name that the sidecar's certificate carries.
    #[must_use]
    pub fn server_name(self) -> String {
        format!("r{self}.sidecar.{}", crate::DOMAIN)
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no route id.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a route id is 16 hexadecimal digits")]
pub struct NoRouteId;

impl FromStr for RouteId {
    type Err = NoRouteId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 2 * ROUTE_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(NoRouteId);
        }
        u64::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| NoRouteId)
    }
}

impl ConnectionId {
    /// Takes an id apart; `None` where it isn't one of ours.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; CID_BYTES] = bytes.try_into().ok()?;
        let purpose = match bytes[0] {
            0x01 => Purpose::Session,
            0x02 => Purpose::Boot,
            _ => return None,
        };
        let mut route = [0; ROUTE_BYTES];
        route.copy_from_slice(&bytes[1..=ROUTE_BYTES]);
        let mut random = [0; CID_BYTES - ROUTE_BYTES - 1];
        random.copy_from_slice(&bytes[1 + ROUTE_BYTES..]);
        Some(Self { purpose, route: RouteId(route), random })
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; CID_BYTES] {
        let mut bytes = [0; CID_BYTES];
        bytes[0] = self.purpose as u8;
        bytes[1..=ROUTE_BYTES].copy_from_slice(&self.route.0);
        bytes[1 + ROUTE_BYTES..].copy_from_slice(&self.random);
        bytes
    }
}
