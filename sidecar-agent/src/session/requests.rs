//! One request: read, checked against what is granted at this moment, and answered on its own stream.

use std::sync::Arc;

use bytes::Bytes;
use mirrord_protocol::{
    feature::Feature,
    frame::{FrameError, PREFIX_BYTES, Prefix},
    reply::{Environment, Failure, FailureCode, Pong},
    request::Request,
};
use quinn::{ReadExactError, RecvStream, SendStream};

use super::{
    files,
    grant::Session,
    network,
    reply::{self, Answer},
};
use crate::{clock, counts::Kind, twin::blocking};

/// A request's header: a path, a name or an address, and few fields, in bytes.
const REQUEST_BYTES: usize = 16 * 1024;

/// Answers one request. An error breaks the protocol, and ends the session.
pub(super) async fn answer(
    session: Arc<Session>,
    send: SendStream,
    mut receive: RecvStream,
) -> Result<(), String> {
    let request = match read(&mut receive).await? {
        Some(header) => Request::decode(&header),
        None => return Ok(()),
    };
    unless_over(&session).await;
    let kind = request.as_ref().map_or(Kind::Other, Kind::of);
    let mut answer = Answer::new(send, &session.twin().counts, kind);
    // A client that goes before its answer is no error.
    let _ = match request {
        Ok(request) => dispatch(&session, request, &mut answer, &mut receive).await,
        Err(FrameError::Unsupported(name)) => {
            let message =
                format!("this sidecar is older than the request {name:?}; restart the pod to update it");
            fail(&mut answer, Failure::new(FailureCode::Unsupported, libc::ENOSYS, message)).await
        }
        Err(error) => {
            fail(&mut answer, Failure::new(FailureCode::Malformed, libc::EINVAL, error.to_string())).await
        }
    };
    let _ = answer.stream.finish();
    Ok(())
}

/// Reads a header; `None` where the client took it back.
pub(super) async fn read(receive: &mut RecvStream) -> Result<Option<Vec<u8>>, String> {
    let mut prefix = [0; PREFIX_BYTES];
    match receive.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(1..)) => return Err("a request was cut off".into()),
        Err(_) => return Ok(None),
    }
    let prefix = Prefix::parse(prefix).map_err(|error| error.to_string())?;
    if prefix.header > REQUEST_BYTES || prefix.tail > 0 {
        return Err(format!("a request of {} bytes exceeds the limit of {REQUEST_BYTES}", prefix.body()));
    }
    let mut header = vec![0; prefix.header];
    match receive.read_exact(&mut header).await {
        Ok(()) => Ok(Some(header)),
        Err(ReadExactError::FinishedEarly(_)) => Err("a request was cut off".into()),
        Err(ReadExactError::ReadError(_)) => Ok(None),
    }
}

/// The feature that a request needs.
fn needed(request: &Request) -> Option<Feature> {
    match request {
        Request::Environment {} => Some(Feature::Env),
        Request::Open(_) | Request::Stat(_) | Request::List(_) | Request::ReadLink(_) => Some(Feature::Files),
        Request::Connect(_) | Request::Resolve(_) => Some(Feature::Outgoing),
        Request::Ping {} => None,
    }
}

/// Waits for the end where the session is over: the connection is about to be closed with the reason, which ends this task.
/// An answer that came first would be all that the program hears: that it lacks a right.
async fn unless_over(session: &Session) {
    if session.grant(clock::now()).is_err() {
        std::future::pending::<()>().await;
    }
}

async fn dispatch(
    session: &Arc<Session>,
    request: Request,
    send: &mut Answer<'_>,
    receive: &mut RecvStream,
) -> Option<()> {
    if let Some(failure) = needed(&request).and_then(|feature| session.check(feature).err()) {
        tracing::info!(session = super::name(session.key()), message = failure.message, "request refused");
        return fail(send, failure).await;
    }
    match request {
        Request::Environment {} => reply::send(send, environment(session).await).await,
        Request::Open(open) => files::open(session, open, send, receive).await,
        Request::Stat(stat) => files::stat(session, stat, send).await,
        Request::List(list) => files::list(session, list, send).await,
        Request::ReadLink(link) => files::read_link(session, link, send).await,
        Request::Connect(connect) => network::connect(session, connect, send, receive).await,
        Request::Resolve(resolve) => network::resolve(session, resolve, send).await,
        Request::Ping {} => reply::send(send, Ok((Pong {}, Bytes::new()))).await,
    }
}

async fn environment(session: &Arc<Session>) -> Result<(Environment, Bytes), Failure> {
    let twin = Arc::clone(session.twin());
    let read = blocking(move || twin.views.environment(std::time::Instant::now())).await;
    let (view, variables) = read.ok_or_else(reply::unanswered)?;
    Ok((Environment { view }, variables.into()))
}

async fn fail(send: &mut Answer<'_>, failure: Failure) -> Option<()> {
    reply::send::<()>(send, Err(failure)).await
}
