//! The control stream: the first bidirectional stream that a client opens.
//!
//! The client says [`Hello`]; the sidecar answers [`Control::Rights`], again whenever they change, and
//! [`Control::Close`] before it ends the session. The same code and reason go into QUIC's CONNECTION_CLOSE.

use serde::{Deserialize, Serialize};

use crate::feature::Feature;

/// What the client says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Minor version of the client.
    pub version: u16,
    /// Name and release of the client, for logs; ≤ [`crate::limits::TEXT_BYTES`].
    #[serde(default)]
    pub software: String,
    /// What the client wants to use; the sidecar never grants more than was announced.
    #[serde(default)]
    pub features: Vec<Feature>,
}

/// What the sidecar says on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// What is granted now.
    Rights(Rights),
    /// The session ends.
    Close(Close),
}

/// What is granted, and by whom it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Minor version that both ends speak from here on.
    pub version: u16,
    /// Name and release of the sidecar, for logs.
    #[serde(default)]
    pub software: String,
    /// What is granted: wanted, and announced.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// Seconds since 1970 at which the session is suspended unless renewed.
    #[serde(default)]
    pub expires_at: u64,
    /// Whose environment and files are served.
    #[serde(default)]
    pub view: View,
    /// Why they aren't the running application's; `None` where they are, and from older sidecars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
}

/// Whose eyes the session borrows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// The sidecar's own: same image, environment and volumes.
    #[default]
    Twin,
    /// The running application's, by a shared process namespace.
    Live,
    /// A view of another release.
    #[serde(other)]
    Unknown,
}

/// Why the running application can't be seen, so that the sidecar's own view is served. (The kernel's conditions are those of
/// PTRACE_MODE_READ_FSCREDS in ptrace(2).)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// The containers of the pod don't share their processes.
    Isolated,
    /// No process of the container is there.
    NoProcess,
    /// It runs as another user than its container starts with.
    User,
    /// It runs as another group than its container starts with.
    Group,
    /// It has capabilities, and the sidecar has none.
    Capabilities,
    /// It shields its memory (`PR_SET_DUMPABLE`), as programs that change their user do.
    Shielded,
    /// It has written over its environment, as programs that change their title do.
    Overwritten,
    /// An obstacle of another release.
    #[serde(other)]
    Unknown,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// A [`CloseCode`], kept as a number so that codes of other releases survive.
    pub code: u32,
    /// One sentence for the user; ≤ [`crate::limits::TEXT_BYTES`].
    #[serde(default)]
    pub reason: String,
}

/// Why a connection ends: QUIC application error codes (RFC 9000 §20.2) of both ALPNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The client is done.
    Done = 0,
    /// The peer broke the protocol or a limit.
    Protocol = 1,
    /// The session's key was not announced in time.
    NotAnnounced = 2,
    /// The session was deleted.
    Deleted = 3,
    /// The session expired and was not renewed.
    Expired = 4,
    /// The sidecar stops, as its pod does.
    Stopping = 5,
    /// Too many sessions, streams or waiting Hellos.
    Busy = 6,
    /// Boot channel: the peer could not prove who it is.
    Refused = 7,
}

impl CloseCode {
    /// All codes.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Protocol,
        Self::NotAnnounced,
        Self::Deleted,
        Self::Expired,
        Self::Stopping,
        Self::Busy,
        Self::Refused,
    ];

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The code of a number, unless another release made it.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }
}
