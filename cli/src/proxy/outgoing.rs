//! Connections through the pod.
//!
//! The pod dials first; only if that stands does a loopback listener come into being, on a fresh port, for one
//! connection: that of the program's own socket, whose address the layer tells by the ticket. Anybody else on this
//! machine who finds the port is dropped. Then bytes go both ways, with half-closes and resets as they come.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use mirrord_layer_brain::conversation::{ATTACH_SECONDS, Attach, Connect, Connected, Done};
use mirrord_protocol::{
    reply::{self, Failure, FailureCode},
    request::{self, Request},
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::oneshot,
    time::timeout,
};

use crate::{
    proxy::holds::Holds,
    tunnel::{
        ask::Stream,
        link::{Link, LinkError},
    },
};

/// Bytes read at once from a local socket.
const CHUNK: usize = 128 * 1024;
/// Strangers kept until the ticket says which connection is meant.
const STRANGERS: usize = 8;
/// Tells the other end of a stream that a connection was reset.
const RESET: VarInt = VarInt::from_u32(1);

/// The connections that wait for their sockets.
#[derive(Debug, Default)]
pub struct Outgoing {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<SocketAddr>>>,
}

impl Outgoing {
    /// Dials through the pod, and listens for the program's socket.
    ///
    /// # Errors
    /// As the pod's kernel says, or that the session is over.
    pub async fn connect(
        self: &Arc<Self>,
        link: &Link,
        holds: &Holds,
        connect: Connect,
    ) -> Result<Connected, LinkError> {
        let request = Request::Connect(request::Connect { address: connect.address });
        let (remote, stream): (reply::Connected, Stream) = link.open(&request).await?;
        let any = if connect.v6_only { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let listener = TcpListener::bind(SocketAddr::new(any, 0)).await.map_err(local)?;
        let address = listener.local_addr().map_err(local)?;
        let ticket = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (attached_tx, attached) = oneshot::channel();
        self.tickets().insert(ticket, attached_tx);
        let outgoing = self.clone();
        // A connection outlives the thread that asked for it, and maybe the program that was started.
        let hold = holds.hold();
        tokio::spawn(async move {
            let paired = timeout(Duration::from_secs(ATTACH_SECONDS), pair(listener, attached)).await;
            outgoing.tickets().remove(&ticket);
            match paired {
                Ok(Ok(socket)) => relay(socket, stream).await,
                Ok(Err(error)) => tracing::debug!(%error, ticket, "a connection was not taken"),
                Err(_) => tracing::debug!(ticket, "a connection was not taken in time"),
            }
            drop(hold);
        });
        Ok(Connected { ticket, listener: address, local: remote.local, peer: remote.peer })
    }

    /// Pairs a socket with its ticket.
    ///
    /// # Errors
    /// Where there is no such ticket (any more).
    pub fn attach(&self, attach: Attach) -> Result<Done, Failure> {
        let known =
            self.tickets().remove(&attach.ticket).is_some_and(|waiting| waiting.send(attach.local).is_ok());
        match known {
            true => Ok(Done {}),
            false => Err(Failure::new(FailureCode::Malformed, libc::ECONNRESET, "there is no such ticket")),
        }
    }

    fn tickets(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<SocketAddr>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn local(error: io::Error) -> LinkError {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    LinkError::Failed(Failure::new(FailureCode::System, errno, format!("on this machine: {error}")))
}

/// Waits for the connection from the address that the ticket's owner names.
async fn pair(listener: TcpListener, mut attached: oneshot::Receiver<SocketAddr>) -> io::Result<TcpStream> {
    let mut strangers: Vec<(TcpStream, SocketAddr)> = Vec::new();
    let wanted = loop {
        tokio::select! {
            named = &mut attached => break named.map_err(io::Error::other)?,
            accepted = listener.accept(), if strangers.len() < STRANGERS => strangers.push(accepted?),
        }
    };
    if let Some(position) = strangers.iter().position(|(_, peer)| *peer == wanted) {
        return Ok(strangers.swap_remove(position).0);
    }
    drop(strangers);
    loop {
        let (socket, peer) = listener.accept().await?;
        if peer == wanted {
            return Ok(socket);
        }
    }
}

/// A direction ended by a reset, or can't go on.
struct Broken;

async fn relay(mut socket: TcpStream, mut stream: Stream) {
    // Small messages go out as they come: the program's own choice was made on its own socket.
    let _ = socket.set_nodelay(true);
    let (reader, writer) = socket.split();
    let (up, down) = (upwards(reader, &mut stream.send), downwards(&mut stream.receive, writer));
    if let Err(Broken) = tokio::try_join!(up, down) {
        // Both ends shall see a reset, as they would without us in between (tcp(7), SO_LINGER of socket(7)).
        let _ = stream.send.reset(RESET);
        let _ = stream.receive.stop(RESET);
        let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
}

/// Program → pod.
async fn upwards(mut reader: ReadHalf<'_>, send: &mut SendStream) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    let stopped = send.stopped();
    tokio::pin!(stopped);
    loop {
        buffer.reserve(CHUNK);
        let read = tokio::select! {
            read = reader.read_buf(&mut buffer) => read.map_err(|_| Broken)?,
            // Nobody reads this any more.
            _ = &mut stopped => return Err(Broken),
        };
        if read == 0 {
            return send.finish().map_err(|_| Broken);
        }
        send.write_chunk(buffer.split().freeze()).await.map_err(|_| Broken)?;
    }
}

/// Pod → program.
async fn downwards(receive: &mut RecvStream, mut writer: WriteHalf<'_>) -> Result<(), Broken> {
    while let Some(chunk) = receive.read_chunk(CHUNK, true).await.map_err(|_| Broken)? {
        writer.write_all(&chunk.bytes).await.map_err(|_| Broken)?;
    }
    writer.shutdown().await.map_err(|_| Broken)
}
