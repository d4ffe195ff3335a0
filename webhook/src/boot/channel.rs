//! One boot connection to one sidecar: dial, ask, be answered.

use std::{
    net::UdpSocket,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mirrord_certs::{Authority, AuthorityError, KeyHash, key_hash, verify};
use mirrord_protocol::{
    boot::Call,
    control::CloseCode,
    frame::FrameError,
    reply::{Failure, Reply},
    route::Purpose,
};
use mirrord_tunnel::{
    framing::{self, FramingError},
    setup,
};
use quinn::{
    ConnectError, Connection, ConnectionError, Endpoint, TokioRuntime, VarInt,
    crypto::rustls::NoInitialCipherSuite,
};
use ring::rand::SecureRandom;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;

use super::desired::Twin;
use crate::{
    clock,
    metrics::{BootCall, CallResult, metrics},
};

/// A sidecar in the same cluster answers within milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(5);

/// Why a sidecar could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// No certificate to show.
    #[error("the control plane's certificate: {0}")]
    Certificate(#[from] AuthorityError),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Cipher(#[from] NoInitialCipherSuite),
    /// QUIC can't be set up.
    #[error("dialling: {0}")]
    Connect(#[from] ConnectError),
    /// It didn't answer, or hung up.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    /// It didn't answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The stream broke.
    #[error("{0}")]
    Framing(#[from] FramingError),
    /// The answer can't be read.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// It refused.
    #[error("refused: {0}")]
    Failed(#[from] Failure),
    /// It showed no certificate that we can read.
    #[error("it showed no certificate")]
    NoCertificate,
}

/// The UDP socket that all sidecars are dialled from.
///
/// # Errors
/// Where no socket can be bound.
pub fn endpoint() -> std::io::Result<Endpoint> {
    // Both families where there are both (ipv6(7): not v6-only by default).
    let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let mut reset_key = [0; 32];
    ring::rand::SystemRandom::new()
        .fill(&mut reset_key)
        .map_err(|_| std::io::Error::other("no randomness"))?;
    Endpoint::new(setup::endpoint(None, &reset_key), None, socket, Arc::new(TokioRuntime))
}

/// A boot connection; clones are the same one. Whose it is, has to be proved inside.
#[derive(Clone)]
pub struct Channel {
    connection: Connection,
}

impl Channel {
    /// Dials a sidecar and shows it a fresh certificate of the control plane.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn dial(endpoint: &Endpoint, authority: &Authority, twin: &Twin) -> Result<Self, ChannelError> {
        counted(BootCall::Dial, Self::connect(endpoint, authority, twin)).await
    }

    async fn connect(endpoint: &Endpoint, authority: &Authority, twin: &Twin) -> Result<Self, ChannelError> {
        let identity = authority.control_plane(clock::now())?;
        let config = setup::client(verify::boot_client(&identity)?, Purpose::Boot, twin.route, None)?;
        let connecting = endpoint.connect_with(config, twin.address, &twin.route.server_name())?;
        let connected = tokio::time::timeout(HANDSHAKE, connecting).await;
        Ok(Self { connection: connected.map_err(|_| ChannelError::Late(HANDSHAKE))?? })
    }

    /// The key that the sidecar shows.
    ///
    /// # Errors
    /// [`ChannelError::NoCertificate`].
    pub fn peer_key(&self) -> Result<KeyHash, ChannelError> {
        let shown = self.connection.peer_identity();
        let chain = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
        chain.and_then(|chain| chain.first().and_then(key_hash)).ok_or(ChannelError::NoCertificate)
    }

    /// Asks once.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<(T, Bytes), ChannelError> {
        let kind = match call {
            Call::Enroll {} => BootCall::Enroll,
            Call::Install(_) => BootCall::Install,
            Call::Announce(_) => BootCall::Announce,
            Call::Report {} => BootCall::Report,
        };
        counted(kind, self.ask(call)).await
    }

    async fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<(T, Bytes), ChannelError> {
        let answered = tokio::time::timeout(ANSWER, async {
            let (mut send, mut receive) = self.connection.open_bi().await?;
            framing::write(&mut send, call, &[]).await?;
            // It can only have been finished before if the connection is gone, which reading shows.
            let _ = send.finish();
            Ok::<_, ChannelError>(framing::expect(&mut receive).await?)
        });
        let frame = answered.await.map_err(|_| ChannelError::Late(ANSWER))??;
        let reply: Reply<T> = frame.decode()?;
        Ok((reply.into_result()?, frame.tail))
    }

    /// Ends when the connection does.
    pub async fn closed(&self) -> ChannelError {
        self.connection.closed().await.into()
    }

    /// Hangs up.
    pub fn close(&self) {
        self.connection.close(VarInt::from_u32(CloseCode::Done.number()), b"done");
    }
}

/// Counts a call when it is over.
async fn counted<T>(
    call: BootCall,
    asked: impl Future<Output = Result<T, ChannelError>>,
) -> Result<T, ChannelError> {
    let begun = Instant::now();
    let answered = asked.await;
    let result = match &answered {
        Ok(_) => CallResult::Answered,
        Err(ChannelError::Failed(_)) => CallResult::Refused,
        Err(_) => CallResult::Lost,
    };
    let metrics = &metrics().boot;
    metrics.calls.of((call, result)).inc();
    metrics.call_duration.of(call).observe(begun.elapsed());
    answered
}
