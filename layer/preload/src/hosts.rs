//! Shells of gethostbyname and its kin, which POSIX dropped in 2008 and programs didn't.
//!
//! The answer is one structure whose parts lie in one buffer: the caller's, or (as libc does it) one that all callers of
//! the elder functions share.
//!
//! ```text
//! alias list: null ‖ address list: pointers, null ‖ addresses ‖ name, NUL
//! ```

use std::{
    cell::UnsafeCell,
    ffi::{CStr, CString, c_char, c_int},
    net::IpAddr,
    ptr::null_mut,
};

use libc::hostent;
use mirrord_layer_brain::{
    names::{NoAddress, Question},
    sys::{self, Errno},
};

use crate::{
    front::{ask_value, layer},
    names::is_number,
    table::original,
};

/// Codes of `h_errno`, netdb.h.
const HOST_NOT_FOUND: c_int = 1;
const TRY_AGAIN: c_int = 2;
const NO_RECOVERY: c_int = 3;
const NETDB_INTERNAL: c_int = -1;

/// What a name resolved to.
struct Host {
    name: CString,
    family: c_int,
    addresses: Vec<IpAddr>,
}

/// Why there is no host to build.
enum NoHost {
    Local,
    Code(c_int),
}

/// # Safety
/// `name` is null or NUL-terminated.
unsafe fn resolve(name: *const c_char, family: c_int) -> Result<Host, NoHost> {
    if name.is_null() || layer().is_none() || ![libc::AF_INET, libc::AF_INET6].contains(&family) {
        return Err(NoHost::Local);
    }
    // SAFETY: the caller's duty.
    let asked = unsafe { CStr::from_ptr(name) };
    if is_number(asked) {
        return Err(NoHost::Local);
    }
    let question = Question { name: asked, family, flags: libc::AI_CANONNAME };
    match ask_value(NoAddress::Local, |layer| layer.resolve(question)) {
        Ok(found) => {
            let name =
                found.canonical.and_then(|name| CString::new(name).ok()).unwrap_or_else(|| asked.to_owned());
            Ok(Host { name, family, addresses: found.addresses })
        }
        Err(NoAddress::Local) => Err(NoHost::Local),
        Err(NoAddress::Code(code)) => Err(NoHost::Code(match code {
            libc::EAI_AGAIN => TRY_AGAIN,
            libc::EAI_FAIL => NO_RECOVERY,
            _ => HOST_NOT_FOUND,
        })),
        Err(NoAddress::System(Errno(errno))) => {
            sys::set_errno(errno);
            Err(NoHost::Code(NETDB_INTERNAL))
        }
    }
}

/// A buffer that is filled from its start.
struct Room {
    next: *mut u8,
    left: usize,
}

impl Room {
    /// `size` bytes, aligned for pointers; `None` where they don't fit.
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        let gap = self.next.align_offset(align_of::<*mut c_char>());
        let whole = gap.checked_add(size)?;
        self.left = self.left.checked_sub(whole)?;
        let place = self.next.wrapping_add(gap);
        self.next = self.next.wrapping_add(whole);
        Some(place)
    }
}

impl Host {
    /// Writes the structure and its parts; `None` where there is too little room.
    ///
    /// # Safety
    /// `entry` takes a structure, and the room is writable.
    unsafe fn write(&self, entry: *mut hostent, mut room: Room) -> Option<()> {
        let size: usize = if self.family == libc::AF_INET { 4 } else { 16 };
        let addresses = self.addresses.iter().filter(|address| address.is_ipv4() == (size == 4));
        let count = addresses.clone().count();
        let pointer = size_of::<*mut c_char>();
        let aliases: *mut *mut c_char = room.take(pointer)?.cast();
        let list: *mut *mut c_char = room.take((count + 1) * pointer)?.cast();
        let bytes = room.take(count * size)?;
        let name = room.take(self.name.as_bytes_with_nul().len())?;
        // SAFETY: `take` gave room for one pointer.
        unsafe { aliases.write(null_mut()) };
        for (index, address) in addresses.enumerate() {
            let place = bytes.wrapping_add(index * size);
            let octets = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets()[12..].to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            // SAFETY: `take` gave room for `count` addresses of `size` bytes.
            unsafe { std::ptr::copy_nonoverlapping(octets.as_ptr(), place, size) };
            // SAFETY: `take` gave room for `count` pointers and a null.
            unsafe { list.add(index).write(place.cast()) };
        }
        // SAFETY: as above.
        unsafe { list.add(count).write(null_mut()) };
        let text = self.name.as_bytes_with_nul();
        // SAFETY: `take` gave room for the name with its NUL.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), name, text.len()) };
        let host = hostent {
            h_name: name.cast(),
            h_aliases: aliases,
            h_addrtype: self.family,
            h_length: if size == 4 { 4 } else { 16 },
            h_addr_list: list,
        };
        // SAFETY: the caller's duty.
        unsafe { entry.write(host) };
        Some(())
    }
}

