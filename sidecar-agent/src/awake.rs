//! Awake: a runtime on the worker's one thread, an endpoint on the socket, one task per connection.
//!
//! It begins with the datagrams that a dormant sidecar collected and ends when no connection and no live session
//! has been there for a while, or with the pod.

use std::{
    io,
    net::UdpSocket,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mirrord_certs::{AuthorityError, SelfSigned, verify};
use mirrord_protocol::{
    control::CloseCode,
    route::{ConnectionId, Purpose},
};
use mirrord_tunnel::setup::{self, Windows};
use quinn::{Connecting, Connection, Endpoint, Incoming, Runtime as _, ServerConfig, TokioRuntime, VarInt};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinSet,
    time::timeout,
};

use crate::{
    boot,
    cli::Settings,
    clock,
    door::{Door, Place, Verdict},
    dormant::Datagram,
    gate::{Gate, GatedSocket},
    identity::Identity,
    ids::{self, Ids, ResetKey},
    live::Target,
    session,
    sys::signals::Termination,
    twin::{Parts, Twin},
    view::Views,
    windows,
    worker::{Diary, Memory},
};

/// Threads for files and look-ups; they end when idle.
const BLOCKING_THREADS: usize = 8;
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// getaddrinfo(3) of musl keeps its packets on the stack: below 32 KiB.
const STACK_BYTES: usize = 256 * 1024;
/// First packets that wait to be looked at.
const INCOMING: usize = 128;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For how long QUIC remembers a handshake that failed, about: three times its first guess of what a round trip takes at
/// most (RFC 9000 §10.2), which for boot is that of a cluster.
const REMEMBERED: Duration = Duration::from_secs(3);
const BOOT_REMEMBERED: Duration = Duration::from_millis(500);
const BOOT_RTT: Duration = Duration::from_millis(50);
/// How long the goodbyes of a stopping sidecar may take.
const GOODBYE: Duration = Duration::from_millis(100);
/// Packets of connections that aren't accepted yet, in bytes.
const INCOMING_BYTES: u64 = 64 * 1024;
/// What the kernel may queue in either direction, in bytes; it cuts it down to what the node allows.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;

/// Why a sidecar can't serve.
#[derive(Debug, Error)]
pub(crate) enum WakeError {
    #[error("--ca is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("--ca: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Cipher(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    #[error("the sidecar's key: {0}")]
    Key(#[from] AuthorityError),
    #[error("waking up: {0}")]
    System(#[from] io::Error),
}

/// Serves until nobody is left.
pub(crate) fn run(
    settings: &Settings,
    identity: &Identity,
    socket: &UdpSocket,
    termination: &Termination,
    early: Vec<Datagram>,
    past: (Memory, Diary),
) -> Result<(), WakeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .thread_stack_size(STACK_BYTES)
        .build()?;
    let outcome = runtime.block_on(async {
        let gate = Arc::new(Gate::new(Ids::new(identity.route), early, clock::now()));
        let twin = Arc::new(twin(settings, identity, Arc::clone(&gate), past)?);
        let boot = Arc::new(boot_config(&twin)?);
        let endpoint = endpoint(socket, &twin, &boot)?;
        tracing::info!(pod = twin.identity.pod(), "awake");
        serve(&endpoint, &twin, &boot, termination, settings.linger).await
    });
    // Not waiting for threads that hang in a file system: they end with the process.
    runtime.shutdown_background();
    outcome
}

fn twin(
    settings: &Settings,
    identity: &Identity,
    gate: Arc<Gate>,
    (memory, diary): (Memory, Diary),
) -> Result<Twin, WakeError> {
    let decode = |text: &str| STANDARD.decode(text).map(CertificateDer::from);
    let target = settings
        .namespace_shared
        .then(|| Target { pod_uid: identity.pod_uid.clone(), container: identity.container.clone() });
    Ok(Twin::new(Parts {
        key: SelfSigned::generate()?,
        authorities: settings.authorities.split(',').map(decode).collect::<Result<_, _>>()?,
        gate,
        reset_key: Arc::new(ResetKey::new(&memory.reset_key)),
        windows: windows::windows(windows::memory_limit()),
        views: Views::new(target, settings.secret_mounts.clone(), identity.folder())?,
        identity: identity.clone(),
        memory,
        diary,
    }))
}

fn boot_config(twin: &Twin) -> Result<ServerConfig, WakeError> {
    let tls = verify::boot_server(&twin.key, twin.authorities.iter().cloned())?;
    let windows = Windows { stream: 1024 * 1024, connection: 2 * 1024 * 1024 };
    let mut config = setup::server(tls, windows)?;
    let mut transport = setup::transport(windows);
    transport.initial_rtt(BOOT_RTT);
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(8 * INCOMING_BYTES);
    Ok(config)
}

fn endpoint(socket: &UdpSocket, twin: &Twin, boot: &ServerConfig) -> io::Result<Endpoint> {
    let socket = socket.try_clone()?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES)?;
    let socket = TokioRuntime.wrap_udp_socket(socket)?;
    let gated = GatedSocket { socket, gate: Arc::clone(&twin.gate) };
    let config = ids::endpoint(twin.gate.ids().clone(), Arc::clone(&twin.reset_key));
    Endpoint::new_with_abstract_socket(config, Some(boot.clone()), Arc::new(gated), Arc::new(TokioRuntime))
}

