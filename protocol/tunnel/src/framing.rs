//! Frames of [`mirrord_protocol::frame`] on QUIC streams.

use bytes::Bytes;
use mirrord_protocol::frame::{self, FrameError, PREFIX_BYTES, Prefix};
use quinn::{ReadExactError, RecvStream, SendStream, WriteError};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Why no frame was read or written.
#[derive(Debug, Error)]
pub enum FramingError {
    /// The stream ended or its connection was lost before the frame was whole.
    #[error("{0}")]
    Read(#[from] ReadExactError),
    /// The stream or its connection was lost.
    #[error("{0}")]
    Write(#[from] WriteError),
    /// The bytes are no frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
}

/// A frame as it came: a header to decode and a tail to pass on.
#[derive(Clone, Debug)]
pub struct Frame {
    /// CBOR.
    pub header: Bytes,
    /// Raw.
    pub tail: Bytes,
}

impl Frame {
    /// Decodes the header.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        frame::decode(&self.header)
    }
}

/// Reads one frame; `None` where the stream ended properly before it.
///
/// # Errors
/// See [`FramingError`].
pub async fn read(stream: &mut RecvStream) -> Result<Option<Frame>, FramingError> {
    let mut prefix = [0; PREFIX_BYTES];
    match stream.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let prefix = Prefix::parse(prefix)?;
    let mut body = vec![0; prefix.body()];
    stream.read_exact(&mut body).await?;
    let mut header = Bytes::from(body);
    let tail = header.split_off(prefix.header);
    Ok(Some(Frame { header, tail }))
}

/// Reads one frame that must come.
///
/// # Errors
/// See [`FramingError`].
pub async fn expect(stream: &mut RecvStream) -> Result<Frame, FramingError> {
    read(stream).await?.ok_or(FramingError::Read(ReadExactError::FinishedEarly(0)))
}

/// Writes one frame.
///
/// # Errors
/// See [`FramingError`].
pub async fn write<T: Serialize>(
    stream: &mut SendStream,
    header: &T,
    tail: &[u8],
) -> Result<(), FramingError> {
    let head = frame::encode(header, tail.len())?;
    stream.write_all(&head).await?;
    stream.write_all(tail).await?;
    Ok(())
}
