//! Shells of the calls that change what a path names: mkdir, unlink, rename, chmod and their kin.
//!
//! The pod's files are read-only in this release. Such a call on a remote path fails with EROFS, as it would on a
//! read-only mount; made locally it would change a file of this machine that the program doesn't mean.

use std::ffi::{c_char, c_int, c_uint};

use libc::{dev_t, gid_t, mode_t, off_t, off64_t, timespec, timeval, uid_t, utimbuf};
use mirrord_layer_brain::layer::{Handled, Instead};

use crate::{
    front::{ask, at, settle},
    table::original,
};

const HERE: c_int = libc::AT_FDCWD;

/// A change of one path.
///
/// # Safety
/// `path` is null or NUL-terminated.
unsafe fn change(
    folder: c_int,
    path: *const c_char,
    original: impl FnOnce(c_int, *const c_char) -> c_int,
) -> c_int {
    // SAFETY: the caller's duty.
    let handled = ask(|layer| layer.change(unsafe { at(folder, path) }?));
    settle(handled, (folder, path), |never| match never {}, original)
}

/// A change of two paths: refused where either is remote.
///
/// # Safety
/// Both paths are null or NUL-terminated.
unsafe fn change_both(
    (from_folder, from): (c_int, *const c_char),
    (to_folder, to): (c_int, *const c_char),
    original: impl FnOnce(c_int, *const c_char, c_int, *const c_char) -> c_int,
) -> c_int {
    // SAFETY: the caller's duty.
    let first: Handled<std::convert::Infallible> =
        ask(|layer| layer.change(unsafe { at(from_folder, from) }?));
    match first {
        Err(Instead::LocalAt(from)) => {
            // SAFETY: the caller's duty.
            unsafe { change(to_folder, to, |folder, to| original(HERE, from.as_ptr(), folder, to)) }
        }
        Err(Instead::Local) => {
            // SAFETY: the caller's duty.
            unsafe { change(to_folder, to, |folder, to| original(from_folder, from, folder, to)) }
        }
        refused => settle(refused, (from_folder, from), |never| match never {}, |_, _| -1),
    }
}

/// Calls that take a path, or a folder and a path, and then what doesn't matter here.
macro_rules! changes {
    (paths { $($name:ident($($argument:ident: $type:ty),*);)* } folders { $($at:ident($($at_argument:ident: $at_type:ty),*);)* }) => {
        $(
            pub(crate) unsafe fn $name(path: *const c_char $(, $argument: $type)*) -> c_int {
                // SAFETY: the program's call; it promises a NUL-terminated path.
                unsafe { change(HERE, path, |_, path| original::$name(path $(, $argument)*)) }
            }
        )*
        $(
            pub(crate) unsafe fn $at(folder: c_int, path: *const c_char $(, $at_argument: $at_type)*) -> c_int {
                // SAFETY: the program's call; it promises a NUL-terminated path.
                unsafe { change(folder, path, |folder, path| original::$at(folder, path $(, $at_argument)*)) }
            }
        )*
    };
}

changes! {
    paths {
        mkdir(mode: mode_t);
        rmdir();
        unlink();
        remove();
        chmod(mode: mode_t);
        chown(owner: uid_t, group: gid_t);
        lchown(owner: uid_t, group: gid_t);
        truncate(length: off_t);
        truncate64(length: off64_t);
        mknod(mode: mode_t, device: dev_t);
        mkfifo(mode: mode_t);
        utime(times: *const utimbuf);
        utimes(times: *const timeval);
        lutimes(times: *const timeval);
    }
    folders {
        mkdirat(mode: mode_t);
        unlinkat(flags: c_int);
        fchmodat(mode: mode_t, flags: c_int);
        fchownat(owner: uid_t, group: gid_t, flags: c_int);
        mknodat(mode: mode_t, device: dev_t);
        mkfifoat(mode: mode_t);
        utimensat(times: *const timespec, flags: c_int);
    }
}

/// Calls that make a name from a template and create it. glibc opens inside, where no hook sees it.
macro_rules! scratch {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => { $(
        pub(crate) unsafe fn $name(template: *mut c_char $(, $argument: $type)*) -> c_int {
            // SAFETY: the program's call; it promises a NUL-terminated template, which the original writes to.
            unsafe { change(HERE, template, |_, _| original::$name(template $(, $argument)*)) }
        }
    )* };
}

scratch! {
    mkstemp();
    mkstemp64();
    mkostemp(flags: c_int);
    mkstemps(suffix: c_int);
    mkostemps(suffix: c_int, flags: c_int);
}

pub(crate) unsafe fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the program's call; it promises NUL-terminated paths.
    unsafe { change_both((HERE, from), (HERE, to), |_, from, _, to| original::rename(from, to)) }
}

pub(crate) unsafe fn renameat(
    from_folder: c_int,
    from: *const c_char,
    to_folder: c_int,
    to: *const c_char,
) -> c_int {
    // SAFETY: the program's call; it promises NUL-terminated paths.
    unsafe {
        change_both((from_folder, from), (to_folder, to), |a, from, b, to| original::renameat(a, from, b, to))
    }
}

pub(crate) unsafe fn renameat2(
    from_folder: c_int,
    from: *const c_char,
    to_folder: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    // SAFETY: the program's call; it promises NUL-terminated paths.
    unsafe {
        change_both((from_folder, from), (to_folder, to), |a, from, b, to| {
            original::renameat2(a, from, b, to, flags)
        })
    }
}

pub(crate) unsafe fn link(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the program's call; it promises NUL-terminated paths.
    unsafe { change_both((HERE, from), (HERE, to), |_, from, _, to| original::link(from, to)) }
}

pub(crate) unsafe fn linkat(
    from_folder: c_int,
    from: *const c_char,
    to_folder: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: the program's call; it promises NUL-terminated paths.
    unsafe {
        change_both((from_folder, from), (to_folder, to), |a, from, b, to| {
            original::linkat(a, from, b, to, flags)
        })
    }
}

pub(crate) unsafe fn symlink(target: *const c_char, path: *const c_char) -> c_int {
    // SAFETY: the program's call; it promises NUL-terminated texts. The target is only text.
    unsafe { change(HERE, path, |_, path| original::symlink(target, path)) }
}

pub(crate) unsafe fn symlinkat(target: *const c_char, folder: c_int, path: *const c_char) -> c_int {
    // SAFETY: the program's call; it promises NUL-terminated texts. The target is only text.
    unsafe { change(folder, path, |folder, path| original::symlinkat(target, folder, path)) }
}
