//! Paths as the kernel knows them: bytes without NUL, not necessarily UTF-8.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

use crate::limits::PATH_BYTES;

/// An absolute path in the pod.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(Vec<u8>);

/// Why bytes are no remote path.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum PathError {
    /// Longer than [`PATH_BYTES`].
    #[error("path is longer than {PATH_BYTES} bytes")]
    TooLong,
    /// Doesn't start with a slash.
    #[error("path is not absolute")]
    Relative,
    /// Holds a NUL byte.
    #[error("path holds a NUL byte")]
    Nul,
}

impl RemotePath {
    /// Checks and wraps the bytes of an absolute path.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        match bytes.first() {
            _ if bytes.len() > PATH_BYTES => Err(PathError::TooLong),
            Some(b'/') if bytes.contains(&0) => Err(PathError::Nul),
            Some(b'/') => Ok(Self(bytes)),
            _ => Err(PathError::Relative),
        }
    }

    /// The bytes, without NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for RemotePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for RemotePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: Vec<u8> = serde_bytes::deserialize(deserializer)?;
        Self::new(bytes).map_err(D::Error::custom)
    }
}
