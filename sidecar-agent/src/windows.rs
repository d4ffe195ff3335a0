//! How much a peer may send ahead: from the container's memory limit, so that a fast sender and a slow receiver
//! can't end in an out-of-memory kill of the sidecar.

use std::fs;

use mirrord_tunnel::setup::Windows;

/// Where a container finds its limit: control groups of version 2, then 1.
const LIMIT_FILES: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
/// A connection's window is this part of the limit: it counts in both directions, and several sessions may be open.
const PART: u64 = 8;
/// Slower than that serves nobody, in bytes.
const SMALLEST: u32 = 1024 * 1024;

/// The container's memory limit in bytes; `None` where there is none.
pub(crate) fn memory_limit() -> Option<u64> {
    LIMIT_FILES.iter().find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// Windows for a memory limit.
pub(crate) fn windows(limit: Option<u64>) -> Windows {
    let widest = Windows::default();
    let share = limit.map_or(widest.connection, |limit| u32::try_from(limit / PART).unwrap_or(u32::MAX));
    let connection = share.clamp(SMALLEST, widest.connection);
    Windows { stream: (connection / 2).min(widest.stream), connection }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_makes_small_windows() {
        const MIB: u32 = 1024 * 1024;
        let of = |limit: Option<u64>| {
            let windows = windows(limit);
            (windows.stream / MIB, windows.connection / MIB)
        };
        assert_eq!(of(None), (16, 64));
        assert_eq!(of(Some(u64::MAX)), (16, 64), "version 1 says so where there is none");
        assert_eq!(of(Some(64 << 20)), (4, 8));
        assert_eq!(windows(Some(1 << 20)).connection, MIB, "never below the smallest");
    }
}
