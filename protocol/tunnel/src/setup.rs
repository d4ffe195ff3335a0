//! Endpoints, connection ids that carry the route, and transport parameters.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mirrord_protocol::{
    limits,
    route::{CID_BYTES, ConnectionId, Purpose, RouteId},
};
use quinn::{
    ClientConfig, ConnectionIdGenerator, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use ring::{hmac, rand::SecureRandom};

/// Keeps NAT bindings alive: UDP ones idle out from 30 s on.
const KEEP_ALIVE: Duration = Duration::from_secs(12);
/// A connection without a word for so long is gone, in milliseconds.
const IDLE_MS: u32 = 60_000;
/// The same for boot channels, which live only as long as there are sessions: a sidecar that was started anew is to be
/// told again while its clients still wait for that.
const BOOT_KEEP_ALIVE: Duration = Duration::from_secs(1);
const BOOT_IDLE_MS: u32 = 4_000;
/// A dialler's guess before it has measured: a lost first packet is sent again after three times that (RFC 9002
/// §6.2.2), so a far cluster costs a packet too many and a lossy network 150 ms instead of a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// What a peer may send on one stream ahead of reading, in bytes.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
/// What a peer may send on all streams ahead of reading, in bytes.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// The largest packet probed for: jumbo frames above it have made transfers hang.
const MAX_MTU: u16 = 6500;

/// Receive windows of one end, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// A stream's.
    pub stream: u32,
    /// A connection's.
    pub connection: u32,
}

impl Default for Windows {
    fn default() -> Self {
        Self { stream: STREAM_WINDOW, connection: CONNECTION_WINDOW }
    }
}

/// Transport parameters of either end.
#[must_use]
pub fn transport(windows: Windows) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MAX_MTU);
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS).into()))
        .initial_mtu(1200)
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(VarInt::from_u32(windows.stream))
        .receive_window(VarInt::from_u32(windows.connection))
        .send_window(u64::from(windows.connection))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    config
}

/// A dialler's configuration: its first packet carries the route in its connection id, and the gate token.
///
/// # Errors
/// Where TLS lacks the cipher suite of QUIC's Initials.
pub fn client(
    tls: rustls::ClientConfig,
    purpose: Purpose,
    route: RouteId,
    gate_token: Option<Vec<u8>>,
) -> Result<ClientConfig, NoInitialCipherSuite> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = transport(Windows::default());
    transport.initial_rtt(INITIAL_RTT);
    if purpose == Purpose::Boot {
        transport
            .keep_alive_interval(Some(BOOT_KEEP_ALIVE))
            .max_idle_timeout(Some(VarInt::from_u32(BOOT_IDLE_MS).into()));
    }
    config.transport_config(Arc::new(transport));
    config.initial_dst_cid_provider(Arc::new(move || connection_id(purpose, route)));
    if let Some(token) = gate_token {
        config.token_store(Arc::new(GateToken(Bytes::from(token))));
    }
    Ok(config)
}

/// A sidecar's configuration for one ALPN.
///
/// # Errors
/// Where TLS lacks the cipher suite of QUIC's Initials.
pub fn server(tls: rustls::ServerConfig, windows: Windows) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(windows)));
    Ok(config)
}

/// An endpoint's configuration. A sidecar gives its route, so that all its connection ids carry it, and the key of its
/// stateless resets, so that a restarted one still ends old connections.
#[must_use]
pub fn endpoint(route: Option<RouteId>, reset_key: &[u8]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset_key)));
    config.grease_quic_bit(false);
    if let Some(route) = route {
        config.cid_generator(move || Box::new(RouteIds(route)));
    }
    config
}

/// A fresh connection id of a route.
fn connection_id(purpose: Purpose, route: RouteId) -> quinn::ConnectionId {
    let mut random = [0; _];
    // Without randomness ids repeat and quinn refuses the second connection: no harm but that.
    let _ = ring::rand::SystemRandom::new().fill(&mut random);
    quinn::ConnectionId::new(&ConnectionId { purpose, route, random }.to_bytes())
}

/// Ids that a sidecar issues.
struct RouteIds(RouteId);

impl ConnectionIdGenerator for RouteIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        connection_id(Purpose::Session, self.0)
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Puts the gate token into the token field of each Initial (RFC 9000 §8.1.3).
struct GateToken(Bytes);

impl quinn::TokenStore for GateToken {
    fn insert(&self, _server_name: &str, _token: Bytes) {}

    fn take(&self, _server_name: &str) -> Option<Bytes> {
        Some(self.0.clone())
    }
}
