//! One connection: from a Session's status to granted rights.
//!
//! The status names the pods that can serve, each with its route and gate token, and the ingress. QUIC's first packet
//! carries both to the ingress, which forwards by route; TLS ends in the sidecar, proves it by the Session's
//! authorities, and us by the session's key. Then Hello and Rights. Every step is bounded.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mirrord_certs::{SelfSigned, verify::session_client};
use mirrord_protocol::{
    VERSION,
    control::{Control, Hello, Rights},
    feature::Feature,
    request::Request,
    route::{Purpose, RouteId},
};
use mirrord_session::{SessionPod, SessionStatus};
use mirrord_tunnel::{
    framing::{self, Frame},
    setup,
};
use quinn::{Endpoint, RecvStream, SendStream, TokioRuntime};
use ring::rand::SecureRandom;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Patience, ask::Tunnel, failure::DialError};

/// Between two rounds over all pods, at least.
const ROUND: Duration = Duration::from_millis(250);
/// Asked of the kernel for the UDP socket, in bytes: at 1 Gbit/s that is 32 ms.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// What a connection needs, besides a Session's status.
#[derive(Clone)]
pub struct Dialler {
    key: Arc<SelfSigned>,
    features: Vec<Feature>,
    patience: Patience,
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialler").field("features", &self.features).finish_non_exhaustive()
    }
}

impl Dialler {
    /// Dials with a session's key and asks for these features.
    #[must_use]
    pub fn new(key: Arc<SelfSigned>, features: Vec<Feature>, patience: Patience) -> Self {
        Self { key, features, patience }
    }

    /// How patient it is.
    #[must_use]
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Connects to the first pod that answers, the primary before others.
    ///
    /// # Errors
    /// What was wrong with the first pod; see [`DialError`].
    pub async fn dial(&self, status: &SessionStatus) -> Result<Tunnel, DialError> {
        self.dial_asking(status, None).await.map(|(tunnel, _)| tunnel)
    }

    /// As [`Self::dial`], and sends a first request along with Hello: its answer comes a round trip earlier.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub async fn dial_asking(
        &self,
        status: &SessionStatus,
        early: Option<&Request>,
    ) -> Result<(Tunnel, Option<Frame>), DialError> {
        if status.pods.is_empty() {
            return Err(DialError::NoPods);
        }
        let end = Instant::now() + self.patience.dial;
        let address = lookup(&status.ingress, end).await?;
        let mut said = None;
        loop {
            let pause = Instant::now() + ROUND;
            match self.round(status, address, end, early).await {
                Err(error) if error.may_pass() && pause < end => {
                    said = Some(error);
                    sleep_until(pause).await;
                }
                // What a pod said tells more than that it had no time to say it again.
                Err(silent @ DialError::Silent { .. }) => return Err(said.unwrap_or(silent)),
                result => return result,
            }
        }
    }

    /// Tries each pod once.
    async fn round(
        &self,
        status: &SessionStatus,
        address: SocketAddr,
        end: Instant,
        early: Option<&Request>,
    ) -> Result<(Tunnel, Option<Frame>), DialError> {
        let mut first = None;
        for (index, pod) in status.pods.iter().enumerate() {
            let start = Instant::now();
            let last = index + 1 == status.pods.len();
            let until = if last { end } else { end.min(start + self.patience.pod) };
            let error = match timeout_at(until, self.connect(pod, status, address, early)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => error,
                Err(_) => DialError::Silent {
                    pod: pod.name.clone(),
                    address: status.ingress.clone(),
                    seconds: (until - start).as_secs_f64().round() as u64,
                },
            };
            first = first.or(Some(error));
            if Instant::now() >= end {
                break;
            }
        }
        Err(first.unwrap_or(DialError::NoPods))
    }

    async fn connect(
        &self,
        pod: &SessionPod,
        status: &SessionStatus,
        address: SocketAddr,
        early: Option<&Request>,
    ) -> Result<(Tunnel, Option<Frame>), DialError> {
        let route: RouteId =
            pod.route.parse().map_err(|error| DialError::Status(format!("route: {error}")))?;
        let config = self.config(pod, route, status)?;
        let endpoint = endpoint(address)?;
        let failed = |error| DialError::of(error, pod, status, self.patience.dial.as_secs());
        let connection = endpoint
            .connect_with(config, address, &route.server_name())
            .map_err(|error| DialError::Status(error.to_string()))?
            .await
            .map_err(failed)?;
        let greeted = greet(&connection, &self.features, early).await;
        let (rights, answer) = greeted.map_err(|reason| match connection.close_reason() {
            Some(error) => failed(error),
            None => DialError::Failed { pod: pod.name.clone(), reason },
        })?;
        let requests = 1 + u64::from(early.is_some());
        Ok((Tunnel::new(endpoint, connection, pod.name.clone(), rights, requests, self.patience), answer))
    }

    fn config(
        &self,
        pod: &SessionPod,
        route: RouteId,
        status: &SessionStatus,
    ) -> Result<quinn::ClientConfig, DialError> {
        let authorities: Vec<_> = CertificateDer::pem_slice_iter(status.certificate_authorities.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| DialError::Status(format!("authorities: {error}")))?;
        let unusable = |error: &dyn fmt::Display| DialError::Status(error.to_string());
        let tls = session_client(&self.key, authorities).map_err(|error| unusable(&error))?;
        let token = pod.gate_token_bytes().ok_or_else(|| unusable(&"the gate token isn't base64"))?;
        setup::client(tls, Purpose::Session, route, Some(token)).map_err(|error| unusable(&error))
    }
}

