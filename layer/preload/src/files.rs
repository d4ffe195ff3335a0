//! Shells of open, fopen, access, readlink and their kin.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    os::fd::{AsRawFd, IntoRawFd},
};

use libc::{FILE, mode_t};
use mirrord_layer_brain::{
    layer::{Handled, Instead},
    sys::{self, Errno},
};

use crate::{
    front::{ask, at, settle},
    table::original,
};

const HERE: c_int = libc::AT_FDCWD;

/// open, openat and their twins: asks the layer, else calls the original with folder and path.
///
/// # Safety
/// `path` is null or NUL-terminated.
unsafe fn open_with(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    original: impl FnOnce(c_int, *const c_char) -> c_int,
) -> c_int {
    // SAFETY: the caller's duty.
    let handled = ask(|layer| layer.open(unsafe { at(folder, path) }?, flags));
    settle(handled, (folder, path), IntoRawFd::into_raw_fd, original)
}

/// The twins of open and openat: same shell, each with its own original.
macro_rules! openers {
    ($($name:ident($($mode:ident)?), at $at:ident($($at_mode:ident)?);)*) => { $(
        pub(crate) unsafe fn $name(path: *const c_char, flags: c_int $(, $mode: mode_t)?) -> c_int {
            // SAFETY: the program's call, as it is.
            let original = |_, path| unsafe { original::$name(path, flags $(, $mode)?) };
            // SAFETY: the program promises a NUL-terminated path.
            unsafe { open_with(HERE, path, flags, original) }
        }

        pub(crate) unsafe fn $at(folder: c_int, path: *const c_char, flags: c_int $(, $at_mode: mode_t)?) -> c_int {
            // SAFETY: the program's call, or one with an absolute path instead.
            let original = |folder, path| unsafe { original::$at(folder, path, flags $(, $at_mode)?) };
            // SAFETY: the program promises a NUL-terminated path.
            unsafe { open_with(folder, path, flags, original) }
        }
    )* };
}

openers! {
    open(mode), at openat(mode);
    open64(mode), at openat64(mode);
    __open_2(), at __openat_2();
    __open64_2(), at __openat64_2();
}

const CREATES: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;

pub(crate) unsafe fn creat(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the program's call; it promises a NUL-terminated path.
    unsafe { open_with(HERE, path, CREATES, |_, path| original::creat(path, mode)) }
}

pub(crate) unsafe fn creat64(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the program's call; it promises a NUL-terminated path.
    unsafe { open_with(HERE, path, CREATES, |_, path| original::creat64(path, mode)) }
}

/// What fopen(3) passes to open(2) for a mode like `r`, `w+` or `rbe`.
fn stream_flags(mode: &CStr) -> c_int {
    let letters = mode.to_bytes();
    let letters = &letters[..letters.iter().position(|letter| *letter == b',').unwrap_or(letters.len())];
    let base = match letters.first() {
        Some(b'w') => libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
        Some(b'a') => libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND,
        _ => libc::O_RDONLY,
    };
    let has = |letter: u8| letters.contains(&letter);
    let both = if has(b'+') { base & !libc::O_ACCMODE | libc::O_RDWR } else { base };
    let closing = if has(b'e') { libc::O_CLOEXEC } else { 0 };
    both | closing | if has(b'x') { libc::O_EXCL } else { 0 }
}

/// # Safety
/// Both are null or NUL-terminated.
unsafe fn open_stream(path: *const c_char, mode: *const c_char) -> Handled<std::os::fd::OwnedFd> {
    if mode.is_null() {
        return Err(Instead::Local);
    }
    // SAFETY: the caller's duty.
    let flags = stream_flags(unsafe { CStr::from_ptr(mode) });
    // SAFETY: the caller's duty.
    ask(|layer| layer.open(unsafe { at(HERE, path) }?, flags))
}

fn no_stream(Errno(errno): Errno) -> *mut FILE {
    sys::set_errno(errno);
    std::ptr::null_mut()
}

