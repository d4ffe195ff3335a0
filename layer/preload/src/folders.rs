//! Shells of opendir, readdir and their kin.
//!
//! A `DIR` is opaque, so ours can be what we like: the address of a slot in [`STREAMS`]. One look at the address tells
//! ours from libc's.

use std::{
    ffi::{c_char, c_int, c_long, c_void},
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
    front::{ask, at, layer, settle},
    table::original,
};

/// How many remote folders a process can read at once.
const SLOTS: usize = 1024;

/// How a folder is opened to be read.
const READS: c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;

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
    // SAFETY: the program promises a NUL-terminated path.
    let opened = ask(|layer| layer.open(unsafe { at(libc::AT_FDCWD, path) }?, READS));
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

/// Which entries scandir(3) keeps.
pub(crate) type Filter<E> = unsafe extern "C" fn(*const E) -> c_int;
/// In which order.
pub(crate) type Compare<E> = unsafe extern "C" fn(*mut *const E, *mut *const E) -> c_int;

/// A list as scandir(3) gives it: the program frees each entry and the list.
struct Entries {
    list: Vec<*mut c_void>,
}

impl Drop for Entries {
    fn drop(&mut self) {
        for entry in self.list.drain(..) {
            // SAFETY: malloc(3) gave it, and it is in no other list.
            unsafe { libc::free(entry) };
        }
    }
}

impl Entries {
    /// All entries of a stream that `keep` wants, copied.
    fn read(stream: &mut Stream, keep: impl Fn(*const u8) -> bool) -> Option<Self> {
        let mut entries = Self { list: Vec::new() };
        while let Some(entry) = stream.next_entry() {
            if !keep(entry.as_ptr()) {
                continue;
            }
            // SAFETY: malloc(3) takes any size.
            let copy = unsafe { libc::malloc(ENTRY_BYTES) };
            if copy.is_null() {
                return None;
            }
            // SAFETY: ENTRY_BYTES can be read of every entry of a stream, and written to what was just allocated.
            unsafe { std::ptr::copy_nonoverlapping(entry.as_ptr(), copy.cast(), ENTRY_BYTES) };
            entries.list.push(copy);
        }
        Some(entries)
    }

    /// As an array of malloc(3), whose owner the program is from now on.
    fn into_array(mut self) -> Option<(*mut *mut c_void, usize)> {
        let count = self.list.len();
        // SAFETY: malloc(3) takes any size; of 0 it may give null, hence one more.
        let array: *mut *mut c_void = unsafe { libc::malloc((count + 1) * size_of::<*mut c_void>()) }.cast();
        if array.is_null() {
            return None;
        }
        // SAFETY: the array has room for `count` pointers.
        unsafe { std::ptr::copy_nonoverlapping(self.list.as_ptr(), array, count) };
        self.list.clear();
        Some((array, count))
    }
}

/// scandir, of a folder that was opened.
fn scan(
    descriptor: OwnedFd,
    keep: impl Fn(*const u8) -> bool,
    sort: impl FnOnce(*mut c_void, usize),
) -> Result<(*mut *mut c_void, c_int), Errno> {
    let mut stream = Stream::new(descriptor).map_err(|(errno, _)| errno)?;
    let entries = Entries::read(&mut stream, keep).ok_or(Errno(libc::ENOMEM))?;
    let (array, count) = entries.into_array().ok_or(Errno(libc::ENOMEM))?;
    sort(array.cast(), count);
    Ok((array, c_int::try_from(count).map_err(|_| Errno(libc::EOVERFLOW))?))
}

/// The twins of scandir: same shell, each with its own original.
macro_rules! scanners {
    ($($scan:ident, $entry:ident;)*) => { $(
        pub(crate) unsafe fn $scan(
            path: *const c_char,
            list: *mut *mut *mut $entry,
            filter: Option<Filter<$entry>>,
            compare: Option<Compare<$entry>>,
        ) -> c_int {
            // SAFETY: the program promises a NUL-terminated path.
            let opened = ask(|layer| layer.open(unsafe { at(libc::AT_FDCWD, path) }?, READS));
            // SAFETY: the program's filter, called with an entry.
            let keep = |entry: *const u8| filter.is_none_or(|filter| unsafe { filter(entry.cast()) } != 0);
            let sort = |array, count| {
                let Some(compare) = compare else { return };
                // SAFETY: qsort(3) hands on pointers into the array, which are what scandir(3) compares; both
                // types of function take two pointers.
                let compare = unsafe { std::mem::transmute::<Compare<$entry>, ByAddress>(compare) };
                // SAFETY: the array has `count` pointers.
                unsafe { libc::qsort(array, count, size_of::<*mut c_void>(), Some(compare)) };
            };
            let scanned = opened.and_then(|descriptor| Ok(scan(descriptor, keep, sort)?));
            settle(scanned, (libc::AT_FDCWD, path), |(array, count)| {
                // SAFETY: the program promises a place for the list.
                unsafe { list.write(array.cast()) };
                count
                // SAFETY: the program's call, as it is.
            }, |_, path| unsafe { original::$scan(path, list, filter, compare) })
        }
    )* };
}

/// What qsort(3) calls.
type ByAddress = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;

scanners! {
    scandir, dirent;
    scandir64, dirent64;
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
