//! A far-away cluster: relays for UDP and TCP that hold everything back for a while, each way.
//!
//! Round trips are counted by them: what takes `n` round trips takes `n × 2 × delay` longer through a relay that delays
//! than through one that doesn't. The network itself can't be asked to (no netem on many machines).

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// How far the cluster is; may change at any time.
#[derive(Clone, Debug, Default)]
pub struct Distance(Arc<AtomicU64>);

impl Distance {
    /// Sets the round-trip time.
    pub fn set(&self, round_trip: Duration) {
        self.0.store(u64::try_from(round_trip.as_micros() / 2).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn one_way(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

type Forward = Box<dyn Fn(Vec<u8>) + Send>;
type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// Hands over what it is given, each piece when its time has come; ends with its sender.
fn delayed(distance: &Distance, mut sink: Sink) -> impl Fn(Vec<u8>) + Send + use<> {
    let (piece_tx, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let (_never_tx, never) = mpsc::channel::<()>();
        for (due, piece) in pieces {
            // A clock that wakes too late by a scheduler's tick would be counted as distance.
            while Instant::now() < due {
                let _ = never.recv_timeout(due.saturating_duration_since(Instant::now()));
            }
            sink(&piece);
        }
    });
    let distance = distance.clone();
    move |piece| drop(piece_tx.send((Instant::now() + distance.one_way(), piece)))
}

/// Relays UDP to `server`, for any number of clients, until the program ends. Where clients may send to.
///
/// # Errors
/// Where no socket can be had.
pub fn udp(listen: SocketAddr, server: SocketAddr, distance: &Distance) -> std::io::Result<SocketAddr> {
    let socket = UdpSocket::bind(listen)?;
    let address = socket.local_addr()?;
    let distance = distance.clone();
    thread::spawn(move || {
        let mut clients: HashMap<SocketAddr, Forward> = HashMap::new();
        let mut buffer = [0; 65_536];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let forward = clients
                .entry(client)
                .or_insert_with(|| Box::new(udp_client(&socket, client, server, &distance)));
            forward(buffer[..length].to_vec());
        }
    });
    Ok(address)
}

fn udp_client(
    socket: &UdpSocket,
    client: SocketAddr,
    server: SocketAddr,
    distance: &Distance,
) -> impl Fn(Vec<u8>) + Send + use<> {
    let upstream =
        UdpSocket::bind("0.0.0.0:0").and_then(|upstream| upstream.connect(server).map(|()| upstream));
    let upstream = upstream.expect("a UDP socket towards the cluster");
    let (answers, back) =
        (upstream.try_clone().expect("sockets can be shared"), socket.try_clone().expect("as well"));
    let backward = delayed(distance, Box::new(move |piece| drop(back.send_to(piece, client))));
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length) = answers.recv(&mut buffer) {
            backward(buffer[..length].to_vec());
        }
    });
    delayed(distance, Box::new(move |piece| drop(upstream.send(piece))))
}

/// Relays TCP to `server` until the program ends. Where clients may connect to. The TCP handshake itself isn't delayed:
/// callers add its round trip.
///
/// # Errors
/// Where no socket can be had.
pub fn tcp(listen: SocketAddr, server: SocketAddr, distance: &Distance) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    let distance = distance.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(server) else { continue };
            let pair = client.try_clone().and_then(|client| Ok((client, upstream.try_clone()?)));
            let Ok((client_too, upstream_too)) = pair else { continue };
            copy(client, upstream, &distance);
            copy(upstream_too, client_too, &distance);
        }
    });
    Ok(address)
}

fn copy(mut from: TcpStream, mut to: TcpStream, distance: &Distance) {
    let _ = to.set_nodelay(true);
    // An empty piece is the end.
    let forward = delayed(
        distance,
        Box::new(move |piece| {
            let done = if piece.is_empty() { to.shutdown(Shutdown::Write) } else { to.write_all(piece) };
            drop(done);
        }),
    );
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length) = from.read(&mut buffer) {
            forward(buffer[..length].to_vec());
            if length == 0 {
                break;
            }
        }
    });
}
