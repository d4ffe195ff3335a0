//! The wire between mirrord's clients and sidecars: messages, framing, limits, route ids. No I/O.
//!
//! | module | what it holds |
//! |---|---|
//! | [`limits`] | every bound, in one table |
//! | [`frame`] | length-prefixed frames: a self-describing header and a raw tail |
//! | [`control`] | the first stream of a session: Hello, Rights, Close |
//! | [`request`] | what a session may ask, one QUIC stream each |
//! | [`reply`] | what comes back, and why not |
//! | [`boot`] | how the control plane tells a sidecar which sessions to serve |
//! | [`packet`] | what a router may read of a QUIC packet |
//! | [`route`] | route ids and the layout of connection ids |
//! | [`feature`] | what a session may be granted |
#![forbid(unsafe_code)]

pub mod boot;
pub mod control;
pub mod feature;
pub mod frame;
pub mod limits;
pub mod packet;
pub mod path;
pub mod reply;
pub mod request;
pub mod route;

/// The domain of labels, annotations and API groups.
pub const DOMAIN: &str = "mirrord.dev";

/// ALPN of a session between a client and a sidecar (RFC 7301).
pub const ALPN: &[u8] = b"mirrord/1";

/// ALPN of the boot channel between the control plane and a sidecar.
pub const ALPN_BOOT: &[u8] = b"mirrord-boot/1";

/// Minor version spoken by this build. Additive: both ends use the smaller of the two.
///
/// | version | since when |
/// |---|---|
/// | 1 | the first |
/// | 2 | boot call [`boot::Call::Report`]; boot calls of other releases are answered with `Unsupported`, not by closing |
pub const VERSION: u16 = 2;
