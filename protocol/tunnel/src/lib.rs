//! How QUIC is set up and framed on both ends of the tunnel.
//!
//! | module | what it holds |
//! |---|---|
//! | [`setup`] | endpoints, connection ids that carry the route, transport parameters |
//! | [`framing`] | frames of [`mirrord_protocol::frame`] on QUIC streams |
#![forbid(unsafe_code)]

pub mod framing;
pub mod setup;
