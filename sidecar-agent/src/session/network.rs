//! Connections and names of the pod's network.
//!
//! A connection is relayed as it is: FIN is the end of a stream, RST its reset, in either direction alone, and a reader
//! that stalls stalls its own stream only, by QUIC's flow control and TCP's.

use std::{ffi::CString, io, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use mirrord_protocol::{
    feature::Feature,
    limits::NAME_BYTES,
    reply::{Connected, Failure, FailureCode, Resolved},
    request::{Connect, Resolve},
};
use quinn::{RecvStream, SendStream, VarInt};
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use super::{
    grant::Session,
    reply::{self, Answer},
};
use crate::{
    counts::{Count, Counts},
    guard,
    sys::lookup,
    twin::blocking,
};

/// What is read from a socket at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// Resets need a code; TCP's have none.
const RESET: VarInt = VarInt::from_u32(0);

/// Connects from the pod, then relays until both directions have ended or the right is gone.
pub(super) async fn connect(
    session: &Arc<Session>,
    connect: Connect,
    send: &mut Answer<'_>,
    receive: &mut RecvStream,
) -> Option<()> {
    let dialled = tokio::select! {
        dialled = dial(connect.address, send.counts) => dialled,
        // The client gave up.
        _ = send.stream.stopped() => return None,
    };
    let (mut stream, connected) = match dialled {
        Ok(dialled) => dialled,
        Err(failure) => return reply::send::<Connected>(send, Err(failure)).await,
    };
    send.counts.connections.add(1);
    reply::send(send, Ok((connected, Bytes::new()))).await?;
    let Answer { stream: send, counts, .. } = send;
    let relayed = tokio::select! {
        relayed = relay(&mut stream, send, receive, counts) => relayed,
        () = session.revoked(Feature::Outgoing) => Err(Broken),
    };
    if relayed.is_ok() {
        let _ = set_socket_linger(&stream, None);
        return Some(());
    }
    let _ = send.reset(RESET);
    let _ = receive.stop(RESET);
    None
}

async fn dial(address: SocketAddr, counts: &Counts) -> Result<(TcpStream, Connected), Failure> {
    guard::check(address.ip()).map_err(|why| {
        counts.guarded.add(1);
        let message =
            format!("{} is {why}: never reached from a pod unless an administrator lists it", address.ip());
        Failure::new(FailureCode::NotGranted, libc::EACCES, message)
    })?;
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let connected = async {
        let stream = TcpStream::connect(address).await?;
        // The program's own choice of NODELAY ends at its machine: here, each write has been one already.
        stream.set_nodelay(true)?;
        // Whatever ends the relay before both directions have ended, and be it that this task is dropped, is a reset:
        // an end of data would make a truncated upload look whole. Taken back where both have.
        stream.set_zero_linger()?;
        let connected = Connected { local: stream.local_addr()?, peer: stream.peer_addr()? };
        io::Result::Ok((stream, connected))
    };
    connected.await.map_err(|error| reply::io(&error))
}

/// A direction that ended by a reset.
struct Broken;

async fn relay(
    stream: &mut TcpStream,
    send: &mut SendStream,
    receive: &mut RecvStream,
    counts: &Counts,
) -> Result<(), Broken> {
    let (reader, writer) = stream.split();
    let (sent, received) = (&counts.sent_bytes, &counts.received_bytes);
    tokio::try_join!(outwards(receive, writer, sent), inwards(reader, send, received)).map(|_| ())
}

/// From the client to the pod's network.
async fn outwards(receive: &mut RecvStream, mut writer: WriteHalf<'_>, sent: &Count) -> Result<(), Broken> {
    while let Some(chunk) = receive.read_chunk(CHUNK_BYTES, true).await.map_err(|_| Broken)? {
        writer.write_all(&chunk.bytes).await.map_err(|_| Broken)?;
        sent.add(chunk.bytes.len() as u64);
    }
    writer.shutdown().await.map_err(|_| Broken)
}

/// From the pod's network to the client.
async fn inwards(mut reader: ReadHalf<'_>, send: &mut SendStream, received: &Count) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        if reader.read_buf(&mut buffer).await.map_err(|_| Broken)? == 0 {
            return send.finish().map_err(|_| Broken);
        }
        let bytes = buffer.split().freeze();
        received.add(bytes.len() as u64);
        send.write_chunk(bytes).await.map_err(|_| Broken)?;
    }
}

/// Resolves a name as a program in the pod would.
pub(super) async fn resolve(session: &Arc<Session>, resolve: Resolve, send: &mut Answer<'_>) -> Option<()> {
    let resolved = look_up(session, resolve).await;
    reply::send(send, resolved.map(|resolved| (resolved, Bytes::new()))).await
}

async fn look_up(session: &Session, resolve: Resolve) -> Result<Resolved, Failure> {
    let Resolve { name, family, canonical, configured } = resolve;
    if name.len() > NAME_BYTES {
        return Err(Failure::lookup(libc::EAI_NONAME, format!("a name has at most {NAME_BYTES} bytes")));
    }
    let name = CString::new(name).map_err(|_| Failure::lookup(libc::EAI_NONAME, "a name holds no NUL"))?;
    let _turn = session.twin().lookups.acquire().await.map_err(|_| reply::unanswered())?;
    let looked = blocking(move || lookup::resolve(&name, family, canonical, configured)).await;
    looked.ok_or_else(reply::unanswered)?.map_err(|error| Failure::lookup(error.code, error.message))
}
