//! How answers leave: header and tail in one go, the tail without a copy.

use bytes::Bytes;
use mirrord_protocol::{
    frame::{self, FrameError},
    limits::TEXT_BYTES,
    reply::{Failure, FailureCode, Reply},
};
use quinn::SendStream;
use serde::Serialize;

use crate::{
    counts::{Counts, Kind},
    root::Refusal,
};

/// The stream of one request's answer. Its first word decides what the request counts as.
pub(super) struct Answer<'a> {
    pub(super) stream: SendStream,
    pub(super) counts: &'a Counts,
    kind: Option<Kind>,
}

impl<'a> Answer<'a> {
    pub(super) fn new(stream: SendStream, counts: &'a Counts, kind: Kind) -> Self {
        Self { stream, counts, kind: Some(kind) }
    }

    /// What is said next answers a request of its own.
    pub(super) fn next(&mut self, kind: Kind) {
        self.kind = Some(kind);
    }
}

/// Sends an answer; `None` where the client no longer listens.
pub(super) async fn send<T: Serialize>(
    answer: &mut Answer<'_>,
    result: Result<(T, Bytes), Failure>,
) -> Option<()> {
    if let Some(kind) = answer.kind.take() {
        answer.counts.answered(kind, result.as_ref().err());
    }
    let stream = &mut answer.stream;
    let (reply, tail) = match result {
        Ok((value, tail)) => (Reply::Ok(value), tail),
        Err(failure) => (Reply::Failed(bounded(failure)), Bytes::new()),
    };
    let header = match frame::encode(&reply, tail.len()) {
        Ok(header) => header,
        Err(error) => return send_too_long(stream, &error).await,
    };
    stream.write_all_chunks(&mut [Bytes::from(header), tail]).await.ok()
}

/// Says that the answer would exceed the wire's bounds.
async fn send_too_long(stream: &mut SendStream, error: &FrameError) -> Option<()> {
    let failure = Failure::new(FailureCode::Limit, libc::EOVERFLOW, error.to_string());
    let header = frame::encode(&Reply::<()>::Failed(failure), 0).ok()?;
    stream.write_chunk(Bytes::from(header)).await.ok()
}

fn bounded(mut failure: Failure) -> Failure {
    let end = failure.message.floor_char_boundary(TEXT_BYTES);
    failure.message.truncate(end);
    failure
}

/// A refused path as the client shall see it.
pub(super) fn failure(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::System(errno) => system(errno.raw_os_error()),
        Refusal::Never(_) => Failure::new(FailureCode::NeverServed, libc::EACCES, refusal.to_string()),
        Refusal::Secret => Failure::new(
            FailureCode::NotGranted,
            libc::EACCES,
            format!("{refusal}: the session was not granted `secrets`"),
        ),
    }
}

/// The kernel's word, with its text.
pub(super) fn system(errno: i32) -> Failure {
    Failure::new(FailureCode::System, errno, std::io::Error::from_raw_os_error(errno).to_string())
}

/// The kernel's word in an I/O error.
pub(super) fn io(error: &std::io::Error) -> Failure {
    system(error.raw_os_error().unwrap_or(libc::EIO))
}

/// There is no answer: the sidecar stops, or the work failed by our own fault.
pub(super) fn unanswered() -> Failure {
    system(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let failure = bounded(Failure::new(FailureCode::System, 1, "ä".repeat(TEXT_BYTES)));
        assert_eq!(failure.message.len(), TEXT_BYTES);
        assert!(failure.message.chars().all(|character| character == 'ä'));
    }
}
