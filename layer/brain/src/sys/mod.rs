//! The kernel's calls that the layer itself makes, without libc.
//!
//! The libc functions of the same names are what a front replaces: called from here they would come back to us. All
//! unsafe code of this crate is in this module; what it offers is safe.
#![expect(unsafe_code, reason = "system calls take raw pointers; this module keeps them to itself")]

mod heap;
mod raw;
mod socket;
mod thread_end;

use raw::kernel;
use std::{
    ffi::{CStr, c_int, c_long},
    fmt,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

pub use heap::Heap;
pub use socket::{
    connect, disconnect, is_v6_only, local_address, option, peer_address, receive, send, to_sockaddr,
    unix_stream,
};
pub(crate) use socket::{mapped, unmapped};
pub use thread_end::ThreadEnd;

/// An error of the kernel, by number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub c_int);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

impl std::error::Error for Errno {}

/// What stat(2) says. `libc::stat` lies as the kernel's on x86-64 and aarch64.
pub type Status = libc::stat;

/// As the C library's `errno`.
#[must_use]
pub fn errno() -> c_int {
    // SAFETY: it has no arguments and can't fail.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the C library promises this thread's own, valid `int` there.
    unsafe { *place }
}

/// Sets the C library's `errno`.
pub fn set_errno(number: c_int) {
    // SAFETY: it has no arguments and can't fail.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as in `errno`; no reference to it is ever held.
    unsafe { *place = number };
}

/// Makes the kernel's answer a `Result`.
fn checked(answer: isize) -> Result<isize, Errno> {
    match c_int::try_from(answer) {
        Ok(errno @ -4095..0) => Err(Errno(-errno)),
        _ => Ok(answer),
    }
}

fn length(result: isize) -> Result<usize, Errno> {
    checked(result).map(|count| usize::try_from(count).unwrap_or(0))
}

/// openat(2), never creating; the descriptor is closed at execve.
///
/// # Errors
/// As the kernel says.
pub fn open(path: &CStr, flags: c_int) -> Result<OwnedFd, Errno> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated by its type; without O_CREAT the kernel reads no mode.
    let result = unsafe { kernel!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) };
    owned(checked(result)?)
}