/// The twins of fopen and freopen: same shell, each with its own original.
macro_rules! streams {
    ($($open:ident, $reopen:ident;)*) => { $(
        pub(crate) unsafe fn $open(path: *const c_char, mode: *const c_char) -> *mut FILE {
            // SAFETY: the program promises NUL-terminated strings.
            match unsafe { open_stream(path, mode) } {
                // SAFETY: the mode is the program's; the stream takes the descriptor over.
                Ok(descriptor) => unsafe { libc::fdopen(descriptor.into_raw_fd(), mode) },
                Err(Instead::Fail(errno)) => no_stream(errno),
                // SAFETY: the program's call, as it is.
                Err(_) => unsafe { original::$open(path, mode) },
            }
        }

        pub(crate) unsafe fn $reopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
            // SAFETY: the program promises NUL-terminated strings, or a null path.
            match unsafe { open_stream(path, mode) } {
                Ok(descriptor) => {
                    // Opens the same memfd once more, under the stream's own number.
                    let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
                    let Ok(link) = CString::new(link) else { return no_stream(Errno(libc::EINVAL)) };
                    // SAFETY: mode and stream are the program's, the path is ours and NUL-terminated.
                    unsafe { original::$reopen(link.as_ptr(), mode, stream) }
                }
                Err(Instead::Fail(errno)) => no_stream(errno),
                // SAFETY: the program's call, as it is.
                Err(_) => unsafe { original::$reopen(path, mode, stream) },
            }
        }
    )* };
}

streams! {
    fopen, freopen;
    fopen64, freopen64;
}

/// # Safety
/// `path` is null or NUL-terminated.
unsafe fn access_with(
    (folder, path): (c_int, *const c_char),
    (mode, flags): (c_int, c_int),
    original: impl FnOnce(c_int, *const c_char) -> c_int,
) -> c_int {
    // SAFETY: the caller's duty.
    let handled = ask(|layer| layer.access(unsafe { at(folder, path) }?, mode, flags));
    settle(handled, (folder, path), |()| 0, original)
}

pub(crate) unsafe fn access(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: the program's call; it promises a NUL-terminated path.
    unsafe { access_with((HERE, path), (mode, 0), |_, path| original::access(path, mode)) }
}

pub(crate) unsafe fn faccessat(folder: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int {
    // SAFETY: the program's call, or one with an absolute path instead; it promises a NUL-terminated path.
    unsafe {
        access_with((folder, path), (mode, flags), |folder, path| {
            original::faccessat(folder, path, mode, flags)
        })
    }
}

pub(crate) unsafe fn euidaccess(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: the program's call; it promises a NUL-terminated path.
    unsafe { access_with((HERE, path), (mode, libc::AT_EACCESS), |_, path| original::euidaccess(path, mode)) }
}

pub(crate) unsafe fn eaccess(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: the program's call; it promises a NUL-terminated path.
    unsafe { access_with((HERE, path), (mode, libc::AT_EACCESS), |_, path| original::eaccess(path, mode)) }
}

/// # Safety
/// `path` is null or NUL-terminated; `size` bytes can be written to `buffer`.
unsafe fn read_link_with(
    (folder, path): (c_int, *const c_char),
    (buffer, size): (*mut c_char, usize),
    original: impl FnOnce(c_int, *const c_char) -> isize,
) -> isize {
    // SAFETY: the caller's duty.
    let handled = ask(|layer| match size {
        0 => Err(Instead::Local),
        // SAFETY: the caller's duty.
        _ => layer.read_link(unsafe { at(folder, path) }?),
    });
    let copy = |target: Vec<u8>| {
        let count = target.len().min(size);
        // SAFETY: `count` bytes are in `target`, and fit into the program's buffer.
        unsafe { std::ptr::copy_nonoverlapping(target.as_ptr(), buffer.cast(), count) };
        count.cast_signed()
    };
    settle(handled, (folder, path), copy, original)
}

pub(crate) unsafe fn readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize {
    // SAFETY: the program's call; it promises a NUL-terminated path and room for `size` bytes.
    unsafe { read_link_with((HERE, path), (buffer, size), |_, path| original::readlink(path, buffer, size)) }
}

pub(crate) unsafe fn readlinkat(
    folder: c_int,
    path: *const c_char,
    buffer: *mut c_char,
    size: usize,
) -> isize {
    // SAFETY: as in `readlink`.
    unsafe {
        read_link_with((folder, path), (buffer, size), |folder, path| {
            original::readlinkat(folder, path, buffer, size)
        })
    }
}

pub(crate) unsafe fn __readlink_chk(
    path: *const c_char,
    buffer: *mut c_char,
    size: usize,
    room: usize,
) -> isize {
    // SAFETY: as in `readlink`; where `size` exceeds `room` the original aborts, so it is asked at once.
    unsafe {
        read_link_with((HERE, path), (buffer, if size > room { 0 } else { size }), |_, path| {
            original::__readlink_chk(path, buffer, size, room)
        })
    }
}

pub(crate) unsafe fn __readlinkat_chk(
    folder: c_int,
    path: *const c_char,
    buffer: *mut c_char,
    size: usize,
    room: usize,
) -> isize {
    // SAFETY: as in `__readlink_chk`.
    unsafe {
        read_link_with((folder, path), (buffer, if size > room { 0 } else { size }), |folder, path| {
            original::__readlinkat_chk(folder, path, buffer, size, room)
        })
    }
}

/// # Safety
/// `path` is null or NUL-terminated; `out` is null or takes `PATH_MAX` bytes.
unsafe fn real_path_with(
    path: *const c_char,
    out: *mut c_char,
    original: impl FnOnce() -> *mut c_char,
) -> *mut c_char {
    // SAFETY: the caller's duty.
    match ask(|layer| layer.real_path(unsafe { at(HERE, path) }?)) {
        Ok(found) if out.is_null() => {
            // SAFETY: the name is NUL-terminated by its type; the program frees the copy.
            unsafe { libc::strdup(found.as_ptr()) }
        }
        Ok(found) => {
            // SAFETY: a real path has less than PATH_MAX bytes, for which the program promises room.
            unsafe { libc::strcpy(out, found.as_ptr()) }
        }
        Err(Instead::Fail(Errno(errno))) => {
            sys::set_errno(errno);
            std::ptr::null_mut()
        }
        Err(_) => original(),
    }
}

pub(crate) unsafe fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char {
    // SAFETY: the program's call, with its promises.
    unsafe { real_path_with(path, out, || original::realpath(path, out)) }
}

pub(crate) unsafe fn __realpath_chk(path: *const c_char, out: *mut c_char, room: usize) -> *mut c_char {
    if room < libc::PATH_MAX as usize {
        // SAFETY: the program's call, which ends it.
        return unsafe { original::__realpath_chk(path, out, room) };
    }
    // SAFETY: the program's call, with its promises.
    unsafe { real_path_with(path, out, || original::__realpath_chk(path, out, room)) }
}

pub(crate) unsafe fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
    // SAFETY: the program's call, with its promises.
    unsafe { real_path_with(path, std::ptr::null_mut(), || original::canonicalize_file_name(path)) }
}

