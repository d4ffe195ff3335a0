//! One client's session: who it is, what it may do now, and its requests.
//!
//! The client is its key: TLS proved that it holds it, and only an announcement gives the key any rights. Those are
//! looked up anew at every request and watched in between, so that a shrunken, expired or deleted session ends at once,
//! in the middle of a transfer too.

mod connections;
mod files;
mod grant;
mod network;
mod reply;
mod requests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mirrord_certs::{KeyHash, key_hash};
use mirrord_protocol::{
    VERSION,
    control::{Close, CloseCode, Control, Hello, Rights},
    feature::Feature,
    limits::{HELLO_WAIT_MS, STREAMS, TEXT_BYTES},
};
use mirrord_tunnel::framing;
use quinn::{Connection, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::{
    task::JoinSet,
    time::{error::Elapsed, timeout},
};

pub(crate) use self::connections::Connections;
use self::grant::{Ended, Session};
use crate::{
    clock,
    twin::{Twin, blocking},
};

/// Streams that one session may hold at last; it begins with [`STREAMS`], since QUIC pays for each that is allowed.
const MOST_STREAMS: u32 = 1024;
/// How long the control stream may take to come, and the last word on it to be acknowledged.
const CONTROL: Duration = Duration::from_secs(10);
const LAST_WORD: Duration = Duration::from_millis(200);
/// Name and release, for logs and metrics.
pub(crate) const SOFTWARE: &str = concat!("mirrord-agent ", env!("CARGO_PKG_VERSION"));

/// How a conversation ends.
enum Ending {
    /// The client went.
    Lost,
    /// We end it.
    Close(CloseCode, String),
}

/// Serves a session until either side ends it.
pub(crate) async fn serve(connection: Connection, twin: Arc<Twin>) {
    let peer = connection.remote_address();
    let Some(key) = peer_key(&connection) else {
        return connection.close(VarInt::from(CloseCode::Protocol.number()), b"a session needs a client key");
    };
    let session = name(key);
    // Dropped after the connection is closed: a request that is under way then fails by the reason for that, not by an
    // answer that ends early.
    let mut requests = JoinSet::new();
    match converse(&connection, &twin, key, &mut requests).await {
        Ending::Lost => tracing::info!(session, %peer, "session left"),
        Ending::Close(code, reason) => {
            tracing::info!(session, %peer, ?code, reason, "session closed");
            connection.close(VarInt::from(code.number()), reason.as_bytes());
        }
    }
}

/// The name of the Session object of a key, for people.
fn name(key: KeyHash) -> String {
    let mut name = format!("s-{key}");
    name.truncate(2 + 40);
    name
}

fn peer_key(connection: &Connection) -> Option<KeyHash> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_hash(chain.first()?)
}

async fn converse(
    connection: &Connection,
    twin: &Arc<Twin>,
    key: KeyHash,
    requests: &mut JoinSet<Result<(), String>>,
) -> Ending {
    if let Err(ending) = announced(twin, key).await {
        return ending;
    }
    let _entry = twin.connections.enter(key, connection);
    let (mut control, hello, _receive) = match timeout(CONTROL, hello(connection)).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(ending)) => return ending,
        Err(_) => return Ending::Close(CloseCode::Protocol, "no Hello came".into()),
    };
    let software: String = hello.software.chars().take(TEXT_BYTES).collect();
    let session = Arc::new(Session::new(Arc::clone(twin), key, hello.features));
    let ending = attend(connection, &session, &mut control, (hello.version, &software), requests).await;
    if let Ending::Close(code, reason) = &ending {
        say_goodbye(&mut control, *code, reason).await;
    }
    ending
}

/// Waits until the session is announced: a quick client comes before the control plane, which is on its way.
async fn announced(twin: &Twin, key: KeyHash) -> Result<(), Ending> {
    let mut sessions = twin.sessions.subscribe();
    if sessions.borrow_and_update().grant(key).is_some() {
        return Ok(());
    }
    let Ok(_waiting) = twin.hellos.try_acquire() else {
        return Err(Ending::Close(CloseCode::Busy, "too many sessions wait to be announced".into()));
    };
    let wait = Duration::from_millis(HELLO_WAIT_MS);
    match timeout(wait, sessions.wait_for(|sessions| sessions.grant(key).is_some())).await {
        Ok(_) => Ok(()),
        Err(Elapsed { .. }) => {
            let reason = format!("session {} was not announced to this sidecar within {wait:?}", name(key));
            Err(Ending::Close(CloseCode::NotAnnounced, reason))
        }
    }
}

