//! The shell of getaddrinfo.
//!
//! What a name means is the pod's to say; what structures a program gets is libc's. So a name's addresses are each put
//! through the original getaddrinfo as a number, which also looks up the service, and the lists are joined. glibc frees
//! a list node by node, so its freeaddrinfo(3) fits.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    net::IpAddr,
    ptr::null_mut,
};

use libc::addrinfo;
use mirrord_layer_brain::{
    names::{NoAddress, Question},
    sys::{self, Errno},
};

use crate::{front::ask_value, table::original};

/// What getaddrinfo(3) does without hints (glibc's default).
const DEFAULT_FLAGS: c_int = libc::AI_V4MAPPED | libc::AI_ADDRCONFIG;
/// Flags that are answered by the pod, or settled by it being asked.
const ANSWERED: c_int = libc::AI_CANONNAME | libc::AI_ADDRCONFIG | AI_IDN | AI_CANONIDN;
/// netdb.h of glibc.
const AI_IDN: c_int = 0x40;
const AI_CANONIDN: c_int = 0x80;

fn default_hints() -> addrinfo {
    addrinfo {
        ai_flags: DEFAULT_FLAGS,
        ai_family: libc::AF_UNSPEC,
        ai_socktype: 0,
        ai_protocol: 0,
        ai_addrlen: 0,
        ai_addr: null_mut(),
        ai_canonname: null_mut(),
        ai_next: null_mut(),
    }
}

pub(crate) unsafe fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    let local = || {
        // SAFETY: the program's call, as it is.
        unsafe { original::getaddrinfo(node, service, hints, result) }
    };
    if node.is_null() {
        return local();
    }
    // SAFETY: hints are null or a valid structure, the program promises.
    let wanted = unsafe { hints.as_ref() }.copied().unwrap_or_else(default_hints);
    // SAFETY: the program promises NUL-terminated strings.
    let name = unsafe { CStr::from_ptr(node) };
    if wanted.ai_flags & libc::AI_NUMERICHOST != 0 || crate::front::layer().is_none() {
        return local();
    }
    let as_number = addrinfo { ai_flags: wanted.ai_flags | libc::AI_NUMERICHOST, ..wanted };
    // SAFETY: the program's call with other hints, which are ours and valid.
    match unsafe { original::getaddrinfo(node, service, &raw const as_number, result) } {
        libc::EAI_NONAME => {}
        // A number, or a fault that has nothing to do with the name.
        code => return code,
    }
    let question = Question { name, family: wanted.ai_family, flags: wanted.ai_flags };
    match ask_value(NoAddress::Local, |layer| layer.resolve(question)) {
        Ok(found) => {
            let canonical = (wanted.ai_flags & libc::AI_CANONNAME != 0).then(|| {
                found.canonical.and_then(|name| CString::new(name).ok()).unwrap_or_else(|| name.to_owned())
            });
            // SAFETY: service and result are the program's.
            unsafe { build(&found.addresses, service, &wanted, canonical.as_deref(), result) }
        }
        Err(NoAddress::Local) => local(),
        Err(NoAddress::Code(code)) => code,
        Err(NoAddress::System(Errno(errno))) => {
            sys::set_errno(errno);
            libc::EAI_SYSTEM
        }
    }
}

/// Whether a name is an address: by what libc takes for one.
pub(crate) fn is_number(name: &CStr) -> bool {
    let hints = addrinfo { ai_flags: libc::AI_NUMERICHOST, ..default_hints() };
    let mut list = null_mut();
    // SAFETY: name and hints are valid, and there is a place for the list.
    let code =
        unsafe { original::getaddrinfo(name.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list) };
    if code == 0 {
        // SAFETY: libc just gave this list, and nobody else has it.
        unsafe { libc::freeaddrinfo(list) };
    }
    code == 0
}

/// Makes one list of all addresses.
///
/// # Safety
/// `service` is null or NUL-terminated; `result` is writable.
unsafe fn build(
    addresses: &[IpAddr],
    service: *const c_char,
    wanted: &addrinfo,
    canonical: Option<&CStr>,
    result: *mut *mut addrinfo,
) -> c_int {
    let hints = addrinfo { ai_flags: wanted.ai_flags & !ANSWERED | libc::AI_NUMERICHOST, ..*wanted };
    let mut head: *mut addrinfo = null_mut();
    let mut end: *mut *mut addrinfo = &raw mut head;
    let mut fault = libc::EAI_NONAME;
    for address in addresses {
        let Ok(text) = CString::new(address.to_string()) else { continue };
        // SAFETY: text and hints are ours and valid; `end` is the null link at the end of our list.
        let code = unsafe { original::getaddrinfo(text.as_ptr(), service, &raw const hints, end) };
        if code != 0 {
            fault = code;
            continue;
        }
        // SAFETY: libc just put a list of at least one node at `end`.
        end = unsafe { last_link(end) };
    }
    // SAFETY: the head is null or a node of libc's, which nobody else has yet.
    let Some(first) = (unsafe { head.as_mut() }) else { return fault };
    if let Some(canonical) = canonical {
        // SAFETY: the name is NUL-terminated by its type; freeaddrinfo(3) frees the copy.
        first.ai_canonname = unsafe { libc::strdup(canonical.as_ptr()) };
    }
    // SAFETY: the caller's duty.
    unsafe { result.write(head) };
    0
}

/// The null link at the end of a list.
///
/// # Safety
/// `link` leads to a list that ends.
unsafe fn last_link(mut link: *mut *mut addrinfo) -> *mut *mut addrinfo {
    loop {
        // SAFETY: the caller's duty.
        let node = unsafe { link.read() };
        if node.is_null() {
            return link;
        }
        // SAFETY: each link leads on to a node of libc's, or is null.
        link = unsafe { &raw mut (*node).ai_next };
    }
}