/// # Safety
/// `path` is null or NUL-terminated.
unsafe fn attribute_with(path: *const c_char, original: impl FnOnce() -> isize) -> isize {
    // SAFETY: the caller's duty.
    let handled = ask(|layer| layer.no_attributes(unsafe { at(HERE, path) }?));
    settle(handled, (HERE, path), |never| match never {}, |_, _| original())
}

pub(crate) unsafe fn getxattr(
    path: *const c_char,
    name: *const c_char,
    value: *mut c_void,
    size: usize,
) -> isize {
    // SAFETY: the program's call; it promises a NUL-terminated path.
    unsafe { attribute_with(path, || original::getxattr(path, name, value, size)) }
}

pub(crate) unsafe fn lgetxattr(
    path: *const c_char,
    name: *const c_char,
    value: *mut c_void,
    size: usize,
) -> isize {
    // SAFETY: as in `getxattr`.
    unsafe { attribute_with(path, || original::lgetxattr(path, name, value, size)) }
}

pub(crate) unsafe fn listxattr(path: *const c_char, list: *mut c_char, size: usize) -> isize {
    // SAFETY: as in `getxattr`.
    unsafe { attribute_with(path, || original::listxattr(path, list, size)) }
}

pub(crate) unsafe fn llistxattr(path: *const c_char, list: *mut c_char, size: usize) -> isize {
    // SAFETY: as in `getxattr`.
    unsafe { attribute_with(path, || original::llistxattr(path, list, size)) }
}

/// Makes a call that changes the working folder. Said before and after: in between, another thread may have looked.
fn changing_folder(call: impl FnOnce() -> c_int) -> c_int {
    let layer = crate::front::layer();
    layer.inspect(|layer| layer.folder_changed());
    let result = call();
    layer.inspect(|layer| layer.folder_changed());
    result
}

pub(crate) unsafe fn chdir(path: *const c_char) -> c_int {
    // SAFETY: the program's call, as it is.
    changing_folder(|| unsafe { original::chdir(path) })
}

pub(crate) unsafe fn fchdir(folder: c_int) -> c_int {
    // SAFETY: the program's call, as it is.
    changing_folder(|| unsafe { original::fchdir(folder) })
}
