//! The worker: a child of the dormant process that is awake in its place.
//!
//! Being awake is the risky half: peers, parsers, threads, memory. It happens in a process of its own, so that the
//! container's main process never ends by it: kubelet counts a sidecar that is down as a pod that is not ready, and a
//! pod that is not ready loses the application's traffic. And it is the cheap half to leave: when the worker exits,
//! *everything* is returned to the kernel, and the process that waits again is the one that never touched it.
//!
//! One pipe joins both. The worker writes down what its successor must know ([`Memory`]); the pipe's end is the worker's.

use std::{
    fs::File,
    io::{self, Read, Write},
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid},
};

use crate::sys::{
    process::{Fork, die_with, fork},
    signals::Termination,
};

/// Length of reset keys, in bytes.
pub(crate) const RESET_KEY_BYTES: usize = 32;
/// Length of a [`Memory`] on the pipe, in bytes; below PIPE_BUF, so it is written whole (pipe(7)).
const MEMORY_BYTES: usize = 8 + RESET_KEY_BYTES;

/// What outlives a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The newest announcement seen: no older one counts.
    pub(crate) revision: u64,
    /// The pod's key of stateless resets, by which peers of a worker that crashed learn at once; zeros before the
    /// first installation.
    pub(crate) reset_key: [u8; RESET_KEY_BYTES],
}

impl Memory {
    fn to_bytes(self) -> [u8; MEMORY_BYTES] {
        let mut bytes = [0; MEMORY_BYTES];
        let (revision, reset_key) = bytes.split_at_mut(8);
        revision.copy_from_slice(&self.revision.to_be_bytes());
        reset_key.copy_from_slice(&self.reset_key);
        bytes
    }

    fn from_bytes(bytes: &[u8; MEMORY_BYTES]) -> Self {
        let mut memory = Self::default();
        let mut revision = [0; 8];
        revision.copy_from_slice(&bytes[..8]);
        memory.revision = u64::from_be_bytes(revision);
        memory.reset_key.copy_from_slice(&bytes[8..]);
        memory
    }
}

/// Where a worker writes down what outlives it.
#[derive(Debug)]
pub(crate) struct Diary(File);

impl Diary {
    pub(crate) fn note(&self, memory: Memory) {
        // Fails only where nobody is left to read it, and then nobody is left to serve.
        let _ = (&self.0).write_all(&memory.to_bytes());
    }
}

/// How a worker ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// The pod stops.
    Stopped,
    /// Nobody was left to serve.
    Rested,
    /// It crashed or was killed.
    Crashed(WaitStatus),
}

/// Runs `work` in a child and waits for its end; `memory` is then what the child last noted. A request to stop is
/// passed on. `work` must be called while this process has one thread.
pub(crate) fn run(
    work: impl FnOnce(Diary) -> ExitCode,
    termination: &Termination,
    memory: &mut Memory,
) -> io::Result<Ended> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let parent = rustix::process::getpid();
    match fork()? {
        Fork::Child => {
            drop(reader);
            die_with(parent);
            let code = work(Diary(writer.into()));
            std::process::exit(i32::from(code != ExitCode::SUCCESS))
        }
        Fork::Parent(child) => {
            drop(writer);
            attend(child, reader.into(), termination, memory)
        }
    }
}

fn attend(child: Pid, mut pipe: File, termination: &Termination, memory: &mut Memory) -> io::Result<Ended> {
    let mut stopping = false;
    loop {
        // What was asked once is not looked at again: the descriptor would stay ready.
        let asked = if stopping { PollFlags::empty() } else { PollFlags::IN };
        let mut ready = [PollFd::new(&pipe, PollFlags::IN), PollFd::new(termination, asked)];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let [wrote, asked] = ready.map(|entry| !entry.revents().is_empty());
        if asked && !stopping {
            stopping = true;
            // It may have ended just now, which the pipe tells.
            let _ = kill_process(child, Signal::TERM);
        }
        if wrote {
            let mut bytes = [0; MEMORY_BYTES];
            match pipe.read_exact(&mut bytes) {
                Ok(()) => *memory = Memory::from_bytes(&bytes),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
    }
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    Ok(match status.exit_status() {
        _ if stopping => Ended::Stopped,
        Some(0) => Ended::Rested,
        _ => Ended::Crashed(status),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlives_a_worker_survives_the_pipe() {
        let memory = Memory { revision: 0x0102_0304_0506_0708, reset_key: [9; RESET_KEY_BYTES] };
        assert_eq!(Memory::from_bytes(&memory.to_bytes()), memory);
    }
}
