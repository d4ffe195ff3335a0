//! One connection: from a Session's status to granted rights.
//!
//! The status names the pods that can serve, each with its route and gate token, and the ingress. QUIC's first packet
//! carries both to the ingress, which forwards by route; TLS ends in the sidecar, proves it by the Session's
//! authorities, and us by the session's key. Then Hello and Rights. Every step is bounded.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mirrord_certs::{SelfSigned, verify::session_client};
use mirrord_protocol::{
    VERSION,
    control::{CloseCode, Control, Hello, Rights},
    feature::Feature,
    route::{Purpose, RouteId},
};
use mirrord_session::{SessionPod, SessionStatus};
use mirrord_tunnel::{framing, setup};
use quinn::{ConnectionError, Endpoint, TokioRuntime, TransportErrorCode};
use ring::rand::SecureRandom;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::{Patience, ask::Tunnel};
use crate::exit::{Exit, Problem};

/// Asked of the kernel for the UDP socket, in bytes: at 1 Gbit/s that is 32 ms.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// A TLS alert in QUIC's error space: 0x100 + alert (RFC 9001 §4.8).
const CRYPTO: std::ops::Range<u64> = 0x100..0x200;

/// What a connection needs, besides a Session's status.
#[derive(Clone)]
pub struct Dialler {
    key: Arc<SelfSigned>,
    features: Vec<Feature>,
    patience: Patience,
}

/// Why no connection came about.
#[derive(Debug, Error)]
pub enum DialError {
    /// The control plane found no pod, or none any more.
    #[error("no pod of the target can serve now")]
    NoPods,
    /// The Session's status makes no sense.
    #[error("the session's status can't be used: {0}")]
    Status(String),
    /// The ingress's name leads nowhere.
    #[error("the ingress's address {address:?} can't be resolved: {error}")]
    Lookup {
        /// `host:port`.
        address: String,
        /// Why.
        error: std::io::Error,
    },
    /// This machine gives no UDP socket.
    #[error("no UDP socket: {0}")]
    Socket(std::io::Error),
    /// Nobody answers.
    #[error("pod {pod} didn't answer through the ingress at {address} (UDP) within {seconds} s")]
    Silent {
        /// Which pod.
        pod: String,
        /// The ingress.
        address: String,
        /// How long.
        seconds: u64,
    },
    /// Whoever answers isn't the pod's sidecar, as far as its certificate says.
    #[error("pod {pod}: the sidecar's certificate can't be trusted: {reason}")]
    Untrusted {
        /// Which pod.
        pod: String,
        /// What TLS says.
        reason: String,
    },
    /// The sidecar ended the connection.
    #[error("pod {pod}: the sidecar refused the session: {reason}")]
    Refused {
        /// Which pod.
        pod: String,
        /// A [`CloseCode`].
        code: u64,
        /// Its sentence.
        reason: String,
    },
    /// Anything else.
    #[error("pod {pod}: the connection failed: {reason}")]
    Failed {
        /// Which pod.
        pod: String,
        /// What QUIC says.
        reason: String,
    },
}

