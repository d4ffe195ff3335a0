//! What a process uses, as its kernel counts it (proc(5)): for tests that flood it and say what that may cost.
#![forbid(unsafe_code)]

use std::{
    fmt, fs, io,
    ops::{Add, Sub},
};

/// Ticks of `/proc/PID/stat` in a second: USER_HZ, which is 100 on every Linux we run on.
const TICK_MS: u64 = 10;

/// What a process uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its memory that is resident, in KiB.
    pub resident: u64,
    /// The most that it was since the start, or since [`forget_peak`], in KiB.
    pub peak: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Time on processors since the start, in milliseconds.
    pub cpu: u64,
}

impl Usage {
    /// Of a process; `None` where it has ended.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.split_whitespace().next()?.parse().ok()
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; utime and stime are fields 14 and 15 of all.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0));
        Some(Self {
            resident: number("VmRSS")?,
            peak: number("VmHWM")?,
            threads: number("Threads")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
            cpu: ticks.sum::<u64>() * TICK_MS,
        })
    }
}

/// Lets [`Usage::peak`] begin anew.
///
/// # Errors
/// Where the process has ended, or is another user's.
pub fn forget_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Bytes that wait in the kernel for whoever reads a UDP port of this network namespace.
#[must_use]
pub fn queued(port: u16) -> u64 {
    ["/proc/net/udp", "/proc/net/udp6"]
        .into_iter()
        .flat_map(|table| {
            let table = fs::read_to_string(table).unwrap_or_default();
            table.lines().filter_map(|line| row(line, port)).collect::<Vec<_>>()
        })
        .sum()
}

/// The receive queue of a row of `/proc/net/udp` that is of this local port.
fn row(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, local) = fields.next()?.rsplit_once(':')?;
    if u16::from_str_radix(local, 16).ok()? != port {
        return None;
    }
    let (_, queue) = fields.nth(2)?.split_once(':')?;
    u64::from_str_radix(queue, 16).ok()
}

/// Of two processes together.
impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            resident: self.resident + other.resident,
            peak: self.peak + other.peak,
            threads: self.threads + other.threads,
            descriptors: self.descriptors + other.descriptors,
            cpu: self.cpu + other.cpu,
        }
    }
}

/// What came since: nothing where it became less.
impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            resident: self.resident.saturating_sub(before.resident),
            peak: self.peak.saturating_sub(before.peak),
            threads: self.threads.saturating_sub(before.threads),
            descriptors: self.descriptors.saturating_sub(before.descriptors),
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, peak, threads, descriptors, cpu } = self;
        write!(
            f,
            "resident {resident} KiB, peak {peak} KiB, {threads} threads, {descriptors} descriptors, {cpu} ms"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_touched_shows_in_the_peak_after_it_is_given_back() {
        let own = std::process::id();
        let before = Usage::of(own).expect("alive");
        assert!(before.threads >= 1 && before.descriptors >= 3 && before.resident > 0, "{before}");
        drop(std::hint::black_box(vec![1u8; 32 << 20]));
        let after = Usage::of(own).expect("alive");
        assert!((after - before).peak >= 20 << 10, "{before}; {after}");
        forget_peak(own).expect("our own");
        assert!(Usage::of(own).expect("alive").peak < after.peak);
    }

    #[test]
    fn what_nobody_has_read_is_queued() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("bound");
        assert_eq!(queued(address.port()), 0);
        socket.send_to(&[0; 100], address).expect("sent");
        assert!(queued(address.port()) >= 100);
        socket.recv_from(&mut [0; 100]).expect("received");
        assert_eq!(queued(address.port()), 0);
    }

    #[test]
    fn a_process_that_ended_uses_nothing() {
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
