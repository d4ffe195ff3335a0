//! Connections: which are the pod's, and how the program's own socket gets to one.
//!
//! The proxy dials first, through the pod; only where that stands is the program's socket connected, to a loopback
//! port of the proxy. So a refusal reaches the program as connect(2)'s errno, even where its socket is non-blocking:
//! connect then waits for the pod's answer (EINPROGRESS is only what the last few steps may give). A signal doesn't
//! interrupt the wait.

use std::{ffi::c_int, net::SocketAddr};

use crate::{
    conversation::{Ask, Attach, Connect, Connected, Done},
    descriptors::{Identity, Socket},
    layer::{Handled, Instead, Layer, errno_of},
    sys::{self, Errno},
};

impl Layer {
    /// connect(2).
    ///
    /// # Errors
    /// What to do [`Instead`]; [`Instead::Fail`] with EINPROGRESS is a success to come.
    pub fn connect(&self, socket: c_int, address: SocketAddr) -> Handled<()> {
        if !self.settings.outgoing || !is_remote(address) || !is_tcp(socket) {
            return Err(Instead::Local);
        }
        if let Some((_, known)) = self.table.socket(socket) {
            // On its way already: the kernel knows how far (EALREADY, EISCONN, or done).
            return Ok(native(socket, known.listener)?);
        }
        let is_v6 = address.is_ipv6();
        let v6_only = is_v6 && sys::is_v6_only(socket);
        let ask = Ask::Connect(Connect { address: sys::unmapped(address), v6_only });
        let connected: Connected = self.proxy.ask(&ask).map_err(|error| errno_of(&error, libc::ENETDOWN))?;
        let listener = if is_v6 { sys::mapped(connected.listener) } else { connected.listener };
        let result = native(socket, listener);
        match result {
            Ok(()) | Err(Errno(libc::EINPROGRESS)) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Err(errno) = self.attach(socket, connected.ticket) {
            sys::disconnect(socket);
            return Err(errno.into());
        }
        let identity = Identity::from(&sys::status(socket)?);
        let as_asked = |address| if is_v6 { sys::mapped(address) } else { address };
        self.table.add_socket(
            identity,
            Socket { local: as_asked(connected.local), peer: as_asked(connected.peer), listener },
        );
        Ok(result?)
    }

    fn attach(&self, socket: c_int, ticket: u64) -> Result<(), Errno> {
        let local = sys::unmapped(sys::local_address(socket)?);
        let ask = Ask::Attach(Attach { ticket, local });
        self.proxy.ask::<Done>(&ask).map(drop).map_err(|error| errno_of(&error, libc::ECONNRESET))
    }

    /// connect(2) to nothing (`AF_UNSPEC`), which undoes an earlier one.
    pub fn disconnected(&self, socket: c_int) {
        if let Some((identity, _)) = self.table.socket(socket) {
            self.table.forget(identity);
        }
    }

    /// getsockname(2), of a remote connection.
    #[must_use]
    pub fn local_address(&self, socket: c_int) -> Option<SocketAddr> {
        self.table.socket(socket).map(|(_, known)| known.local)
    }

    /// getpeername(2), of a remote connection that stands.
    #[must_use]
    pub fn peer_address(&self, socket: c_int) -> Option<SocketAddr> {
        self.table.socket(socket).filter(|_| sys::peer_address(socket).is_ok()).map(|(_, known)| known.peer)
    }
}

fn native(socket: c_int, listener: SocketAddr) -> Result<(), Errno> {
    sys::connect(socket, listener)
}

/// Loopback is this machine's, and so are addresses that no TCP connection can have.
fn is_remote(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || broadcast)
}

fn is_tcp(socket: c_int) -> bool {
    let is =
        |option, values: &[c_int]| sys::option(socket, option).is_ok_and(|value| values.contains(&value));
    is(libc::SO_TYPE, &[libc::SOCK_STREAM])
        && is(libc::SO_DOMAIN, &[libc::AF_INET, libc::AF_INET6])
        && is(libc::SO_PROTOCOL, &[libc::IPPROTO_TCP, libc::IPPROTO_MPTCP])
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::{fd::AsRawFd, unix::net::UnixListener},
    };

    use super::*;

    #[test]
    fn loopback_and_impossible_addresses_are_local() {
        let remote = |text: &str| is_remote(text.parse().unwrap());
        for local in ["127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "0.0.0.0:1", "[::]:1", "224.0.0.1:1"]
        {
            assert!(!remote(local), "{local}");
        }
        for address in ["10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1", "169.254.169.254:80"] {
            assert!(remote(address), "{address}");
        }
    }

    #[test]
    fn only_tcp_sockets_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_tcp(TcpListener::bind("127.0.0.1:0").unwrap().as_raw_fd()));
        assert!(!is_tcp(UdpSocket::bind("127.0.0.1:0").unwrap().as_raw_fd()));
        assert!(!is_tcp(UnixListener::bind(folder.path().join("s")).unwrap().as_raw_fd()));
        assert!(!is_tcp(-1));
    }
}