/// Takes over a descriptor that the kernel just gave us.
fn owned(descriptor: isize) -> Result<OwnedFd, Errno> {
    let number = c_int::try_from(descriptor).map_err(|_| Errno(libc::EBADF))?;
    // SAFETY: the callers pass what a system call just returned as new; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// pread(2): fills as much of `buffer` as there is.
///
/// # Errors
/// As the kernel says.
pub fn read_at(file: BorrowedFd<'_>, buffer: &mut [u8], offset: i64) -> Result<usize, Errno> {
    let (pointer, room) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `room` bytes, into the exclusively borrowed buffer.
    length(unsafe { kernel!(libc::SYS_pread64, file.as_raw_fd(), pointer, room, offset) })
}

/// read(2).
///
/// # Errors
/// As the kernel says.
pub fn read(file: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let (pointer, room) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: as in `read_at`.
    length(unsafe { kernel!(libc::SYS_read, file.as_raw_fd(), pointer, room) })
}

/// Writes a line to the program's stderr, and gives up where that fails.
pub fn complain(line: &str) {
    // SAFETY: the kernel reads `line.len()` bytes of a borrowed string.
    unsafe { kernel!(libc::SYS_write, libc::STDERR_FILENO, line.as_ptr(), line.len()) };
}

/// fstat(2), of a number that needn't be open.
///
/// # Errors
/// EBADF where it isn't, or as the kernel says.
pub fn status(descriptor: c_int) -> Result<Status, Errno> {
    let mut status = MaybeUninit::<Status>::uninit();
    // SAFETY: the kernel writes one `struct stat` into the place we borrowed for it, or fails.
    checked(unsafe { kernel!(libc::SYS_fstat, descriptor, status.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel filled it in.
    Ok(unsafe { status.assume_init() })
}

/// stat(2), which follows symbolic links.
///
/// # Errors
/// As the kernel says.
pub fn status_of(path: &CStr) -> Result<Status, Errno> {
    let mut status = MaybeUninit::<Status>::uninit();
    let place = status.as_mut_ptr();
    // SAFETY: `path` is NUL-terminated by its type, and the kernel writes one `struct stat` into our place, or fails.
    checked(unsafe { kernel!(libc::SYS_newfstatat, libc::AT_FDCWD, path.as_ptr(), place, 0) })?;
    // SAFETY: the call succeeded, so the kernel filled it in.
    Ok(unsafe { status.assume_init() })
}

/// A status of nothing, to be filled in.
pub(crate) fn empty_status() -> Status {
    // SAFETY: all-zero bytes are a valid `struct stat`: it has integers only.
    unsafe { std::mem::zeroed() }
}

/// As [`empty_status`], for statx(2).
pub(crate) fn empty_statx() -> libc::statx {
    // SAFETY: all-zero bytes are a valid `struct statx`: it has integers only.
    unsafe { std::mem::zeroed() }
}

/// This machine's name (uname(2)).
#[must_use]
pub fn host_name() -> String {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the kernel writes one `struct utsname` into the place we borrowed for it.
    unsafe { kernel!(libc::SYS_uname, name.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a valid `struct utsname`, and so is what the kernel wrote over them.
    let name = unsafe { name.assume_init() };
    let bytes = name.nodename.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Whether the process may execute a file: faccessat2(2) by effective ids, as execve(2) would judge.
#[must_use]
pub fn may_execute(path: &CStr) -> bool {
    let asked = |number, flags: c_int| {
        // SAFETY: `path` is NUL-terminated by its type; the call has no other pointer.
        let answer = unsafe { kernel!(number, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, flags) };
        checked(answer)
    };
    match asked(libc::SYS_faccessat2, libc::AT_EACCESS) {
        // Before Linux 5.8: by real ids.
        Err(Errno(libc::ENOSYS)) => asked(libc::SYS_faccessat, 0).is_ok(),
        answer => answer.is_ok(),
    }
}

/// Whether a file has an extended attribute.
#[must_use]
pub fn has_attribute(path: &CStr, name: &CStr) -> bool {
    let nowhere = std::ptr::null_mut::<u8>();
    // SAFETY: both are NUL-terminated by type; with a size of 0 the kernel writes nothing (getxattr(2)).
    unsafe { kernel!(libc::SYS_getxattr, path.as_ptr(), name.as_ptr(), nowhere, 0_usize) > 0 }
}

/// Real user and group of the process.
#[must_use]
pub fn identity() -> (u32, u32) {
    // SAFETY: getuid(2) has no arguments and can't fail.
    let user = unsafe { kernel!(libc::SYS_getuid) };
    // SAFETY: getgid(2) has no arguments and can't fail.
    let group = unsafe { kernel!(libc::SYS_getgid) };
    (u32::try_from(user).unwrap_or(u32::MAX), u32::try_from(group).unwrap_or(u32::MAX))
}

/// The process, as the kernel knows it now: never cached, so right after any kind of fork.
#[must_use]
pub fn process() -> u32 {
    // SAFETY: getpid(2) has no arguments and can't fail.
    u32::try_from(unsafe { kernel!(libc::SYS_getpid) }).unwrap_or(0)
}

/// The working directory, into `buffer`; without NUL.
///
/// # Errors
/// As the kernel says.
pub fn working_directory(buffer: &mut [u8]) -> Result<&[u8], Errno> {
    let (pointer, room) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `room` bytes, into the exclusively borrowed buffer.
    let length = length(unsafe { kernel!(libc::SYS_getcwd, pointer, room) })?;
    let path = buffer.get(..length.saturating_sub(1)).unwrap_or_default();
    // A folder outside of the process's root is told as "(unreachable)…" (getcwd(2)).
    if path.first() == Some(&b'/') { Ok(path) } else { Err(Errno(libc::ENOENT)) }
}

/// readlink(2), into `buffer`.
///
/// # Errors
/// As the kernel says.
pub fn read_link<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let (pointer, room) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: `path` is NUL-terminated by its type; the kernel writes at most `room` bytes into the buffer.
    let result = unsafe { kernel!(libc::SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), pointer, room) };
    length(result).map(|length| &buffer[..length.min(room)])
}

/// getdents64(2): fills `buffer` with records as in [`crate::listing`].
///
/// # Errors
/// As the kernel says.
pub fn read_folder(folder: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let (pointer, room) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `room` bytes, into the exclusively borrowed buffer.
    length(unsafe { kernel!(libc::SYS_getdents64, folder.as_raw_fd(), pointer, room) })
}

/// fcntl(2) with an integer argument, of a number that needn't be open.
///
/// # Errors
/// As the kernel says.
pub fn control(descriptor: c_int, command: c_int, argument: c_int) -> Result<c_int, Errno> {
    // SAFETY: the callers in this crate pass only commands whose argument is an integer.
    let result = unsafe { kernel!(libc::SYS_fcntl, descriptor, command, argument) };
    checked(result).map(|value| c_int::try_from(value).unwrap_or(0))
}

/// The same description under a number of at least `lowest`, closed at execve.
///
/// # Errors
/// As the kernel says.
pub fn duplicate_above(file: BorrowedFd<'_>, lowest: c_int) -> Result<OwnedFd, Errno> {
    let copy = control(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest)?;
    owned(isize::try_from(copy).map_err(|_| Errno(libc::EBADF))?)
}

/// How many descriptors the process may have (the soft `RLIMIT_NOFILE`).
#[must_use]
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let nothing = std::ptr::null::<libc::rlimit>();
    let place = &raw mut limit;
    // SAFETY: the kernel reads no new limit (null) and writes one `struct rlimit` into our place.
    let result = unsafe { kernel!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, nothing, place) };
    if result == 0 { limit.rlim_cur } else { 256 }
}

/// All signals blocked for this thread, until dropped: what is done meanwhile can't be interrupted by a handler that
/// does the same.
#[must_use = "signals are let in again when it is dropped"]
pub struct SignalsBlocked {
    /// The kernel's `sigset_t`: 64 signals.
    before: u64,
}

impl SignalsBlocked {
    /// Blocks them.
    pub fn block() -> Self {
        let mut before = 0_u64;
        let (all, place) = (&raw const EVERY_SIGNAL, &raw mut before);
        // SAFETY: the kernel reads and writes 8 bytes each, at a static's and a local's address.
        unsafe { kernel!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, all, place, size_of::<u64>()) };
        Self { before }
    }
}

static EVERY_SIGNAL: u64 = u64::MAX;

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let (before, nowhere) = (&raw const self.before, std::ptr::null_mut::<u64>());
        // SAFETY: the kernel reads 8 bytes of a local, and writes nothing (null).
        unsafe { kernel!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, before, nowhere, size_of::<u64>()) };
    }
}

const _: () = assert!(size_of::<c_long>() == 8, "64-bit Linux only");
