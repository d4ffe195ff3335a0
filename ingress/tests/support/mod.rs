//! A router on a thread of its own, sidecars and clients as the product makes them, and hand-made packets.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses a part of this, so no single expectation holds in all"
)]

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{Arc, mpsc as std_mpsc},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mirrord_certs::{Authority, GateMaster, SelfSigned, verify};
use mirrord_ingress::{
    flows::Bounds,
    forward::Forwarder,
    gate::GateFolder,
    reason::Counters,
    router::Router,
    routes::{Change, Grant},
};
use mirrord_protocol::route::{ConnectionId, Purpose, RouteId};
use mirrord_tunnel::setup;
use quinn::{Connection, Endpoint, TokioRuntime};
use tokio::sync::{mpsc, oneshot};

pub(crate) const BOUNDS: Bounds = Bounds { total: 1000, per_client: 500 };
pub(crate) const ROUTER_THREAD: &str = "router";
pub(crate) const DAY: u64 = 24 * 3600;
/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A gate key in a folder, and the tokens made with it.
pub(crate) struct Gate {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) key: GateMaster,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let gate = Self { folder: tempfile::tempdir().unwrap(), key: GateMaster::generate().unwrap() };
        std::fs::write(gate.folder.path().join("current"), gate.key.as_bytes()).unwrap();
        gate
    }

    pub(crate) fn token(&self, route: RouteId) -> Vec<u8> {
        self.key.issue(route, now() + DAY)
    }
}

/// A router at work.
pub(crate) struct Ingress {
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    changes: mpsc::Sender<Change>,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ingress {
    pub(crate) fn start(listen: &str, gate: &Path) -> Self {
        let (listen, gate) = (listen.parse().unwrap(), gate.to_owned());
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let (changes, changes_rx) = mpsc::channel(64);
        let (kill, kill_rx) = oneshot::channel();
        let (address_tx, address_rx) = std_mpsc::channel();
        let thread = std::thread::Builder::new().name(ROUTER_THREAD.into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (gate, keys) = GateFolder::open(gate).unwrap();
                let forwarder = Forwarder::bind(listen, Router::new(BOUNDS, keys), gate, counted).unwrap();
                address_tx.send(forwarder.local_addr().unwrap()).unwrap();
                let (_stop_tx, stop_rx) = oneshot::channel();
                tokio::select! {
                    () = forwarder.run(changes_rx, stop_rx) => {}
                    _ = kill_rx => {}
                }
            });
        });
        let thread = thread.unwrap();
        let address = address_rx.recv().unwrap();
        Self { address, counters, changes, kill: Some(kill), thread: Some(thread) }
    }

    /// Makes routes known, as one Session.
    pub(crate) async fn session(&self, name: &str, routes: &[(RouteId, SocketAddr)]) {
        let grant = Grant { routes: routes.into(), until: now() + DAY };
        self.changes.send(Change::Set(name.into(), grant)).await.unwrap();
        // Once there is room for all again, all have been taken.
        while self.changes.capacity() < self.changes.max_capacity() {
            tokio::task::yield_now().await;
        }
    }

    /// Ends at once, as a killed process does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.kill.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.end();
    }
}

/// A sidecar that echoes what comes on streams.
pub(crate) struct Sidecar {
    pub(crate) route: RouteId,
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: Endpoint,
    pub(crate) connections: mpsc::UnboundedReceiver<Connection>,
    authority: Authority,
}

impl Sidecar {
    pub(crate) fn start(pod: &str) -> Self {
        Self::with(pod, false)
    }

    /// One that has clients prove their address first, as sidecars do in a flood (RFC 9000 §8.1.2).
    pub(crate) fn wary(pod: &str) -> Self {
        Self::with(pod, true)
    }

