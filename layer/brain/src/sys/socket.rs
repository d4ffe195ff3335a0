//! Sockets: addresses, the conversation's bytes, and the program's own TCP sockets.

use std::{
    ffi::c_int,
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use super::{Errno, checked, length, owned, raw::kernel};

/// A connected `SOCK_STREAM` socket, closed at execve.
///
/// # Errors
/// As the kernel says; ENAMETOOLONG where the path doesn't fit into a `sockaddr_un`.
pub fn unix_stream(path: &Path) -> Result<OwnedFd, Errno> {
    // SAFETY: all-zero bytes are a valid `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = family(libc::AF_UNIX);
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = byte.cast_signed();
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes integers only.
    let socket = owned(checked(unsafe { kernel!(libc::SYS_socket, libc::AF_UNIX, kind, 0) })?)?;
    let place = &raw const address;
    loop {
        // SAFETY: the kernel reads `size_of` bytes of a live local.
        let result =
            unsafe { kernel!(libc::SYS_connect, socket.as_raw_fd(), place, size_of::<libc::sockaddr_un>()) };
        match checked(result) {
            Ok(_) => return Ok(socket),
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends all bytes, without SIGPIPE.
///
/// # Errors
/// As the kernel says.
pub fn send(socket: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    let nowhere = std::ptr::null::<libc::sockaddr>();
    while !bytes.is_empty() {
        let (pointer, count) = (bytes.as_ptr(), bytes.len());
        // SAFETY: the kernel reads `count` bytes of a live slice, and no address (null).
        let result = unsafe {
            kernel!(libc::SYS_sendto, socket.as_raw_fd(), pointer, count, libc::MSG_NOSIGNAL, nowhere, 0,)
        };
        match length(result) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Receives some bytes, and the descriptor that came with them; closed at execve if asked so. 0 bytes: the end.
///
/// # Errors
/// As the kernel says.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    close_on_exec: bool,
) -> Result<(usize, Option<OwnedFd>), Errno> {
    // Room for exactly one: of more, the kernel closes the rest (unix(7)). Aligned as `cmsghdr`.
    let mut room = [0_u64; 3];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = room.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&room);
    let flags = if close_on_exec { libc::MSG_CMSG_CLOEXEC } else { 0 };
    let place = &raw mut message;
    let received = loop {
        // SAFETY: `message` names a live buffer and live room for one control message, with their true sizes.
        match length(unsafe { kernel!(libc::SYS_recvmsg, socket.as_raw_fd(), place, flags) }) {
            Err(Errno(libc::EINTR)) => {}
            other => break other?,
        }
    };
    Ok((received, received_descriptor(&message)))
}

/// The descriptor in a message that the kernel filled in.
fn received_descriptor(message: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the control room that `message` names is alive, and the kernel set its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: CMSG_FIRSTHDR gives null, or a header that lies within the room (cmsg(3)).
    let found = unsafe { header.as_ref() }?;
    if (found.cmsg_level, found.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return None;
    }
    // SAFETY: CMSG_DATA of a valid header is the address behind it.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: the kernel put at least one `int` there, since SCM_RIGHTS is never empty.
    let number = unsafe { data.cast::<c_int>().read_unaligned() };
    // SAFETY: the kernel installed this number for us just now; nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// connect(2) of the program's socket, by number.
///
/// # Errors
/// As the kernel says.
pub fn connect(socket: c_int, address: SocketAddr) -> Result<(), Errno> {
    let (storage, size) = to_sockaddr(address);
    let place = &raw const storage;
    // SAFETY: the kernel reads `size` bytes of a live local that is at least as large.
    checked(unsafe { kernel!(libc::SYS_connect, socket, place, size) }).map(drop)
}

/// Undoes a connect(2), by connecting to nothing (`AF_UNSPEC`).
pub fn disconnect(socket: c_int) {
    // SAFETY: all-zero bytes are a valid `sockaddr`, of family AF_UNSPEC.
    let nothing: libc::sockaddr = unsafe { std::mem::zeroed() };
    let place = &raw const nothing;
    // SAFETY: the kernel reads `size_of` bytes of a live local.
    unsafe { kernel!(libc::SYS_connect, socket, place, size_of::<libc::sockaddr>()) };
}

/// An integer option of level `SOL_SOCKET`.
///
/// # Errors
/// As the kernel says.
pub fn option(socket: c_int, name: c_int) -> Result<c_int, Errno> {
    integer_option(socket, libc::SOL_SOCKET, name)
}

/// Whether the socket can't reach IPv4 addresses (`IPV6_V6ONLY` of ipv6(7)).
#[must_use]
pub fn is_v6_only(socket: c_int) -> bool {
    integer_option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).is_ok_and(|value| value != 0)
}

fn integer_option(socket: c_int, level: c_int, name: c_int) -> Result<c_int, Errno> {
    let mut value: c_int = 0;
    let mut size = u32::try_from(size_of::<c_int>()).unwrap_or(0);
    let (place, size_place) = (&raw mut value, &raw mut size);
    // SAFETY: the kernel writes at most `size` bytes into a live local of that size, and the size.
    checked(unsafe { kernel!(libc::SYS_getsockopt, socket, level, name, place, size_place) })?;
    Ok(value)
}

/// getsockname(2), of an internet socket.
///
/// # Errors
/// As the kernel says; EAFNOSUPPORT of other sockets.
pub fn local_address(socket: c_int) -> Result<SocketAddr, Errno> {
    address(libc::SYS_getsockname, socket)
}

/// getpeername(2), of an internet socket.
///
/// # Errors
/// As the kernel says; EAFNOSUPPORT of other sockets.
pub fn peer_address(socket: c_int) -> Result<SocketAddr, Errno> {
    address(libc::SYS_getpeername, socket)
}

fn address(call: libc::c_long, socket: c_int) -> Result<SocketAddr, Errno> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut size = u32::try_from(size_of::<libc::sockaddr_storage>()).unwrap_or(0);
    let (place, size_place) = (storage.as_mut_ptr(), &raw mut size);
    // SAFETY: the kernel writes at most `size` bytes into a live local of that size, and the size.
    checked(unsafe { kernel!(call, socket, place, size_place) })?;
    // SAFETY: all-zero bytes are a valid `sockaddr_storage`, and so is what the kernel wrote over them.
    from_sockaddr(&unsafe { storage.assume_init() }).ok_or(Errno(libc::EAFNOSUPPORT))
}

fn family(number: c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or(0)
}

/// As the kernel takes it, with its length.
#[must_use]
pub fn to_sockaddr(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let place = &raw mut storage;
    let size = match address {
        SocketAddr::V4(v4) => {
            let inner = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a `sockaddr_storage` has room and alignment for every kind of address (socket(7)).
            unsafe { place.cast::<libc::sockaddr_in>().write(inner) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let inner = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(inner) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, libc::socklen_t::try_from(size).unwrap_or(0))
}

/// `None` where it is no internet address.
fn from_sockaddr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let place = &raw const *storage;
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: of this family, what is stored is a `sockaddr_in`; the storage is large and aligned enough.
            let inner = unsafe { place.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(inner.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(inner.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family, what is stored is a `sockaddr_in6`.
            let inner = unsafe { place.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(inner.sin6_addr.s6_addr);
            let port = u16::from_be(inner.sin6_port);
            Some(SocketAddrV6::new(ip, port, inner.sin6_flowinfo, inner.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// An IPv4 address as an AF_INET6 socket says it (RFC 4291 §2.5.5.2).
#[must_use]
pub(crate) fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The IPv4 address behind a mapped one.
#[must_use]
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