const SHARED_BYTES: usize = 8 * 1024;

/// What the elder functions' callers share, as POSIX.1-2001 allowed.
#[repr(C, align(16))]
struct Shared {
    entry: UnsafeCell<hostent>,
    bytes: UnsafeCell<[u8; SHARED_BYTES]>,
}

// SAFETY: gethostbyname(3) is not thread-safe, as its page says: callers see to it that one at a time uses it.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared {
    entry: UnsafeCell::new(hostent {
        h_name: null_mut(),
        h_aliases: null_mut(),
        h_addrtype: 0,
        h_length: 0,
        h_addr_list: null_mut(),
    }),
    bytes: UnsafeCell::new([0; SHARED_BYTES]),
};

unsafe extern "C" {
    /// The thread's `h_errno`, netdb.h.
    fn __h_errno_location() -> *mut c_int;
}

/// # Safety
/// `name` is null or NUL-terminated.
unsafe fn shared(
    name: *const c_char,
    family: c_int,
    original: impl FnOnce() -> *mut hostent,
) -> *mut hostent {
    // SAFETY: the caller's duty.
    let code = match unsafe { resolve(name, family) } {
        Ok(host) => {
            let room = Room { next: SHARED.bytes.get().cast(), left: SHARED_BYTES };
            // SAFETY: the shared structure and buffer, which only one caller at a time uses.
            match unsafe { host.write(SHARED.entry.get(), room) } {
                Some(()) => return SHARED.entry.get(),
                None => NO_RECOVERY,
            }
        }
        Err(NoHost::Local) => return original(),
        Err(NoHost::Code(code)) => code,
    };
    // SAFETY: glibc gives the thread's own place.
    unsafe { __h_errno_location().write(code) };
    null_mut()
}

pub(crate) unsafe fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: the program's call; it promises a NUL-terminated name.
    unsafe { shared(name, libc::AF_INET, || original::gethostbyname(name)) }
}

pub(crate) unsafe fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: the program's call; it promises a NUL-terminated name.
    unsafe { shared(name, family, || original::gethostbyname2(name, family)) }
}

/// Where the younger functions leave their answer.
#[derive(Clone, Copy)]
struct Places {
    entry: *mut hostent,
    buffer: *mut c_char,
    size: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
}

/// # Safety
/// `name` is null or NUL-terminated, the places are writable.
unsafe fn own(name: *const c_char, family: c_int, to: Places, original: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: the caller's duty.
    let (answer, code, found) = match unsafe { resolve(name, family) } {
        Ok(host) => {
            let room = Room { next: to.buffer.cast(), left: to.size };
            // SAFETY: the caller's duty.
            match unsafe { host.write(to.entry, room) } {
                Some(()) => (0, 0, to.entry),
                None => (libc::ERANGE, NETDB_INTERNAL, null_mut()),
            }
        }
        Err(NoHost::Local) => return original(),
        Err(NoHost::Code(NETDB_INTERNAL)) => (sys::errno(), NETDB_INTERNAL, null_mut()),
        // As glibc: no error of the call, but no result.
        Err(NoHost::Code(code)) => (0, code, null_mut()),
    };
    // SAFETY: the caller's duty.
    unsafe { to.result.write(found) };
    // SAFETY: the caller's duty.
    unsafe { to.error.write(code) };
    answer
}

pub(crate) unsafe fn gethostbyname_r(
    name: *const c_char,
    entry: *mut hostent,
    buffer: *mut c_char,
    size: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    let to = Places { entry, buffer, size, result, error };
    // SAFETY: the program's call, with its promises.
    unsafe {
        own(name, libc::AF_INET, to, || original::gethostbyname_r(name, entry, buffer, size, result, error))
    }
}

pub(crate) unsafe fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    entry: *mut hostent,
    buffer: *mut c_char,
    size: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    let to = Places { entry, buffer, size, result, error };
    // SAFETY: the program's call, with its promises.
    unsafe {
        own(name, family, to, || original::gethostbyname2_r(name, family, entry, buffer, size, result, error))
    }
}
