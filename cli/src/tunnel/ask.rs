//! Requests on one connection, and how its end is told.
//!
//! Each request opens a stream of its own. An answer that takes long is doubted, long before QUIC's idle timeout (which
//! is long so that laptops may sleep): the keeper is told, who pings, and replaces a connection that doesn't answer. So is
//! a connection that is [silent](super::silence), for programs that wait for bytes and ask nothing.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use mirrord_protocol::{
    control::{CloseCode, Rights},
    limits::TEXT_BYTES,
    reply::{Failure, FailureCode, Pong, Reply},
    request::Request,
};
use mirrord_tunnel::framing::{self, Frame, FramingError};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, time::timeout};

use super::{Patience, failure::sentence, silence::Silence};

/// A connection to one pod's sidecar.
#[derive(Debug)]
pub struct Tunnel {
    endpoint: Endpoint,
    connection: Connection,
    pod: String,
    rights: Rights,
    requests: AtomicU64,
    patience: Patience,
    doubted: Notify,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The session is over; why, as the end of a sentence.
    Over(String),
    /// Only the connection is; why.
    Lost(String),
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum AskError {
    /// The sidecar said no.
    Failed(Failure),
    /// The connection ended.
    End(End),
}

/// A request's stream, its first answer read.
#[derive(Debug)]
pub struct Stream {
    /// Towards the pod.
    pub send: SendStream,
    /// From the pod.
    pub receive: RecvStream,
    /// The first answer's tail.
    pub tail: Bytes,
}

impl Tunnel {
    pub(super) fn new(
        endpoint: Endpoint,
        connection: Connection,
        pod: String,
        rights: Rights,
        requests: u64,
        patience: Patience,
    ) -> Self {
        Self {
            endpoint,
            connection,
            pod,
            rights,
            requests: AtomicU64::new(requests),
            patience,
            doubted: Notify::new(),
        }
    }

    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// What was granted at the start.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// How many messages that wait for an answer were sent: each is one round trip, if it waits for none before it.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts a message that waits for an answer.
    pub fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> End {
        end(&self.connection.closed().await)
    }

    /// Says good-bye, for at most so long.
    pub async fn close(&self, patience: Duration) {
        self.connection.close(VarInt::from_u32(CloseCode::Done.number()), b"");
        let _ = timeout(patience, self.endpoint.wait_idle()).await;
    }

    /// Asks, and reads the one answer.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<(T, Bytes), AskError> {
        let (value, mut stream) = self.open(request).await?;
        let _ = stream.send.finish();
        Ok((value, stream.tail))
    }

    /// Asks on a stream that stays open.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn open<T: DeserializeOwned>(&self, request: &Request) -> Result<(T, Stream), AskError> {
        self.count();
        let (send, receive, frame) = self.patiently(self.exchange(request)).await?;
        let value = self.decode(&frame)?;
        Ok((value, Stream { send, receive, tail: frame.tail }))
    }

    /// Reads a further answer of a stream.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn next<T: DeserializeOwned>(&self, receive: &mut RecvStream) -> Result<(T, Bytes), AskError> {
        let frame = self.patiently(framing::expect(receive)).await?;
        Ok((self.decode(&frame)?, frame.tail))
    }

    async fn exchange(&self, request: &Request) -> Result<(SendStream, RecvStream, Frame), FramingError> {
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(quinn::WriteError::from)?;
        framing::write(&mut send, request, &[]).await?;
        let frame = framing::expect(&mut receive).await?;
        Ok((send, receive, frame))
    }

    /// What an answer says.
    ///
    /// # Errors
    /// [`AskError::Failed`].
    pub fn decode<T: DeserializeOwned>(&self, frame: &Frame) -> Result<T, AskError> {
        match frame.decode::<Reply<T>>() {
            Ok(reply) => reply.into_result().map_err(|failure| AskError::Failed(bounded(failure))),
            Err(error) => {
                let message = format!("pod {} answered what makes no sense: {error}", self.pod);
                Err(AskError::Failed(Failure::new(FailureCode::Malformed, libc::EIO, message)))
            }
        }
    }

    /// Waits for an answer for as long as the connection stands, and tells the keeper that it takes long.
    async fn patiently<T>(
        &self,
        answer: impl Future<Output = Result<T, FramingError>>,
    ) -> Result<T, AskError> {
        tokio::pin!(answer);
        loop {
            match timeout(self.patience.doubt, &mut answer).await {
                Ok(result) => return result.map_err(|error| self.failed(&error)),
                Err(_) => self.doubted.notify_one(),
            }
        }
    }

    /// Waits until somebody waits long for an answer, or until what is sent is long met by silence.
    pub(super) async fn doubted(&self) {
        tokio::select! {
            () = self.doubted.notified() => {}
            () = self.silent() => {}
        }
    }

    async fn silent(&self) {
        let mut silence = Silence::default();
        let mut looks = tokio::time::interval(self.patience.doubt);
        loop {
            looks.tick().await;
            let stats = self.connection.stats();
            let heard = silence.look(stats.udp_rx.datagrams, stats.udp_tx.datagrams);
            if !heard {
                return;
            }
        }
    }

    /// Waits for a sign of life.
    pub(super) async fn answers(&self) {
        self.count();
        match self.exchange(&Request::Ping {}).await {
            Ok((.., frame)) if matches!(frame.decode::<Reply<Pong>>(), Ok(Reply::Ok(_))) => {}
            // The connection's end is told elsewhere.
            _ => std::future::pending().await,
        }
    }

    fn failed(&self, error: &FramingError) -> AskError {
        match self.connection.close_reason() {
            // By the keeper, who has another.
            Some(ConnectionError::LocallyClosed) => AskError::End(End::Lost("it was replaced".to_owned())),
            Some(error) => AskError::End(end(&error)),
            None => {
                let message = format!("pod {} broke off: {error}", self.pod);
                AskError::Failed(Failure::new(FailureCode::System, libc::EIO, message))
            }
        }
    }
}

/// A sentence is no longer than the wire's bound, whoever sent it.
fn bounded(mut failure: Failure) -> Failure {
    failure.message.truncate(failure.message.floor_char_boundary(TEXT_BYTES));
    failure
}

fn end(error: &ConnectionError) -> End {
    let ConnectionError::ApplicationClosed(close) = error else { return End::Lost(error.to_string()) };
    let code = close.error_code.into_inner();
    let reason = sentence(code, &close.reason);
    match CloseCode::from_number(code) {
        Some(CloseCode::Deleted | CloseCode::Protocol | CloseCode::Refused) | None => End::Over(reason),
        // An expired session is suspended until it is renewed; a stopping pod has others beside it.
        Some(_) => End::Lost(reason),
    }
}
