//! Picks the process whose eyes the session borrows.
//!
//! The sidecar shares the pod's PID namespace. Among the target container's processes that the kernel lets us read
//! (same uid and gid, dumpable, no more capabilities than we have: PTRACE_MODE_READ_FSCREDS in ptrace(2)), the
//! lowest pid is taken, because shells and supervisors start their children later. A pidfd is held: when it fires, the
//! program has ended and the next request picks again.

use std::{fs, io::Read, os::fd::OwnedFd};

use mirrord_protocol::limits::ENVIRONMENT_BYTES;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, openat},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::mountinfo;

/// Whose processes to look for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) pod_uid: String,
    pub(crate) container: String,
}

/// A process that can be read.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    handle: OwnedFd,
}

impl Process {
    /// The lowest readable one of the target, with its root folder.
    pub(crate) fn pick(target: &Target) -> Option<(Self, OwnedFd)> {
        processes(target).find_map(|pid| Self::read(pid, target))
    }

    /// The process of this number, if it is the target's and readable. The handle is taken first and asked last, so
    /// all that was read in between is of one process.
    fn read(number: u32, target: &Target) -> Option<(Self, OwnedFd)> {
        let pid = Pid::from_raw(i32::try_from(number).ok()?)?;
        let process = Self { pid, handle: pidfd_open(pid, PidfdFlags::empty()).ok()? };
        let belongs = belongs_to(number, target);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, format!("/proc/{number}/root"), flags, Mode::empty()).ok()?;
        (belongs && process.environment().is_some()).then_some((process, root))
    }

    /// Its number in this namespace.
    pub(crate) fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        let mut ready = [PollFd::new(&self.handle, PollFlags::IN)];
        matches!(poll(&mut ready, Some(&Timespec::default())), Ok(0))
    }

    /// Its environment as of its last exec, without what is no variable; `None` where it can't be read.
    pub(crate) fn environment(&self) -> Option<Vec<u8>> {
        let file = fs::File::open(format!("/proc/{}/environ", self.number())).ok()?;
        let mut bytes = Vec::new();
        file.take(u64::try_from(ENVIRONMENT_BYTES).ok()?).read_to_end(&mut bytes).ok()?;
        let variables = variables(&bytes);
        // Programs that write their title over their variables (setproctitle) leave none to read.
        (self.is_alive() && !variables.is_empty()).then_some(variables)
    }
}

/// Numbers of the target's processes, the lowest first.
pub(crate) fn processes(target: &Target) -> impl Iterator<Item = u32> {
    let own = std::process::id();
    let folders = fs::read_dir("/proc").into_iter().flatten();
    let numbers = folders.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<u32> = numbers.filter(|number| *number != own).collect();
    numbers.sort_unstable();
    numbers.into_iter().filter(|number| belongs_to(*number, target))
}

fn belongs_to(number: u32, target: &Target) -> bool {
    let mountinfo = fs::read(format!("/proc/{number}/mountinfo")).unwrap_or_default();
    mountinfo::belongs_to(&String::from_utf8_lossy(&mountinfo), &target.pod_uid, &target.container)
}

/// The entries that have a name and a value.
fn variables(environ: &[u8]) -> Vec<u8> {
    let entries = environ.split(|byte| *byte == 0);
    let entries =
        entries.filter(|entry| entry.iter().position(|byte| *byte == b'=').is_some_and(|at| at > 0));
    entries.collect::<Vec<_>>().join(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_variable_is_left_out() {
        assert_eq!(variables(b"A=1\0B=\0title of a process\0=x\0\0C=a=b\0"), b"A=1\0B=\0C=a=b");
        assert_eq!(variables(b"\0\0\0"), b"");
        assert_eq!(variables("N=\u{e4}\0".as_bytes()), "N=\u{e4}".as_bytes());
    }

    #[test]
    fn an_ended_process_is_noticed() -> std::io::Result<()> {
        let mut child = std::process::Command::new("sleep").arg("600").env("MARK", "1").spawn()?;
        let pid = Pid::from_child(&child);
        let process = Process { pid, handle: pidfd_open(pid, PidfdFlags::empty())? };
        assert!(process.is_alive());
        child.kill()?;
        child.wait()?;
        assert!(!process.is_alive());
        assert_eq!(process.environment(), None);
        Ok(())
    }
}
