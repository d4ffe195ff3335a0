//! The shell of syscall(2): calls that programs make by number, past libc's functions of that name.
//!
//! Numbers that have a row in the table go to that row's shell; all others on to the kernel.

use std::ffi::{c_int, c_long};

use crate::{exec, files, network, status, table::original};

/// A register's lower half, which is what the kernel reads of an `int`.
fn int(word: usize) -> c_int {
    let [a, b, c, d, ..] = word.to_le_bytes();
    c_int::from_le_bytes([a, b, c, d])
}

fn pointer<T>(word: usize) -> *mut T {
    std::ptr::with_exposed_provenance_mut(word)
}

fn long<N: Into<c_long>>(result: N) -> c_long {
    result.into()
}

pub(crate) unsafe fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let mask = int(d).cast_unsigned();
    // SAFETY: the program's call, whose arguments mean the same to the function as to the number.
    unsafe {
        match number {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => long(files::open(pointer(a), int(b), int(c).cast_unsigned())),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => long(status::stat(pointer(a), pointer(b))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lstat => long(status::lstat(pointer(a), pointer(b))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_access => long(files::access(pointer(a), int(b))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink => size(files::readlink(pointer(a), pointer(b), c)),
            libc::SYS_openat => long(files::openat(int(a), pointer(b), int(c), mask)),
            libc::SYS_newfstatat => long(status::fstatat(int(a), pointer(b), pointer(c), int(d))),
            libc::SYS_fstat => long(status::fstat(int(a), pointer(b))),
            libc::SYS_statx => long(status::statx(int(a), pointer(b), int(c), mask, pointer(e))),
            libc::SYS_faccessat => long(files::faccessat(int(a), pointer(b), int(c), 0)),
            libc::SYS_faccessat2 => long(files::faccessat(int(a), pointer(b), int(c), int(d))),
            libc::SYS_readlinkat => size(files::readlinkat(int(a), pointer(b), pointer(c), d)),
            libc::SYS_chdir => long(files::chdir(pointer(a))),
            libc::SYS_fchdir => long(files::fchdir(int(a))),
            libc::SYS_connect => long(network::connect(int(a), pointer(b), int(c).cast_unsigned())),
            libc::SYS_getsockname => long(network::getsockname(int(a), pointer(b), pointer(c))),
            libc::SYS_getpeername => long(network::getpeername(int(a), pointer(b), pointer(c))),
            libc::SYS_execve => long(exec::execve(pointer(a), pointer(b), pointer(c))),
            libc::SYS_execveat => long(exec::execveat(int(a), pointer(b), pointer(c), pointer(d), int(e))),
            _ => original::syscall(number, a, b, c, d, e, f),
        }
    }
}

fn size(result: isize) -> c_long {
    c_long::try_from(result).unwrap_or(-1)
}
