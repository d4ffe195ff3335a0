//! Every bound of the wire, in one table. A peer that exceeds one is closed with [`crate::control::CloseCode::Protocol`].

/// A frame's header, in bytes.
pub const HEADER_BYTES: usize = 256 * 1024;
/// A frame's tail, in bytes.
pub const TAIL_BYTES: usize = 4 * 1024 * 1024;
/// A remote path (PATH_MAX of Linux, without the NUL).
pub const PATH_BYTES: usize = 4095;
/// A DNS name (RFC 1035 §2.3.4), with a trailing dot.
pub const NAME_BYTES: usize = 254;
/// Human-readable text: reasons, software names.
pub const TEXT_BYTES: usize = 1024;
/// What an open pushes along in its reply, in bytes.
pub const FIRST_BYTES: usize = 64 * 1024;
/// What one read may ask for, in bytes.
pub const READ_BYTES: u32 = 1024 * 1024;
/// Entries in one frame of a listing.
pub const LISTING_ENTRIES: usize = 512;
/// Addresses in one look-up's answer.
pub const ADDRESSES: usize = 256;
/// A whole environment, in bytes.
pub const ENVIRONMENT_BYTES: usize = TAIL_BYTES;
/// Concurrent streams a client may hold at first; raised at run time.
pub const STREAMS: u32 = 100;
/// Sessions in one announcement.
pub const SESSIONS: usize = 256;
/// How long a Hello waits for its session to be announced, in milliseconds.
pub const HELLO_WAIT_MS: u64 = 2_000;
/// How many such Hellos may wait at once.
pub const HELLOS_WAITING: usize = 8;
