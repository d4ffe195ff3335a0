//! Shells of connect, getpeername and getsockname.

use std::{
    ffi::c_int,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

use libc::{sockaddr, socklen_t};
use mirrord_layer_brain::{layer::Layer, sys};

use crate::{
    front::{ask, layer, settle},
    table::original,
};

/// What connect(2) is asked for.
enum Target {
    Internet(SocketAddr),
    /// `AF_UNSPEC`: undo.
    Nothing,
    Other,
}

/// # Safety
/// `address` is null, or `size` bytes can be read there.
unsafe fn target(address: *const sockaddr, size: socklen_t) -> Target {
    let holds = |needed: usize| usize::try_from(size).is_ok_and(|size| size >= needed);
    if address.is_null() || !holds(size_of::<libc::sa_family_t>()) {
        return Target::Other;
    }
    // SAFETY: the family comes first, and so many bytes are there.
    let family = unsafe { address.cast::<libc::sa_family_t>().read_unaligned() };
    match c_int::from(family) {
        libc::AF_UNSPEC => Target::Nothing,
        libc::AF_INET if holds(size_of::<libc::sockaddr_in>()) => {
            // SAFETY: of this family and size, it is a `sockaddr_in`.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Target::Internet(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 if holds(size_of::<libc::sockaddr_in6>()) => {
            // SAFETY: of this family and size, it is a `sockaddr_in6`.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Target::Internet(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => Target::Other,
    }
}

pub(crate) unsafe fn connect(socket: c_int, address: *const sockaddr, size: socklen_t) -> c_int {
    // SAFETY: the program's call, as it is.
    let original = || unsafe { original::connect(socket, address, size) };
    // SAFETY: the program promises `size` readable bytes.
    match unsafe { target(address, size) } {
        Target::Internet(to) => {
            let handled = ask(|layer| layer.connect(socket, to));
            settle(handled, (0, std::ptr::null()), |()| 0, |_, _| original())
        }
        Target::Nothing => {
            layer().inspect(|layer| layer.disconnected(socket));
            original()
        }
        Target::Other => original(),
    }
}

/// The kernel's answer, or the remote one instead.
///
/// # Safety
/// As getsockname(2): `size` is writable, and holds how many bytes are at `address`.
unsafe fn address_with(
    (address, size): (*mut sockaddr, *mut socklen_t),
    remote: impl FnOnce(&Layer) -> Option<SocketAddr>,
    original: impl FnOnce() -> c_int,
) -> c_int {
    let Some(found) = layer().and_then(remote) else { return original() };
    if address.is_null() || size.is_null() {
        return original();
    }
    let (storage, length) = sys::to_sockaddr(found);
    // SAFETY: the caller's duty.
    let room = unsafe { size.read() };
    let count = usize::try_from(room.min(length)).unwrap_or(0);
    // SAFETY: `count` bytes are in the storage, and fit where the program promised room.
    unsafe { std::ptr::copy_nonoverlapping((&raw const storage).cast::<u8>(), address.cast::<u8>(), count) };
    // SAFETY: the caller's duty.
    unsafe { size.write(length) };
    0
}

pub(crate) unsafe fn getpeername(socket: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int {
    // SAFETY: the program's call, with its promises.
    unsafe {
        address_with(
            (address, size),
            |layer| layer.peer_address(socket),
            || original::getpeername(socket, address, size),
        )
    }
}

pub(crate) unsafe fn getsockname(socket: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int {
    // SAFETY: the program's call, with its promises.
    unsafe {
        address_with(
            (address, size),
            |layer| layer.local_address(socket),
            || original::getsockname(socket, address, size),
        )
    }
}