impl From<DialError> for Problem {
    fn from(error: DialError) -> Self {
        let (exit, help) = match &error {
            DialError::NoPods => (Exit::Target, "`mirrord ls` shows what can be used now"),
            DialError::Status(_) => (
                Exit::Unreachable,
                "client and control plane may be of releases that don't fit: compare `mirrord --version` with the chart's",
            ),
            DialError::Lookup { .. } => (
                Exit::Unreachable,
                "check DNS and VPN; an admin sets the address with the chart's value ingress.address",
            ),
            DialError::Socket(_) => (Exit::Internal, "check the limits of this machine or sandbox"),
            DialError::Silent { .. } => (
                Exit::Unreachable,
                "a firewall or VPN may block UDP to that address; whether the ingress runs: kubectl -n mirrord get pods,svc",
            ),
            DialError::Untrusted { .. } => (
                Exit::Unreachable,
                "a pod that is older than the control plane's present authority mends itself by a restart: kubectl rollout restart; if it stays, tell an admin: somebody may listen in",
            ),
            DialError::Refused { .. } | DialError::Failed { .. } => (Exit::Temporary, "try again"),
        };
        Self::new(exit, error.to_string()).help(help)
    }
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
        let end = Instant::now() + self.patience.dial;
        let address = lookup(&status.ingress, end).await?;
        let mut first = None;
        for (index, pod) in status.pods.iter().enumerate() {
            let last = index + 1 == status.pods.len();
            let until = if last { end } else { end.min(Instant::now() + self.patience.pod) };
            match self.pod(pod, status, address, until).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(error) => first = first.or(Some(error)),
            }
            if Instant::now() >= end {
                break;
            }
        }
        Err(first.unwrap_or(DialError::NoPods))
    }

    async fn pod(
        &self,
        pod: &SessionPod,
        status: &SessionStatus,
        address: SocketAddr,
        until: Instant,
    ) -> Result<Tunnel, DialError> {
        let start = Instant::now();
        match timeout_at(until, self.connect(pod, status, address)).await {
            Ok(result) => result,
            Err(_) => Err(DialError::Silent {
                pod: pod.name.clone(),
                address: status.ingress.clone(),
                seconds: (until - start).as_secs_f64().round() as u64,
            }),
        }
    }

    async fn connect(
        &self,
        pod: &SessionPod,
        status: &SessionStatus,
        address: SocketAddr,
    ) -> Result<Tunnel, DialError> {
        let route: RouteId =
            pod.route.parse().map_err(|error| DialError::Status(format!("route: {error}")))?;
        let config = self.config(pod, route, status)?;
        let endpoint = endpoint(address)?;
        let failed = |error: ConnectionError| self.failed(error, pod, status);
        let connection = endpoint
            .connect_with(config, address, &route.server_name())
            .map_err(|error| DialError::Status(error.to_string()))?
            .await
            .map_err(failed)?;
        let rights = self.hello(&connection).await.map_err(|reason| match connection.close_reason() {
            Some(error) => failed(error),
            None => DialError::Failed { pod: pod.name.clone(), reason },
        })?;
        Ok(Tunnel::new(endpoint, connection, pod.name.clone(), rights, self.patience))
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

    async fn hello(&self, connection: &quinn::Connection) -> Result<Rights, String> {
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        let hello = Hello {
            version: VERSION,
            software: concat!("mirrord ", env!("CARGO_PKG_VERSION")).to_owned(),
            features: self.features.clone(),
        };
        framing::write(&mut send, &hello, &[]).await.map_err(|error| error.to_string())?;
        let frame = framing::expect(&mut receive).await.map_err(|error| error.to_string())?;
        let control = frame.decode().map_err(|error| error.to_string())?;
        let Control::Rights(rights) = control else { return Err("no rights came".to_owned()) };
        // The control stream lives as long as the connection; what else comes on it is repeated in the close.
        tokio::spawn(async move {
            let _send = send;
            while let Ok(Some(frame)) = framing::read(&mut receive).await {
                match frame.decode::<Control>() {
                    Ok(control) => tracing::info!(?control, "control"),
                    Err(error) => tracing::debug!(%error, "a control message of another release"),
                }
            }
        });
        Ok(rights)
    }

    fn failed(&self, error: ConnectionError, pod: &SessionPod, status: &SessionStatus) -> DialError {
        let pod = pod.name.clone();
        match error {
            ConnectionError::TransportError(error) if is_crypto(error.code) => {
                DialError::Untrusted { pod, reason: error.reason }
            }
            ConnectionError::ApplicationClosed(close) => DialError::Refused {
                pod,
                code: close.error_code.into_inner(),
                reason: sentence(close.error_code.into_inner(), &close.reason),
            },
            ConnectionError::TimedOut => DialError::Silent {
                pod,
                address: status.ingress.clone(),
                seconds: self.patience.dial.as_secs(),
            },
            other => DialError::Failed { pod, reason: other.to_string() },
        }
    }
}

fn is_crypto(code: TransportErrorCode) -> bool {
    CRYPTO.contains(&u64::from(code))
}

/// The reason of a close, or what its code means.
#[must_use]
pub fn sentence(code: u64, reason: &[u8]) -> String {
    if !reason.is_empty() {
        return String::from_utf8_lossy(reason).into_owned();
    }
    match CloseCode::from_number(code) {
        Some(CloseCode::Done) => "it is done".to_owned(),
        Some(CloseCode::Protocol) => "it didn't understand us".to_owned(),
        Some(CloseCode::NotAnnounced) => "the control plane has not announced the session to it".to_owned(),
        Some(CloseCode::Deleted) => "the session was deleted".to_owned(),
        Some(CloseCode::Expired) => "the session expired".to_owned(),
        Some(CloseCode::Stopping) => "the pod stops".to_owned(),
        Some(CloseCode::Busy) => "it serves too many sessions".to_owned(),
        Some(CloseCode::Refused) | None => format!("code {code}"),
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
