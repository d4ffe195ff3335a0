//! The boot channel: the control plane asks who we are, makes us able to serve, and says whom
//! ([`mirrord_protocol::boot`]).

use std::sync::Arc;

use mirrord_certs::{GateKey, key_hash, verify};
use mirrord_protocol::{
    VERSION,
    boot::{Announce, Call, Done, Enrolled, Install, Report},
    control::CloseCode,
    frame::FrameError,
    reply::{Failure, FailureCode, Reply},
};
use mirrord_tunnel::{
    framing::{self, FramingError},
    setup,
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;

use crate::{
    clock, session,
    twin::{Installed, Twin, blocking},
    worker::RESET_KEY_BYTES,
};

/// Answers the control plane's calls until it goes.
pub(crate) async fn serve(connection: Connection, twin: Arc<Twin>) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => { calls.spawn(answer(send, receive, Arc::clone(&twin))); }
                Err(_) => return,
            },
            Some(ended) = calls.join_next(), if !calls.is_empty() => {
                if let Ok(Err(FramingError::Frame(error))) = ended {
                    tracing::warn!(peer = %connection.remote_address(), %error, "boot call");
                    let code = VarInt::from(CloseCode::Protocol.number());
                    connection.close(code, error.to_string().as_bytes());
                }
            }
        }
    }
}

async fn answer(mut send: SendStream, mut receive: RecvStream, twin: Arc<Twin>) -> Result<(), FramingError> {
    let frame = framing::expect(&mut receive).await?;
    let call = match Call::decode(&frame.header) {
        Ok(call) => call,
        // The control plane is newer, and goes on without.
        Err(FrameError::Unsupported(name)) => {
            let message = format!("this sidecar is older than the boot call {name:?}");
            refuse(&mut send, Failure::new(FailureCode::Unsupported, libc::ENOSYS, message)).await?;
            let _ = send.finish();
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    match call {
        Call::Enroll {} => match enroll(&twin).await {
            Ok((enrolled, token)) => framing::write(&mut send, &Reply::Ok(enrolled), &token).await?,
            Err(failure) => refuse(&mut send, failure).await?,
        },
        Call::Install(call) => done(&mut send, install(&twin, call)).await?,
        Call::Announce(call) => done(&mut send, announce(&twin, call)).await?,
        Call::Report {} => framing::write(&mut send, &Reply::Ok(report(&twin).await), &[]).await?,
    }
    // Fails only where the connection is lost, which the next read tells.
    let _ = send.finish();
    Ok(())
}

async fn done(send: &mut SendStream, result: Result<(), Failure>) -> Result<(), FramingError> {
    match result {
        Ok(()) => framing::write(send, &Reply::Ok(Done {}), &[]).await,
        Err(failure) => refuse(send, failure).await,
    }
}

async fn refuse(send: &mut SendStream, failure: Failure) -> Result<(), FramingError> {
    tracing::warn!(message = failure.message, "boot call refused");
    framing::write(send, &Reply::<Done>::Failed(failure), &[]).await
}

async fn enroll(twin: &Arc<Twin>) -> Result<(Enrolled, Vec<u8>), Failure> {
    let shared = Arc::clone(twin);
    let read = blocking(move || {
        let view = shared.views.current(std::time::Instant::now()).view();
        (view, shared.identity.token())
    });
    let (view, token) = read.await.ok_or_else(|| Failure::system(libc::EIO))?;
    let unable = |error: String| Failure::new(FailureCode::System, libc::EIO, error);
    let token = token.map_err(|error| unable(error.to_string()))?;
    let csr = twin.key.signing_request().map_err(|error| unable(error.to_string()))?;
    Ok((Enrolled { csr, installed: twin.is_installed(clock::now()), view, version: VERSION }, token))
}

/// What was done since the last report.
async fn report(twin: &Arc<Twin>) -> Report {
    let shared = Arc::clone(twin);
    let looked = blocking(move || shared.views.sight(std::time::Instant::now())).await;
    let (view, obstacle) = looked.unwrap_or_default();
    Report { software: session::SOFTWARE.into(), view, obstacle, ..twin.counts.take() }
}

fn install(twin: &Twin, call: Install) -> Result<(), Failure> {
    let malformed = |what: &str| Failure::new(FailureCode::Malformed, libc::EINVAL, what);
    let Install { chain, reset_key, gate_keys } = call;
    let chain: Vec<_> = chain.into_iter().map(|der| CertificateDer::from(der.into_vec())).collect();
    let leaf = chain.first().ok_or_else(|| malformed("the certificate chain is empty"))?;
    if key_hash(leaf) != Some(twin.key.key_hash()) {
        return Err(malformed("the certificate is of another key"));
    }
    let reset_key: [u8; RESET_KEY_BYTES] =
        reset_key.try_into().map_err(|_| malformed("the reset key has another length than 32"))?;
    let gate_keys: Option<Vec<_>> = gate_keys.iter().map(|key| GateKey::new(key)).collect();
    let gate_keys = gate_keys
        .filter(|keys| !keys.is_empty())
        .ok_or_else(|| malformed("gate keys are missing or of another length than 32"))?;
    let tls = verify::session_server(chain.clone(), twin.key.private_key())
        .map_err(|error| malformed(&format!("the certificate: {error}")))?;
    let server = setup::server(tls, twin.windows).map_err(|error| malformed(&error.to_string()))?;
    twin.reset_key.install(&reset_key);
    twin.install(Installed { chain, server: Arc::new(server) });
    twin.note(|memory| memory.reset_key = reset_key);
    // Last: what waited at the gate finds all the rest in place.
    twin.gate.install(gate_keys, clock::now());
    tracing::info!("certificate installed");
    Ok(())
}

fn announce(twin: &Twin, call: Announce) -> Result<(), Failure> {
    if twin.installed().is_none() {
        return Err(Failure::new(FailureCode::NotGranted, libc::EACCES, "nothing is installed yet"));
    }
    let revision = call.revision;
    let next = twin.sessions.borrow().announced(call, clock::now());
    let next = next.map_err(|error| Failure::new(FailureCode::Malformed, libc::EINVAL, error.to_string()))?;
    let Some(next) = next else {
        tracing::info!(revision, "an older announcement is ignored");
        return Ok(());
    };
    // Replicas repeat each other: only what differs wakes connections, and is worth a line.
    let count = next.len();
    let changed = twin.sessions.send_if_modified(|sessions| {
        let changed = !sessions.is_same(&next);
        *sessions = next;
        changed
    });
    if changed {
        tracing::info!(revision, sessions = count, "announced");
    }
    twin.note(|memory| memory.revision = memory.revision.max(revision));
    Ok(())
}
