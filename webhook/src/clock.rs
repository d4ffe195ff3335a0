//! The clock, for the shells around decisions that take time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mirrord_certs::UnixTime;

/// Now. A clock before 1970 counts as 1970: certificates made then are refused, nothing panics.
#[must_use]
pub fn now() -> UnixTime {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Waits for a time, where there is no condition to wait for: between attempts, and while draining.
pub(crate) async fn pause(duration: Duration) {
    let _elapsed = tokio::time::timeout(duration, std::future::pending::<()>()).await;
}
