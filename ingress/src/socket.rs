//! UDP sockets that move trains: several datagrams per system call, taken apart and put together by the kernel or the
//! network card (UDP_GRO, UDP_SEGMENT of udp(7)), with their ECN bits, never fragmented (IP_PMTUDISC_PROBE of ip(7)).

use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use socket2::{Domain, Protocol, Type};
use tokio::{io::Interest, net::UdpSocket};

/// What is asked for the socket that all clients share, in bytes: 7 MiB hold 50 ms at 1 Gb/s.
const LISTEN_BUFFER: usize = 7 * 1024 * 1024;
/// What is asked for a flow's socket, in bytes.
const FLOW_BUFFER: usize = 2 * 1024 * 1024;
/// Trains received at once.
const BATCH: usize = 8;
/// The longest train: a UDP datagram's largest size, which the kernel doesn't exceed when it joins several.
const TRAIN_BYTES: usize = 65536;

/// Datagrams of one sender that arrived together, each of `stride` bytes but for the last, which may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    /// All their bytes.
    pub bytes: &'a [u8],
    /// The length of each, > 0.
    pub stride: usize,
    /// Their congestion marks.
    pub ecn: Option<EcnCodepoint>,
}

impl Train<'_> {
    /// How many datagrams it has.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.bytes.len().div_ceil(self.stride.max(1)) as u64
    }
}

/// Whence and whereto a train came.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Who sent it.
    pub sender: SocketAddr,
    /// Which of our addresses it was sent to.
    pub local: Option<IpAddr>,
}

/// Where trains are received into; all sockets of a thread share one.
pub struct Buffers(Box<[u8]>);

impl Default for Buffers {
    fn default() -> Self {
        Self(vec![0; BATCH * TRAIN_BYTES].into())
    }
}

/// A UDP socket.
pub struct Socket {
    io: UdpSocket,
    state: RefCell<UdpSocketState>,
}

impl Socket {
    /// The socket that clients send to. `[::]` takes IPv4 as well, and stands for `0.0.0.0` where there is no IPv6.
    ///
    /// # Errors
    /// Where the address can't be bound.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = match bind(address) {
            Err(error) if no_ipv6(&error) && address.ip().is_unspecified() => {
                bind((Ipv4Addr::UNSPECIFIED, address.port()).into())?
            }
            socket => socket?,
        };
        let granted = buffers(&socket, LISTEN_BUFFER)?;
        if granted < LISTEN_BUFFER {
            tracing::warn!(
                asked = LISTEN_BUFFER,
                granted,
                "small UDP buffers, packets may be lost in bursts: raise net.core.rmem_max and net.core.wmem_max on the node"
            );
        }
        Self::new(socket)
    }

    /// A socket that talks to one sidecar only.
    ///
    /// # Errors
    /// Where there are no descriptors left, or no way there.
    pub fn connect(sidecar: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(sidecar), Type::DGRAM, Some(Protocol::UDP))?;
        buffers(&socket, FLOW_BUFFER)?;
        socket.connect(&sidecar.into())?;
        Self::new(socket)
    }

    fn new(socket: socket2::Socket) -> io::Result<Self> {
        let state = RefCell::new(UdpSocketState::new((&socket).into())?);
        Ok(Self { io: UdpSocket::from_std(socket.into())?, state })
    }

    /// Its own address.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Waits for trains and hands each to `take`.
    ///
    /// # Errors
    /// What the kernel reports about earlier sends, such as ECONNREFUSED; receiving can go on.
    pub async fn receive(
        &self,
        buffers: &RefCell<Buffers>,
        mut take: impl FnMut(Origin, Train<'_>),
    ) -> io::Result<()> {
        let receive = || {
            let buffers = &mut *buffers.borrow_mut();
            let mut metas = [RecvMeta::default(); BATCH];
            let count = {
                let mut slices = buffers.0.chunks_mut(TRAIN_BYTES).map(IoSliceMut::new);
                let mut slices: [IoSliceMut<'_>; BATCH] =
                    std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
                let state = self.state.borrow();
                state.recv((&self.io).into(), &mut slices, &mut metas)?
            };
            for (meta, buffer) in metas.iter().zip(buffers.0.chunks(TRAIN_BYTES)).take(count) {
                let Some(bytes) = buffer.get(..meta.len) else { continue };
                let train = Train { bytes, stride: meta.stride.max(1), ecn: meta.ecn };
                take(Origin { sender: meta.addr, local: meta.dst_ip }, train);
            }
            Ok(())
        };
        self.io.async_io(Interest::READABLE, receive).await
    }

    /// Sends a train, from one of our addresses.
    ///
    /// # Errors
    /// `WouldBlock` where the send buffer is full, or what the kernel says; some of the train may have been sent.
    pub fn send(&self, to: SocketAddr, from: Option<IpAddr>, train: Train<'_>) -> io::Result<()> {
        let at_once = self.state.borrow().max_gso_segments().max(1);
        for part in train.bytes.chunks(at_once * train.stride) {
            let result = self.send_part(to, from, Train { bytes: part, ..train });
            let joined = part.len() > train.stride;
            match result {
                Err(error) if joined && is_offload_failure(&error) => {
                    for datagram in part.chunks(train.stride) {
                        self.send_part(to, from, Train { bytes: datagram, ..train })?;
                    }
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn send_part(&self, to: SocketAddr, from: Option<IpAddr>, part: Train<'_>) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: part.ecn,
            contents: part.bytes,
            segment_size: (part.bytes.len() > part.stride).then_some(part.stride),
            src_ip: from,
        };
        let state = self.state.borrow();
        // Not by `try_io`, which refuses while the runtime hasn't seen the socket yet, as with a flow's first packet.
        state.try_send((&self.io).into(), &transmit)
    }

    /// Waits until the send buffer has room again after a `WouldBlock`.
    pub async fn writable(&self) {
        // The runtime has to be told, since it wasn't it that sent.
        let _ = self.io.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
        // Fails only when the runtime ends.
        let _ = self.io.writable().await;
    }

    /// Gives offloading another try: quinn-udp stops it for good at the first failure, but on a socket that all share,
    /// the failure may have been due to one client's path.
    pub fn heal(&self) {
        let mut state = self.state.borrow_mut();
        if state.max_gso_segments() == 1
            && let Ok(fresh) = UdpSocketState::new((&self.io).into())
        {
            *state = fresh;
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Asks for buffers; returns the smaller of what was granted.
fn buffers(socket: &socket2::Socket, bytes: usize) -> io::Result<usize> {
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)?;
    // Linux reports twice what may be used (SO_RCVBUF in socket(7)).
    Ok(socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2)
}

/// Whether an error says that this machine has no IPv6.
pub(crate) fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// What the kernel says where a network card can't segment, or segments exceed the interface's MTU.
fn is_offload_failure(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::INVAL | Errno::MSGSIZE))
}

/// Raises the limit of open descriptors to what is allowed: each flow has one. Returns it.
#[must_use]
pub fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let limit = if raised.is_ok() { limit.maximum } else { limit.current };
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
