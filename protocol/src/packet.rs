//! What a router may read of a QUIC packet without keys.
//!
//! Of a long header (RFC 8999 §5.1) that is the version and both connection ids; of a version 1 Initial (RFC 9000
//! §17.2.2) also its token. Of a short header (RFC 8999 §5.2) it is the Destination Connection ID, whose length
//! ([`CID_BYTES`]) is known because every id towards a sidecar is ours.

use crate::route::CID_BYTES;

/// QUIC version 1 (RFC 9000 §15).
const VERSION_1: u32 = 1;

/// The visible part of one QUIC packet at the head of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where it goes.
    pub destination: &'a [u8],
    /// Which form it has.
    pub form: Form<'a>,
}

/// Long and short headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// A version 1 Initial: it may open a flow, with this token.
    Initial {
        /// The token field, possibly empty.
        token: &'a [u8],
    },
    /// Any other long header, of this version.
    Long {
        /// As on the wire; 0 is a version negotiation.
        version: u32,
    },
    /// A packet of a connection that stands.
    Short,
}

impl<'a> Packet<'a> {
    /// Reads a datagram's first packet; `None` where it is no QUIC packet that could be ours.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (&first, rest) = datagram.split_first()?;
        if first & 0x80 == 0 {
            return Some(Self { destination: rest.get(..CID_BYTES)?, form: Form::Short });
        }
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let version = u32::from_be_bytes(*version);
        let (destination, rest) = short_string(rest)?;
        let (_source, rest) = short_string(rest)?;
        let initial = version == VERSION_1 && first & 0x30 == 0;
        let form = if initial { Form::Initial { token: long_string(rest)? } } else { Form::Long { version } };
        Some(Self { destination, form })
    }
}

/// One octet of length, then so many octets: ids are ≤ 20 octets in version 1, ≤ 255 in any version.
fn short_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

/// A variable-length integer (RFC 9000 §16), then so many octets.
fn long_string(bytes: &[u8]) -> Option<&[u8]> {
    let (&first, _) = bytes.split_first()?;
    let width = 1usize << (first >> 6);
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte));
    let length = length & (u64::MAX >> (64 - (8 * width - 2)));
    rest.get(..usize::try_from(length).ok()?)
}
