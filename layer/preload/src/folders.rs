//! Shells of opendir, readdir and their kin.
//!
//! A `DIR` is opaque, so ours can be what we like: the address of a slot in [`STREAMS`]. One look at the address tells
//! ours from libc's.

use std::{
    ffi::{c_char, c_int, c_long},
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
    ptr::null_mut,
    sync::{Mutex, PoisonError},
};

use libc::{DIR, dirent, dirent64};
use mirrord_layer_brain::{
    layer::Instead,
    streams::{ENTRY_BYTES, Stream},
    sys::{self, Errno},
};

use crate::{
    front::{ask, at, layer},
    table::original,
};

/// How many remote folders a process can read at once.
const SLOTS: usize = 1024;

type Slot = Mutex<Option<Box<Stream>>>;

static STREAMS: [Slot; SLOTS] = [const { Mutex::new(None) }; SLOTS];

/// glibc's `struct dirent` is `struct dirent64` where `long` has 64 bits, and lies as the kernel's records.
const _: () = assert!(size_of::<dirent>() == size_of::<dirent64>() && size_of::<dirent>() == ENTRY_BYTES);
const _: () = assert!(std::mem::offset_of!(dirent64, d_name) == mirrord_layer_brain::listing::NAME_OFFSET);

/// Our slot behind a `DIR`; `None` where it is libc's.
fn slot(stream: *mut DIR) -> Option<&'static Slot> {
    let offset = stream.addr().wrapping_sub(STREAMS.as_ptr().addr());
    STREAMS.get(offset / size_of::<Slot>())
}

fn with<R>(slot: &Slot, operation: impl FnOnce(&mut Stream) -> R) -> Option<R> {
    let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
    held.as_deref_mut().map(operation)
}

fn no_stream(errno: c_int) -> *mut DIR {
    sys::set_errno(errno);
    null_mut()
}

/// Keeps a stream in a free slot.
fn keep(stream: Stream) -> *mut DIR {
    let mut stream = Some(Box::new(stream));
    for slot in &STREAMS {
        if let Ok(mut held) = slot.try_lock().map_err(drop)
            && held.is_none()
        {
            *held = stream.take();
            return std::ptr::from_ref(slot).cast_mut().cast();
        }
    }
    no_stream(libc::EMFILE)
}

pub(crate) unsafe fn opendir(path: *const c_char) -> *mut DIR {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the program promises a NUL-terminated path.
    let opened = ask(|layer| layer.open(unsafe { at(libc::AT_FDCWD, path) }?, flags));
    match opened {
        Ok(descriptor) => Stream::new(descriptor).map_or_else(|(Errno(errno), _)| no_stream(errno), keep),
        Err(Instead::Fail(Errno(errno))) => no_stream(errno),
        // SAFETY: the program's call, as it is.
        Err(_) => unsafe { original::opendir(path) },
    }
}

pub(crate) unsafe fn fdopendir(descriptor: c_int) -> *mut DIR {
    if layer().and_then(|layer| layer.table.folder(descriptor)).is_none() {
        // SAFETY: the program's call, as it is.
        return unsafe { original::fdopendir(descriptor) };
    }
    // SAFETY: the program hands its descriptor over to the stream (fdopendir(3)).
    match Stream::new(unsafe { OwnedFd::from_raw_fd(descriptor) }) {
        Ok(stream) => keep(stream),
        Err((Errno(errno), descriptor)) => {
            let _: c_int = descriptor.into_raw_fd();
            no_stream(errno)
        }
    }
}

/// The next entry of a stream of ours, as a pointer into its listing.
fn next_entry(slot: &Slot) -> *mut u8 {
    with(slot, |stream| stream.next_entry().map(|entry| entry.as_ptr().cast_mut()))
        .flatten()
        .unwrap_or(null_mut())
}

/// The twins of readdir: same shells, each with its own original.
macro_rules! twins {
    ($($read:ident, $read_r:ident, $entry:ident;)*) => { $(
        pub(crate) unsafe fn $read(stream: *mut DIR) -> *mut $entry {
            match slot(stream) {
                Some(slot) => next_entry(slot).cast(),
                // SAFETY: the program's call, as it is.
                None => unsafe { original::$read(stream) },
            }
        }

        pub(crate) unsafe fn $read_r(stream: *mut DIR, entry: *mut $entry, result: *mut *mut $entry) -> c_int {
            let Some(slot) = slot(stream) else {
                // SAFETY: the program's call, as it is.
                return unsafe { original::$read_r(stream, entry, result) };
            };
            let next: *mut $entry = next_entry(slot).cast();
            let found = if next.is_null() { null_mut() } else { entry };
            if !next.is_null() {
                // SAFETY: ENTRY_BYTES can be read of every entry of a stream, and written to the program's place.
                unsafe { std::ptr::copy_nonoverlapping(next.cast::<u8>(), entry.cast::<u8>(), ENTRY_BYTES) };
            }
            // SAFETY: the program promises a place for the result.
            unsafe { result.write(found) };
            0
        }
    )* };
}

twins! {
    readdir, readdir_r, dirent;
    readdir64, readdir64_r, dirent64;
}

pub(crate) unsafe fn closedir(stream: *mut DIR) -> c_int {
    let Some(slot) = slot(stream) else {
        // SAFETY: the program's call, as it is.
        return unsafe { original::closedir(stream) };
    };
    let closed = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    if closed.is_some() {
        0
    } else {
        sys::set_errno(libc::EBADF);
        -1
    }
}

pub(crate) unsafe fn rewinddir(stream: *mut DIR) {
    match slot(stream) {
        Some(slot) => _ = with(slot, |stream| stream.seek(0)),
        // SAFETY: the program's call, as it is.
        None => unsafe { original::rewinddir(stream) },
    }
}

pub(crate) unsafe fn telldir(stream: *mut DIR) -> c_long {
    match slot(stream) {
        Some(slot) => with(slot, |stream| c_long::try_from(stream.position()).unwrap_or(-1)).unwrap_or(-1),
        // SAFETY: the program's call, as it is.
        None => unsafe { original::telldir(stream) },
    }
}

pub(crate) unsafe fn seekdir(stream: *mut DIR, position: c_long) {
    match slot(stream) {
        Some(slot) => _ = with(slot, |stream| stream.seek(usize::try_from(position).unwrap_or(usize::MAX))),
        // SAFETY: the program's call, as it is.
        None => unsafe { original::seekdir(stream, position) },
    }
}

pub(crate) unsafe fn dirfd(stream: *mut DIR) -> c_int {
    match slot(stream) {
        Some(slot) => with(slot, |stream| stream.number()).unwrap_or(-1),
        // SAFETY: the program's call, as it is.
        None => unsafe { original::dirfd(stream) },
    }
}
