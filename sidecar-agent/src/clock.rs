//! The wall clock, read at the edges only: decisions take the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use mirrord_certs::UnixTime;

/// Seconds since 1970; 0 where the clock stands before that.
pub(crate) fn now() -> UnixTime {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
