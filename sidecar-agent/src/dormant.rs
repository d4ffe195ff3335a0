//! The floor: one thread that waits in poll(2) for a datagram or a signal, without a timer. TLS, QUIC and the
//! runtime are not built; of the program only these few pages are touched.
//!
//! Only a first packet of a boot channel for this route ends it. A client that is quicker than the control plane
//! isn't turned away, for it would ask again only after a second: its first packets are kept, a few, and handed over.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, UdpSocket},
};

use mirrord_protocol::{
    packet::{Form, Packet},
    route::{ConnectionId, Purpose, RouteId},
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::sys::signals::Termination;

/// Larger datagrams open no flow: a first packet fits the smallest MTU (RFC 9000 §14.1).
const DATAGRAM_BYTES: usize = 2048;
/// How many early packets of clients are kept, the newest.
pub(crate) const EARLY: usize = 8;

/// A datagram that arrived before there was an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// Why a dormant sidecar stirs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The control plane calls; these are its first packet and what clients sent before.
    Called(Vec<Datagram>),
    /// The pod stops.
    Stopped,
}

/// What an arriving datagram is to a dormant sidecar.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Foreign,
    Early,
    Call,
}

/// Waits for the control plane, or for the end.
pub(crate) fn wait(socket: &UdpSocket, termination: &Termination, route: RouteId) -> io::Result<Wake> {
    socket.set_nonblocking(true)?;
    let mut early = VecDeque::new();
    let mut buffer = [0; DATAGRAM_BYTES];
    loop {
        let mut ready = [PollFd::new(termination, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if !ready[0].revents().is_empty() {
            return Ok(Wake::Stopped);
        }
        // An error is that of an earlier answer (ICMP), and taken off by reading it.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let bytes = &buffer[..length];
        let kind = classify(bytes, route);
        if kind == Kind::Foreign {
            continue;
        }
        if early.len() == EARLY {
            early.pop_front();
        }
        early.push_back(Datagram { from, bytes: bytes.to_vec() });
        if kind == Kind::Call {
            return Ok(Wake::Called(early.into()));
        }
    }
}

fn classify(datagram: &[u8], route: RouteId) -> Kind {
    let Some(packet) = Packet::parse(datagram) else { return Kind::Foreign };
    match (ConnectionId::parse(packet.destination), packet.form) {
        (Some(id), Form::Initial { .. }) if id.route == route => match id.purpose {
            Purpose::Session => Kind::Early,
            Purpose::Boot => Kind::Call,
        },
        _ => Kind::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: RouteId = RouteId([1, 2, 3, 4, 5, 6, 7, 8]);

    fn initial(purpose: Purpose, route: RouteId) -> Vec<u8> {
        let mut bytes = vec![0xc0, 0, 0, 0, 1, 16];
        bytes.extend(ConnectionId { purpose, route, random: [9; 7] }.to_bytes());
        bytes.extend([0, 0, 0]);
        bytes
    }

    #[test]
    fn only_first_packets_of_the_own_route_count() {
        assert_eq!(classify(&initial(Purpose::Boot, ROUTE), ROUTE), Kind::Call);
        assert_eq!(classify(&initial(Purpose::Session, ROUTE), ROUTE), Kind::Early);
        assert_eq!(classify(&initial(Purpose::Boot, RouteId([0; 8])), ROUTE), Kind::Foreign);
        assert_eq!(classify(b"", ROUTE), Kind::Foreign);
        assert_eq!(classify(b"GET / HTTP/1.1\r\n\r\n", ROUTE), Kind::Foreign);
        let mut short = vec![0x40];
        short.extend(ConnectionId { purpose: Purpose::Boot, route: ROUTE, random: [9; 7] }.to_bytes());
        assert_eq!(classify(&short, ROUTE), Kind::Foreign, "of a connection that is gone");
    }
}
