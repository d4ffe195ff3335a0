//! What a request is answered with: `Ok` with one of the types below, or a numbered failure.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::control::View;

/// The header of every reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// It worked.
    Ok(T),
    /// It didn't.
    Failed(Failure),
}

impl<T> Reply<T> {
    /// As a `Result`, for `?`.
    ///
    /// # Errors
    /// The failure that the sidecar reported.
    pub fn into_result(self) -> Result<T, Failure> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::Failed(failure) => Err(failure),
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct Failure {
    /// A [`FailureCode`], as a number so that codes of other releases survive.
    pub code: u16,
    /// errno of the pod's kernel, as Linux numbers it (the same on x86-64 and aarch64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// EAI_ code of getaddrinfo(3), as glibc numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eai: Option<i32>,
    /// One sentence for people; ≤ [`crate::limits::TEXT_BYTES`].
    #[serde(default)]
    pub message: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FailureCode {
    /// The pod's kernel said no: see `errno`.
    System = 1,
    /// The name could not be resolved: see `eai`.
    Lookup = 2,
    /// The session lacks the feature: `errno` is EACCES.
    NotGranted = 3,
    /// The sidecar is older than this request: `errno` is ENOSYS.
    Unsupported = 4,
    /// The path leads to what is never served (`/proc`, devices, FIFOs …): `errno` is EACCES.
    NeverServed = 5,
    /// A bound was exceeded: see `errno`.
    Limit = 6,
    /// The request makes no sense: `errno` is EINVAL.
    Malformed = 7,
}

impl Failure {
    /// A failure that the kernel reported.
    #[must_use]
    pub fn system(errno: i32) -> Self {
        Self::new(FailureCode::System, errno, String::new())
    }

    /// A failure of any kind, with the errno that a program shall see.
    #[must_use]
    pub fn new(code: FailureCode, errno: i32, message: impl Into<String>) -> Self {
        Self { code: code as u16, errno: Some(errno), eai: None, message: message.into() }
    }

    /// A failed look-up.
    #[must_use]
    pub fn lookup(eai: i32, message: impl Into<String>) -> Self {
        Self { code: FailureCode::Lookup as u16, errno: None, eai: Some(eai), message: message.into() }
    }

    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, code: FailureCode) -> bool {
        self.code == code as u16
    }
}

/// Whose environment follows in the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Live or at start.
    #[serde(default)]
    pub view: View,
}

/// A file that was opened; its first bytes are the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// As fstat(2) said.
    pub attributes: Attributes,
    /// The tail is the whole file.
    #[serde(default)]
    pub end: bool,
}

/// Answer to a [`crate::request::Read`]; the bytes are the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The end of the file was reached.
    #[serde(default)]
    pub end: bool,
}

/// What stat(2) knows, in its units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Kind and permissions (st_mode).
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode.
    pub ino: u64,
    /// Device that holds it.
    pub dev: u64,
    /// Hard links.
    pub nlink: u64,
    /// Device it is.
    pub rdev: u64,
    /// Preferred I/O size, in bytes.
    pub blksize: u32,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time(pub i64, pub u32);

/// A part of a folder's entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Without `.` and `..`; ≤ [`crate::limits::LISTING_ENTRIES`]. Only the last frame may have none.
    pub entries: Vec<Entry>,
    /// Another frame follows.
    #[serde(default)]
    pub more: bool,
    /// The folder's own attributes, in the first frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Bytes without NUL or slash.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// As lstat(2) said; missing where it was gone by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
}

/// Target of a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Bytes without NUL, absolute or relative.
    #[serde(with = "serde_bytes")]
    pub target: Vec<u8>,
}

/// A connection that stands; raw bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// The pod's side (getsockname(2)).
    pub local: SocketAddr,
    /// The other side (getpeername(2)).
    pub peer: SocketAddr,
}

/// What a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// In the resolver's order, ≤ [`crate::limits::ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// The canonical name, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<String>,
}

/// Answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {}
