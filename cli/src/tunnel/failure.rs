//! Why no connection came about, and the next step.

use mirrord_protocol::control::CloseCode;
use mirrord_session::{SessionPod, SessionStatus};
use quinn::{ConnectionError, TransportErrorCode};
use thiserror::Error;

use crate::exit::{Exit, Problem};

/// A TLS alert in QUIC's error space: 0x100 + alert (RFC 9001 §4.8).
const CRYPTO: std::ops::Range<u64> = 0x100..0x200;

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

impl DialError {
    /// What a connection's end at its beginning means.
    pub(super) fn of(error: ConnectionError, pod: &SessionPod, status: &SessionStatus, seconds: u64) -> Self {
        let pod = pod.name.clone();
        match error {
            ConnectionError::TransportError(error) if is_crypto(error.code) => {
                Self::Untrusted { pod, reason: error.reason }
            }
            ConnectionError::ApplicationClosed(close) => Self::Refused {
                pod,
                code: close.error_code.into_inner(),
                reason: sentence(close.error_code.into_inner(), &close.reason),
            },
            ConnectionError::TimedOut => Self::Silent { pod, address: status.ingress.clone(), seconds },
            other => Self::Failed { pod, reason: other.to_string() },
        }
    }

    /// Whether it may be otherwise in a moment: the sidecar starts, or the control plane is on its way to it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Failed { .. } => true,
            Self::Refused { code, .. } => {
                let code = CloseCode::from_number(*code);
                matches!(code, Some(CloseCode::NotAnnounced | CloseCode::Busy | CloseCode::Stopping))
            }
            _ => false,
        }
    }
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
