//! Shells of stat, its kin and its twins.

use std::ffi::{c_char, c_int, c_uint};

use libc::AT_SYMLINK_NOFOLLOW;
use mirrord_layer_brain::{
    conversation::Attributes,
    files::{to_status, to_statx},
    sys::Status,
};

use crate::{
    front::{ask, at, layer, settle},
    table::original,
};

const HERE: c_int = libc::AT_FDCWD;

/// `struct stat64` is `struct stat` where `long` has 64 bits.
const _: () = assert!(size_of::<libc::stat64>() == size_of::<Status>());

/// # Safety
/// `path` is null or NUL-terminated; `out` takes a `struct stat`.
unsafe fn stat_with<S>(
    (folder, path, flags): (c_int, *const c_char, c_int),
    out: *mut S,
    original: impl FnOnce(c_int, *const c_char) -> c_int,
) -> c_int {
    // SAFETY: the caller's duty.
    let handled = ask(|layer| layer.stat(unsafe { at(folder, path) }?, flags));
    // SAFETY: the caller's duty.
    settle(handled, (folder, path), |found| unsafe { fill(out, &found) }, original)
}

/// # Safety
/// `out` takes a `struct stat`.
unsafe fn fill<S>(out: *mut S, attributes: &Attributes) -> c_int {
    // SAFETY: the caller's duty; both kinds of struct are the same.
    unsafe { out.cast::<Status>().write(to_status(attributes)) };
    0
}

/// fstat: the kernel first, who knows what the number is.
///
/// # Safety
/// `out` takes a `struct stat`, which `original` fills in where it answers 0.
unsafe fn fstat_with<S>(out: *mut S, original: impl FnOnce() -> c_int) -> c_int {
    let result = original();
    let Some(layer) = layer().filter(|layer| result == 0 && !layer.table.is_empty()) else { return result };
    // SAFETY: the kernel just filled it in, since the call succeeded.
    let known = layer.stat_known(unsafe { &*out.cast::<Status>() });
    // SAFETY: the caller's duty.
    known.map_or(result, |attributes| unsafe { fill(out, &attributes) })
}

/// The twins of stat: same shells, each with its own original.
macro_rules! twins {
    ($($kind:ident: $stat:ident $lstat:ident $fstat:ident $fstatat:ident;)*) => { $(
        pub(crate) unsafe fn $stat(path: *const c_char, out: *mut libc::$kind) -> c_int {
            // SAFETY: the program's call; it promises a NUL-terminated path and a place.
            unsafe { stat_with((HERE, path, 0), out, |_, path| original::$stat(path, out)) }
        }

        pub(crate) unsafe fn $lstat(path: *const c_char, out: *mut libc::$kind) -> c_int {
            // SAFETY: as above.
            unsafe { stat_with((HERE, path, AT_SYMLINK_NOFOLLOW), out, |_, path| original::$lstat(path, out)) }
        }

        pub(crate) unsafe fn $fstat(descriptor: c_int, out: *mut libc::$kind) -> c_int {
            // SAFETY: as above.
            unsafe { fstat_with(out, || original::$fstat(descriptor, out)) }
        }

        pub(crate) unsafe fn $fstatat(
            folder: c_int,
            path: *const c_char,
            out: *mut libc::$kind,
            flags: c_int,
        ) -> c_int {
            // SAFETY: as above; or the call with an absolute path instead.
            unsafe {
                stat_with((folder, path, flags), out, |folder, path| original::$fstatat(folder, path, out, flags))
            }
        }
    )* };
}

twins! {
    stat: stat lstat fstat fstatat;
    stat64: stat64 lstat64 fstat64 fstatat64;
}

/// As above, with the version of the struct that programs before glibc 2.33 pass; there is one on 64-bit machines.
macro_rules! old_twins {
    ($($kind:ident: $stat:ident $lstat:ident $fstat:ident $fstatat:ident;)*) => { $(
        pub(crate) unsafe fn $stat(version: c_int, path: *const c_char, out: *mut libc::$kind) -> c_int {
            // SAFETY: the program's call; it promises a NUL-terminated path and a place.
            unsafe { stat_with((HERE, path, 0), out, |_, path| original::$stat(version, path, out)) }
        }

        pub(crate) unsafe fn $lstat(version: c_int, path: *const c_char, out: *mut libc::$kind) -> c_int {
            // SAFETY: as above.
            unsafe {
                stat_with((HERE, path, AT_SYMLINK_NOFOLLOW), out, |_, path| original::$lstat(version, path, out))
            }
        }

        pub(crate) unsafe fn $fstat(version: c_int, descriptor: c_int, out: *mut libc::$kind) -> c_int {
            // SAFETY: as above.
            unsafe { fstat_with(out, || original::$fstat(version, descriptor, out)) }
        }

        pub(crate) unsafe fn $fstatat(
            version: c_int,
            folder: c_int,
            path: *const c_char,
            out: *mut libc::$kind,
            flags: c_int,
        ) -> c_int {
            // SAFETY: as above; or the call with an absolute path instead.
            unsafe {
                stat_with((folder, path, flags), out, |folder, path| {
                    original::$fstatat(version, folder, path, out, flags)
                })
            }
        }
    )* };
}

old_twins! {
    stat: __xstat __lxstat __fxstat __fxstatat;
    stat64: __xstat64 __lxstat64 __fxstat64 __fxstatat64;
}

pub(crate) unsafe fn statx(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    out: *mut libc::statx,
) -> c_int {
    // SAFETY: the program promises a NUL-terminated path.
    let handled = ask(|layer| layer.stat(unsafe { at(folder, path) }?, flags));
    let done = |attributes| {
        // SAFETY: the program promises a place for a `struct statx`.
        unsafe { out.write(to_statx(&attributes)) };
        0
    };
    settle(handled, (folder, path), done, |folder, path| {
        // SAFETY: the program's call, or one with an absolute path instead.
        unsafe { original::statx(folder, path, flags, mask, out) }
    })
}
