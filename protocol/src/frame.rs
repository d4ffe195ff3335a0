//! Frames: `header length (u32) ‖ tail length (u32) ‖ header (CBOR) ‖ tail (raw)`, big-endian.
//!
//! The header is a CBOR map with named, optional fields (RFC 8949): a reader skips names it doesn't know, and a
//! missing name takes its default. Bulk bytes travel in the tail, which is never parsed nor copied by the codec.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::limits;

/// Length of [`Prefix`] on the wire, in bytes.
pub const PREFIX_BYTES: usize = 8;

/// The two lengths that open a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Bytes of header that follow, ≤ [`limits::HEADER_BYTES`].
    pub header: usize,
    /// Bytes of tail behind the header, ≤ [`limits::TAIL_BYTES`].
    pub tail: usize,
}

/// Why bytes are not a frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A length exceeds its bound.
    #[error("{what} of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// `header` or `tail`.
        what: &'static str,
        /// What the sender announced.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The header isn't the message that was expected.
    #[error("malformed header: {0}")]
    Malformed(String),
    /// A request or boot call of a newer release.
    #[error("unsupported request {0:?}")]
    Unsupported(String),
}

impl Prefix {
    /// Reads the two lengths and checks them against the limits.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn parse(bytes: [u8; PREFIX_BYTES]) -> Result<Self, FrameError> {
        let [h0, h1, h2, h3, t0, t1, t2, t3] = bytes;
        let header = bounded("header", u32::from_be_bytes([h0, h1, h2, h3]), limits::HEADER_BYTES)?;
        let tail = bounded("tail", u32::from_be_bytes([t0, t1, t2, t3]), limits::TAIL_BYTES)?;
        Ok(Self { header, tail })
    }

    /// Bytes of the frame behind the prefix.
    #[must_use]
    pub fn body(self) -> usize {
        self.header + self.tail
    }
}

fn bounded(what: &'static str, length: u32, limit: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > limit { Err(FrameError::TooLong { what, length, limit }) } else { Ok(length) }
}

/// Encodes prefix and header of a frame whose tail of `tail` bytes is sent behind it.
///
/// # Errors
/// [`FrameError::TooLong`] where the message or its tail exceeds the limits.
pub fn encode<T: Serialize>(header: &T, tail: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; PREFIX_BYTES];
    ciborium::into_writer(header, &mut bytes).map_err(|error| FrameError::Malformed(error.to_string()))?;
    let length = u32::try_from(bytes.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
    bounded("header", length, limits::HEADER_BYTES)?;
    let tail = u32::try_from(tail).unwrap_or(u32::MAX);
    bounded("tail", tail, limits::TAIL_BYTES)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..8].copy_from_slice(&tail.to_be_bytes());
    Ok(bytes)
}

/// Encodes a whole frame, tail included.
///
/// # Errors
/// [`FrameError::TooLong`] where the message or its tail exceeds the limits.
pub fn encode_with_tail<T: Serialize>(header: &T, tail: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut bytes = encode(header, tail.len())?;
    bytes.extend_from_slice(tail);
    Ok(bytes)
}

/// Decodes a header.
///
/// # Errors
/// [`FrameError::Malformed`] where the bytes aren't a `T`.
pub fn decode<T: DeserializeOwned>(header: &[u8]) -> Result<T, FrameError> {
    ciborium::de::from_reader_with_recursion_limit(header, 16)
        .map_err(|error| FrameError::Malformed(error.to_string()))
}

/// What a message calls itself: the only key of its outer map, where there is one.
pub(crate) fn name(header: &[u8]) -> Option<String> {
    let value: ciborium::Value = decode(header).ok()?;
    let [(ciborium::Value::Text(name), _)] = value.as_map()?.as_slice() else { return None };
    Some(name.chars().take(64).collect())
}
