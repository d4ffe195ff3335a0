//! What a session may ask. Each request opens a bidirectional QUIC stream of its own, so none waits for another.
//!
//! | request | stream | reply |
//! |---|---|---|
//! | [`Request::Environment`] | one frame each way | [`crate::reply::Environment`], tail: `NAME=value` NUL-separated |
//! | [`Request::Open`] | stays open for [`Read`]s; its end closes the file | [`crate::reply::Opened`], tail: first bytes |
//! | [`Request::Stat`] | one frame each way | [`crate::reply::Attributes`] |
//! | [`Request::List`] | frames until `more` is false | [`crate::reply::Listing`] |
//! | [`Request::ReadLink`] | one frame each way | [`crate::reply::Link`] |
//! | [`Request::Connect`] | raw bytes both ways behind the reply, half-close kept | [`crate::reply::Connected`] |
//! | [`Request::Resolve`] | one frame each way | [`crate::reply::Resolved`] |
//! | [`Request::Ping`] | one frame each way | [`crate::reply::Pong`] |

use serde::{Deserialize, Serialize};

use crate::{
    frame::{self, FrameError},
    path::RemotePath,
};

/// One question of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The environment of the pod's container. Needs `env`.
    Environment {},
    /// Opens a file for reading. Needs `files`.
    Open(Open),
    /// Attributes of a path. Needs `files`.
    Stat(Stat),
    /// Entries of a folder, with their attributes. Needs `files`.
    List(List),
    /// Target of a symbolic link. Needs `files`.
    ReadLink(ReadLink),
    /// Connects a TCP socket in the pod. Needs `outgoing`.
    Connect(Connect),
    /// Resolves a name in the pod. Needs `outgoing`.
    Resolve(Resolve),
    /// Answers at once. Needs nothing.
    Ping {},
}

/// The names on the wire of all requests that this release knows.
pub const REQUESTS: [&str; 8] =
    ["environment", "open", "stat", "list", "read_link", "connect", "resolve", "ping"];

/// Opens a regular file for reading; the reply carries attributes and the first bytes: one round trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// What to open, ≤ [`crate::limits::PATH_BYTES`].
    pub path: RemotePath,
    /// Fail with ELOOP where the last component is a symbolic link (O_NOFOLLOW of open(2)).
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_follow: bool,
    /// Fail with ENOTDIR unless it is a folder (O_DIRECTORY of open(2)).
    #[serde(default, skip_serializing_if = "is_default")]
    pub directory: bool,
}

/// A further read on the stream of an [`Open`]. Reads are answered in order with
/// [`crate::reply::Data`] and the bytes as tail; fewer bytes than asked for mean the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Position in the file, in bytes.
    pub offset: u64,
    /// How much, in bytes, ≤ [`crate::limits::READ_BYTES`].
    pub length: u32,
}

/// Attributes of a path: stat(2), lstat(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Whose attributes.
    pub path: RemotePath,
    /// Look at a symbolic link itself (AT_SYMLINK_NOFOLLOW).
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_follow: bool,
    /// Also answer whether the container's identity may access it so: bits R_OK, W_OK, X_OK of access(2).
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: u8,
}

/// Entries of a folder: getdents64(2) with lstat(2) of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Which folder.
    pub path: RemotePath,
}

/// Target of a symbolic link: readlink(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLink {
    /// Which link.
    pub path: RemotePath,
}

/// Connects a TCP socket in the pod: connect(2). An IPv4 or IPv6 address, with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Where to.
    pub address: std::net::SocketAddr,
}

/// Resolves a name as a program in the pod would: getaddrinfo(3) with /etc/hosts, search domains and ndots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// The name as the program gave it, ≤ [`crate::limits::NAME_BYTES`].
    pub name: String,
    /// Which addresses.
    #[serde(default)]
    pub family: Family,
    /// Also answer the canonical name (AI_CANONNAME).
    #[serde(default, skip_serializing_if = "is_default")]
    pub canonical: bool,
    /// Only families that the pod itself has addresses of (AI_ADDRCONFIG).
    #[serde(default, skip_serializing_if = "is_default")]
    pub configured: bool,
}

/// Which addresses a look-up wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4 and IPv6 (AF_UNSPEC).
    #[default]
    Any,
    /// IPv4 only (AF_INET).
    V4,
    /// IPv6 only (AF_INET6).
    V6,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Request {
    /// Decodes a request's header; a name of a newer release is told apart from bytes that make no sense.
    ///
    /// # Errors
    /// [`FrameError::Unsupported`] or [`FrameError::Malformed`].
    pub fn decode(header: &[u8]) -> Result<Self, FrameError> {
        frame::decode(header).map_err(|error| match frame::name(header) {
            Some(name) if !REQUESTS.contains(&name.as_str()) => FrameError::Unsupported(name),
            _ => error,
        })
    }
}