    fn with(pod: &str, wary: bool) -> Self {
        let authority = Authority::create(now()).unwrap();
        let route = RouteId::of(pod, "app");
        let key = SelfSigned::generate().unwrap();
        let csr = key.signing_request().unwrap();
        let certificate = authority.sidecar(&csr, route, now(), DAY).unwrap();
        let tls = verify::session_server(vec![certificate], key.private_key()).unwrap();
        let config = setup::server(tls, setup::Windows::default()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::new(
            setup::endpoint(Some(route), &[7; 32]),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )
        .unwrap();
        let (connections_tx, connections) = mpsc::unbounded_channel();
        tokio::spawn(accept(endpoint.clone(), connections_tx, wary));
        Self { route, address: endpoint.local_addr().unwrap(), endpoint, connections, authority }
    }

    /// A client of this sidecar, with an endpoint of its own.
    pub(crate) async fn client(&self, ingress: SocketAddr, token: Vec<u8>) -> (Endpoint, Connection) {
        let key = SelfSigned::generate().unwrap();
        let tls = verify::session_client(&key, [self.authority.certificate().clone()]).unwrap();
        let config = setup::client(tls, Purpose::Session, self.route, Some(token)).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint =
            Endpoint::new(setup::endpoint(None, &[8; 32]), None, socket, Arc::new(TokioRuntime)).unwrap();
        let connecting = endpoint.connect_with(config, ingress, &self.route.server_name()).unwrap();
        let connection = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap();
        (endpoint, connection)
    }
}

async fn accept(endpoint: Endpoint, connections: mpsc::UnboundedSender<Connection>, wary: bool) {
    while let Some(incoming) = endpoint.accept().await {
        if wary && !incoming.remote_address_validated() {
            incoming.retry().unwrap();
            continue;
        }
        let Ok(connection) = incoming.await else { continue };
        let _ = connections.send(connection.clone());
        tokio::spawn(async move {
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX, true).await {
                        if send.write_chunk(chunk.bytes).await.is_err() {
                            return;
                        }
                    }
                    let _ = send.finish();
                });
            }
        });
    }
}

/// Sends bytes on a stream of their own, and checks that they come back.
pub(crate) async fn echo(connection: &Connection, bytes: Vec<u8>) {
    tokio::time::timeout(PATIENCE, async {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let (write, read) = tokio::join!(
            async {
                send.write_all(&bytes).await.unwrap();
                send.finish().unwrap();
            },
            receive.read_to_end(bytes.len() + 1)
        );
        let ((), back) = (write, read.unwrap());
        assert!(back == bytes, "{} bytes came back of {}, or others", back.len(), bytes.len());
    })
    .await
    .expect("an echo");
}

/// A connection id of a route.
pub(crate) fn id(purpose: Purpose, route: RouteId) -> [u8; 16] {
    ConnectionId { purpose, route, random: [0x5a; 7] }.to_bytes()
}

/// An Initial as RFC 9000 §17.2.2 lays it out, its protected part being anything.
pub(crate) fn initial(destination: &[u8], token: &[u8]) -> Vec<u8> {
    let mut packet = long(1, destination);
    assert!(token.len() < 0x4000);
    packet.extend_from_slice(&(0x4000 | u16::try_from(token.len()).unwrap()).to_be_bytes());
    packet.extend_from_slice(token);
    packet.resize(1200, 0xee);
    packet
}

/// The invariant part of a long header (RFC 8999 §5.1), of the Initial type in version 1.
pub(crate) fn long(version: u32, destination: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend_from_slice(&version.to_be_bytes());
    packet.push(u8::try_from(destination.len()).unwrap());
    packet.extend_from_slice(destination);
    packet.push(0);
    packet
}

/// The start of a version 1 Handshake packet (RFC 9000 §17.2.4).
pub(crate) fn handshake(destination: &[u8]) -> Vec<u8> {
    let mut packet = long(1, destination);
    packet[0] = 0xe0;
    packet
}

/// A short-header packet.
pub(crate) fn short(destination: &[u8], length: usize) -> Vec<u8> {
    let mut packet = vec![0x40];
    packet.extend_from_slice(destination);
    packet.resize(length, 0xdd);
    packet
}

/// A plain socket that fails rather than waits for ever.
pub(crate) fn plain_socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What comes next on a plain socket.
pub(crate) fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65536];
    let (length, sender) = socket.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(length);
    (buffer, sender)
}