/// The first stream, and what the client says on it. The receiving side is kept: dropping it would stop the client.
async fn hello(connection: &Connection) -> Result<(SendStream, Hello, quinn::RecvStream), Ending> {
    let (send, mut receive) = connection.accept_bi().await.map_err(|_| Ending::Lost)?;
    let violation =
        |error: &dyn std::fmt::Display| Ending::Close(CloseCode::Protocol, format!("Hello: {error}"));
    let frame = framing::expect(&mut receive).await.map_err(|error| violation(&error))?;
    let hello = frame.decode().map_err(|error| violation(&error))?;
    Ok((send, hello, receive))
}

/// Answers requests and tells about rights as they change.
async fn attend(
    connection: &Connection,
    session: &Arc<Session>,
    control: &mut SendStream,
    (version, software): (u16, &str),
    requests: &mut JoinSet<Result<(), String>>,
) -> Ending {
    let mut changes = session.changes();
    let mut told: Option<(Vec<Feature>, u64)> = None;
    let mut streams = STREAMS;
    loop {
        changes.borrow_and_update();
        let grant = match session.grant(clock::now()) {
            Ok(grant) => grant,
            Err(ended) => return ending(ended, session.key()),
        };
        let rights = (session.granted(&grant), grant.expires_at);
        if told.as_ref() != Some(&rights) {
            let first = told.is_none();
            if first {
                session.twin().counts.sessions.add(1);
                let (name, creator) = (name(session.key()), &grant.creator);
                let peer = connection.remote_address();
                tracing::info!(session = name, creator, software, %peer, features = ?rights.0, "session begins");
            }
            if say(session, control, version, &rights).await.is_none() {
                return Ending::Lost;
            }
            told = Some(rights);
        }
        let left = Duration::from_secs(grant.until().saturating_sub(clock::now()));
        tokio::select! {
            stream = timeout(left, connection.accept_bi()) => match stream {
                Ok(Ok((send, receive))) => {
                    requests.spawn(requests::answer(Arc::clone(session), send, receive));
                }
                Ok(Err(_)) => return Ending::Lost,
                Err(Elapsed { .. }) => {}
            },
            Some(ended) = requests.join_next(), if !requests.is_empty() => {
                if let Ok(Err(violation)) = ended {
                    return Ending::Close(CloseCode::Protocol, violation);
                }
            }
            _ = changes.changed() => {}
        }
        if requests.len() * 2 > streams as usize && streams < MOST_STREAMS {
            streams = (streams * 2).min(MOST_STREAMS);
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
        }
    }
}

fn ending(ended: Ended, key: KeyHash) -> Ending {
    let code = match ended {
        Ended::Deleted => CloseCode::Deleted,
        Ended::Expired => CloseCode::Expired,
    };
    Ending::Close(code, format!("session {} {ended}", name(key)))
}

/// Tells the client its rights; `None` where it can't be told.
async fn say(
    session: &Session,
    control: &mut SendStream,
    version: u16,
    rights: &(Vec<Feature>, u64),
) -> Option<()> {
    let twin = Arc::clone(session.twin());
    let (view, obstacle) = blocking(move || twin.views.sight(Instant::now())).await?;
    let rights = Rights {
        version: version.min(VERSION),
        software: SOFTWARE.into(),
        features: rights.0.clone(),
        expires_at: rights.1,
        view,
        obstacle,
    };
    framing::write(control, &Control::Rights(rights), &[]).await.ok()
}

/// Says why on the control stream too, and gives that a moment to arrive: closing a connection drops its streams.
async fn say_goodbye(control: &mut SendStream, code: CloseCode, reason: &str) {
    let close = Control::Close(Close { code: code.number(), reason: reason.into() });
    let said = async {
        framing::write(control, &close, &[]).await.ok()?;
        control.finish().ok()?;
        control.stopped().await.ok()
    };
    // A client that doesn't listen is closed anyway.
    let _ = timeout(LAST_WORD, said).await;
}