/// Hello and a first request in one flight, then rights and the answer.
async fn greet(
    connection: &quinn::Connection,
    features: &[Feature],
    early: Option<&Request>,
) -> Result<(Rights, Option<Frame>), String> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    let hello = Hello {
        version: VERSION,
        software: concat!("mirrord ", env!("CARGO_PKG_VERSION")).to_owned(),
        features: features.to_vec(),
    };
    framing::write(&mut send, &hello, &[]).await.map_err(|error| error.to_string())?;
    let mut asked = None;
    if let Some(request) = early {
        let (mut send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        framing::write(&mut send, request, &[]).await.map_err(|error| error.to_string())?;
        let _ = send.finish();
        asked = Some(receive);
    }
    let frame = framing::expect(&mut receive).await.map_err(|error| error.to_string())?;
    let Control::Rights(rights) = frame.decode().map_err(|error| error.to_string())? else {
        return Err("no rights came".to_owned());
    };
    tokio::spawn(attend(send, receive));
    let answer = match &mut asked {
        Some(receive) => Some(framing::expect(receive).await.map_err(|error| error.to_string())?),
        None => None,
    };
    Ok((rights, answer))
}

/// The control stream lives as long as the connection; what ends the session is repeated in the connection's close.
async fn attend(_send: SendStream, mut receive: RecvStream) {
    while let Ok(Some(frame)) = framing::read(&mut receive).await {
        match frame.decode::<Control>() {
            Ok(control) => tracing::info!(?control, "control"),
            Err(error) => tracing::debug!(%error, "a control message of another release"),
        }
    }
}

async fn lookup(address: &str, until: Instant) -> Result<SocketAddr, DialError> {
    let failed = |error| DialError::Lookup { address: address.to_owned(), error };
    let found = match timeout_at(until, tokio::net::lookup_host(address)).await {
        Ok(found) => found.map_err(failed)?.next(),
        Err(_) => return Err(failed(std::io::ErrorKind::TimedOut.into())),
    };
    found.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
}

fn endpoint(towards: SocketAddr) -> Result<Endpoint, DialError> {
    let mut reset_key = [0; 32];
    ring::rand::SystemRandom::new()
        .fill(&mut reset_key)
        .map_err(|_| DialError::Socket(std::io::Error::other("the system has no randomness")))?;
    let any: SocketAddr = match towards {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any).map_err(DialError::Socket)?;
    let reference = socket2::SockRef::from(&socket);
    // The kernel gives what its limits allow; less only makes bulk transfers slower.
    let _ = reference.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = reference.set_send_buffer_size(SOCKET_BUFFER);
    Endpoint::new(setup::endpoint(None, &reset_key), None, socket, Arc::new(TokioRuntime))
        .map_err(DialError::Socket)
}
