//! What this process tells the kernel about itself, and how it makes a worker.

use std::{io, net::UdpSocket, os::fd::AsRawFd};

use rustix::process::{
    DumpableBehavior, Pid, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
};

/// Processes of the same uid, such as the application's, can neither trace us nor read our memory from here on
/// (PR_SET_DUMPABLE in prctl(2)). The kernel has done so already where the program isn't readable by us.
pub(crate) fn hide_from_equals() {
    // Fails only on kernels without prctl, which run nothing of ours.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Which of two a process is.
pub(crate) enum Fork {
    /// The new one.
    Child,
    /// The old one, and who is new.
    Parent(Pid),
}

/// Makes a second process of this one (fork(2)); it is as little dumpable as this one.
///
/// # Errors
/// Those of fork(2), and `EAGAIN` where there is a second thread already.
pub(crate) fn fork() -> io::Result<Fork> {
    // A lock that another thread holds would stay locked in the child for ever.
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // SAFETY: this process has one thread, so the child is in the same consistent state and may do what this one may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        child => match Pid::from_raw(child) {
            Some(child) => Ok(Fork::Parent(child)),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
    }
}

/// Has the kernel kill this process when its parent ends, also where that happened already.
pub(crate) fn die_with(parent: Pid) {
    let armed = set_parent_process_death_signal(Some(Signal::KILL));
    if armed.is_err() || getppid() != Some(parent) {
        std::process::abort();
    }
}

/// Datagrams come one by one: QUIC had the kernel glue them together (UDP_GRO in udp(7)).
pub(crate) fn separate_datagrams(socket: &UdpSocket) -> io::Result<()> {
    let off: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of_val(&off)).unwrap_or_default();
    // SAFETY: the pointer and length are those of a live integer, and the descriptor is borrowed from its owner.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, (&raw const off).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
