//! The boot channel: the control plane dials a sidecar (ALPN [`crate::ALPN_BOOT`]) and tells it which sessions to serve.
//!
//! TLS: the control plane shows a certificate of the CA that was baked into the pod at admission; the sidecar shows a
//! self-signed one of the very key that its CSR asks a certificate for. Each [`Call`] is one bidirectional stream: one
//! frame each way, the answer's header being a [`crate::reply::Reply`] of the type that is named at the call.
//! [`Call::Enroll`] proves the sidecar by its pod-bound token; [`Call::Install`] makes it able to serve;
//! [`Call::Announce`] replaces the *full* set of its sessions. All are idempotent: both replicas of the control plane
//! do the same, and a set of an older revision than the last one is ignored. [`Call::Report`] alone takes something away:
//! a sidecar tells each thing that it counted once, so that what all replicas heard adds up.

use serde::{Deserialize, Serialize};

use crate::{
    control::{Obstacle, View},
    feature::Feature,
    frame::{self, FrameError},
};

/// Since this minor version ([`Enrolled::version`]) a sidecar answers [`Call::Report`], and calls that it doesn't know.
pub const REPORTS_SINCE: u16 = 2;

/// What the control plane asks of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Who are you? Answered with [`Enrolled`].
    Enroll {},
    /// Here are your certificate and keys. Answered with [`Done`].
    Install(Install),
    /// These are all your sessions. Answered with [`Done`]; fails with
    /// [`crate::reply::FailureCode::NotGranted`] before an install.
    Announce(Announce),
    /// What did you do since you were asked last? Answered with [`Report`]. Only for who speaks [`REPORTS_SINCE`]: older
    /// sidecars close the connection.
    Report {},
}

/// The names on the wire of all calls that this release knows.
pub const CALLS: [&str; 4] = ["enroll", "install", "announce", "report"];

impl Call {
    /// Decodes a call's header; a name of a newer release is told apart from bytes that make no sense. It is answered with
    /// [`crate::reply::FailureCode::Unsupported`].
    ///
    /// # Errors
    /// [`FrameError::Unsupported`] or [`FrameError::Malformed`].
    pub fn decode(header: &[u8]) -> Result<Self, FrameError> {
        frame::decode_question(header, &CALLS)
    }
}

/// Who the sidecar is. The tail is its projected service account token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Certificate signing request (RFC 2986), DER; signed by the key of the TLS certificate shown.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
    /// Whether a valid certificate is installed already.
    #[serde(default)]
    pub installed: bool,
    /// What this sidecar can do, and how: for listings and logs.
    #[serde(default)]
    pub view: View,
    /// Minor version of the sidecar; 0 before [`REPORTS_SINCE`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: u16,
}

/// serde asks with a reference.
fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// What a sidecar needs before it can serve.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// Certificate chain, leaf first, DER each.
    pub chain: Vec<serde_bytes::ByteBuf>,
    /// Key of stateless resets (RFC 9000 §10.3), 32 bytes, the same for this pod for ever.
    #[serde(with = "serde_bytes")]
    pub reset_key: Vec<u8>,
    /// Keys that gate tokens are checked with, newest first, 32 bytes each.
    pub gate_keys: Vec<serde_bytes::ByteBuf>,
}

impl std::fmt::Debug for Install {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Install").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// The full set of a sidecar's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Resource version up to which the control plane has seen Sessions.
    pub revision: u64,
    /// All of them, ≤ [`crate::limits::SESSIONS`].
    pub sessions: Vec<Announcement>,
    /// The control plane's clock, in seconds since 1970: what its moments are compared with where the sidecar's clock shows
    /// another time. 0 where it doesn't say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub now: u64,
}

/// One session that the sidecar is to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// SHA-256 of the client's public key (SubjectPublicKeyInfo, DER): 32 bytes.
    #[serde(with = "serde_bytes")]
    pub key_hash: Vec<u8>,
    /// What it may do.
    pub features: Vec<Feature>,
    /// Seconds since 1970 at which it is suspended unless renewed.
    pub expires_at: u64,
    /// Seconds since 1970 at which it ends for good.
    #[serde(default)]
    pub deadline: u64,
    /// Whose session it is, for logs.
    #[serde(default)]
    pub creator: String,
}

/// It is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// What a sidecar did since it was asked last, by whomever; counting begins again with each answer. And how it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Name and release of the sidecar.
    pub software: String,
    /// Whose environment and files it lends.
    pub view: View,
    /// Why they aren't the running application's; `None` where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
    /// Times that it woke up.
    pub wakes: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Requests that were answered.
    pub requests: Vec<Requests>,
    /// Contents of files that were sent, in bytes.
    pub file_bytes: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that were refused whatever is granted.
    pub guarded: u64,
    /// What clients sent into connections, in bytes.
    pub sent_bytes: u64,
    /// What came back, in bytes.
    pub received_bytes: u64,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// One of [`crate::request::REQUESTS`], `read`, `other`, or another release's word.
    pub request: String,
    /// Served.
    pub served: u64,
    /// Refused, for want of a right.
    pub refused: u64,
    /// Failed, as they would have in the pod.
    pub failed: u64,
}