async fn serve(
    endpoint: &Endpoint,
    twin: &Arc<Twin>,
    boot: &Arc<ServerConfig>,
    termination: &Termination,
    linger: Duration,
) -> Result<(), WakeError> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe; a borrowed descriptor stays open as long as this does"
    )]
    let termination = AsyncFd::with_interest(termination.as_fd(), Interest::READABLE)?;
    let door = Arc::new(Door::default());
    let mut connections = JoinSet::new();
    let mut quiet_since = Instant::now();
    loop {
        let patience =
            if connections.is_empty() { patience(twin, quiet_since, linger) } else { Duration::MAX };
        let event = tokio::select! {
            event = timeout(patience, endpoint.accept()) => event.map_or(Event::Quiet, Event::Incoming),
            Some(_) = connections.join_next(), if !connections.is_empty() => Event::Ended,
            _ = termination.readable() => Event::Stop,
        };
        match event {
            Event::Quiet if twin.sessions.borrow().live_until(clock::now()).is_none() => return Ok(()),
            Event::Quiet => {}
            Event::Ended => quiet_since = Instant::now(),
            Event::Incoming(Some(incoming)) => {
                if let Some(admitted) = admit(incoming, twin, boot, &door) {
                    connections.spawn(connection(admitted, Arc::clone(twin), Arc::clone(&door)));
                }
            }
            Event::Incoming(None) | Event::Stop => {
                endpoint.close(VarInt::from(CloseCode::Stopping.number()), b"the pod stops");
                let _ = timeout(GOODBYE, endpoint.wait_idle()).await;
                return Ok(());
            }
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Event {
    Incoming(Option<Incoming>),
    Ended,
    Quiet,
    Stop,
}

/// How long to wait for something to happen before looking whether anybody is left: to the end of the linger, or of
/// the last session.
fn patience(twin: &Twin, quiet_since: Instant, linger: Duration) -> Duration {
    let now = clock::now();
    let sessions = twin.sessions.borrow().live_until(now).map(|until| Duration::from_secs(until - now));
    linger.saturating_sub(quiet_since.elapsed()).max(sessions.unwrap_or_default())
}

/// Who may begin a handshake, and how it is accepted.
struct Admitted {
    incoming: Incoming,
    config: Arc<ServerConfig>,
    place: Place,
}

/// Lets a caller in, or not. What a connection is for stands in the id that the client first sent to, and decides which
/// certificate it sees and which protocol it may speak.
fn admit(incoming: Incoming, twin: &Twin, boot: &Arc<ServerConfig>, door: &Arc<Door>) -> Option<Admitted> {
    let purpose = ConnectionId::parse(&incoming.orig_dst_cid()).map(|id| id.purpose);
    let config = match purpose {
        Some(Purpose::Boot) => Some(Arc::clone(boot)),
        Some(Purpose::Session) => twin.installed().map(|installed| installed.server),
        None => None,
    };
    let Some((purpose, config)) = purpose.zip(config) else {
        incoming.ignore();
        return None;
    };
    match door.knock(purpose, incoming.remote_address().ip(), incoming.remote_address_validated()) {
        Verdict::Enter(place) => return Some(Admitted { incoming, config, place }),
        // Fails only for who has proved its address.
        Verdict::Prove => drop(incoming.retry()),
        Verdict::Refuse => incoming.refuse(),
        Verdict::Ignore => incoming.ignore(),
    }
    None
}

/// One connection from handshake to end.
async fn connection(admitted: Admitted, twin: Arc<Twin>, door: Arc<Door>) {
    let Admitted { incoming, config, mut place } = admitted;
    let (peer, purpose) = (incoming.remote_address(), place.purpose());
    let failed = |error: &str| {
        if let Some(count) = door.failed() {
            tracing::warn!(%peer, ?purpose, error, count, "handshake failed");
        }
    };
    let connecting = match incoming.accept_with(config) {
        Ok(connecting) => connecting,
        Err(error) => return failed(&error.to_string()),
    };
    let connection = match handshake(connecting).await {
        Ok(connection) => connection,
        Err(error) => {
            failed(&error);
            return keep(place).await;
        }
    };
    place.entered();
    match purpose {
        Purpose::Boot => boot::serve(connection, twin).await,
        Purpose::Session => session::serve(connection, twin).await,
    }
}

/// A handshake that failed keeps its place as long as its memory.
async fn keep(place: Place) {
    let remembered = match place.purpose() {
        Purpose::Boot => BOOT_REMEMBERED,
        Purpose::Session => REMEMBERED,
    };
    let _ = timeout(remembered, std::future::pending::<()>()).await;
    drop(place);
}

async fn handshake(connecting: Connecting) -> Result<Connection, String> {
    match timeout(HANDSHAKE, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("took longer than {HANDSHAKE:?}")),
    }
}
