//! What this process tells the kernel about itself, and how it starts over.

use std::{
    ffi::{CString, OsString},
    io,
    net::UdpSocket,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    ptr,
};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Processes of the same uid, such as the application's, can neither trace us nor read our memory from here on
/// (PR_SET_DUMPABLE in prctl(2)). The kernel has done so already where the program isn't readable by us.
pub(crate) fn hide_from_equals() {
    // Fails only on kernels without prctl, which run nothing of ours.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Becomes this program again, with these arguments: memory, threads and touched pages go back to the kernel.
/// Returns only where that fails. Blocked signals stay blocked and pending ones pending, so none is lost on the way.
pub(crate) fn start_over(arguments: &[OsString]) -> io::Error {
    // By the name that it was started by: programs that list processes show the same as before.
    let program = std::env::args_os().next().unwrap_or_else(|| "/proc/self/exe".into());
    let texts: Result<Vec<CString>, _> =
        [program].iter().chain(arguments).map(|text| CString::new(text.as_bytes())).collect();
    let texts = match texts {
        Ok(texts) => texts,
        Err(error) => return error.into(),
    };
    let pointers: Vec<*const libc::c_char> =
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: the array ends with a null pointer, and it and the NUL-terminated texts live over the call.
    unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Takes over the socket that an earlier run of this process left open under this number.
pub(crate) fn inherit_socket(number: RawFd) -> io::Result<UdpSocket> {
    // SAFETY: fcntl(F_GETFD) takes no pointer and fails with EBADF where the number is no open descriptor.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and this process owns it alone: it was left to us by an exec and nothing else
    // was opened before (`serve` is the only caller, first thing in a run).
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(UdpSocket::from(socket))
}

/// Leaves a socket open over an exec; gives its number.
pub(crate) fn bequeath(socket: &UdpSocket) -> io::Result<RawFd> {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty())?;
    Ok(socket.as_raw_fd())
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
