//! The layers' door: each thread of a program holds a connection, asks, and waits for the answer.
//!
//! What is asked and answered is written down in [`mirrord_layer_brain::conversation`]. Only processes of the same
//! user are heard (SO_PEERCRED, unix(7)), besides what the folder's mode keeps out.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use mirrord_layer_brain::conversation::{
    self, Answer, Ask, Done, Ended, Hello, Level, Log, Opened, VERSION, Welcome,
};
use mirrord_protocol::{
    frame::PREFIX_BYTES,
    limits::{ADDRESSES, PATH_BYTES, TEXT_BYTES},
    reply::{Failure, FailureCode},
    request::Request,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{UnixListener, UnixStream},
};

use super::{files, holds::Holds, outgoing::Outgoing};
use crate::tunnel::link::{Link, LinkError};

/// What all conversations share.
#[derive(Clone, Debug)]
pub struct Serving {
    /// To the pod.
    pub link: Link,
    /// Who is connected.
    pub holds: Holds,
    /// Connections that wait for their sockets.
    pub outgoing: Arc<Outgoing>,
}

impl Serving {
    /// Serves what a link reaches.
    #[must_use]
    pub fn new(link: Link, holds: Holds) -> Self {
        Self { link, holds, outgoing: Arc::default() }
    }

    /// Takes connections for ever.
    pub async fn accept(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if is_own(&stream) => {
                    let serving = self.clone();
                    tokio::spawn(async move {
                        let hold = serving.holds.hold();
                        if let Err(error) = serving.converse(stream).await {
                            tracing::debug!(%error, "a layer's connection ended");
                        }
                        drop(hold);
                    });
                }
                Ok(_) => tracing::warn!("another user's process was turned away"),
                Err(error) => pause_after(&error).await,
            }
        }
    }

    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut greeted = false;
        loop {
            let Some(body) = receive(&mut stream).await? else { return Ok(()) };
            let ask = match Ask::decode(&body) {
                Ok(ask) => ask,
                Err(error) => {
                    tracing::warn!(%error, "a layer asked what this proxy doesn't know");
                    let failure = Failure::new(FailureCode::Unsupported, libc::ENOSYS, error.to_string());
                    send(&mut stream, &Answer::<Done>::Failed(failure)).await?;
                    continue;
                }
            };
            if !greeted && !matches!(ask, Ask::Hello(_)) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the first question isn't Hello"));
            }
            greeted = true;
            self.answer(&mut stream, ask).await?;
        }
    }

    async fn answer(&self, stream: &mut UnixStream, ask: Ask) -> io::Result<()> {
        match ask {
            Ask::Hello(hello) => send(stream, &Answer::Ok(welcome(&hello))).await,
            Ask::Open(open) => match files::open(&self.link, &open).await {
                Ok((attributes, descriptor)) => {
                    send_with_descriptor(stream, &Answer::Ok(Opened { attributes }), &descriptor).await
                }
                Err(error) => send(stream, &told::<Opened>(Err(error))).await,
            },
            Ask::Stat(stat) => self.pass::<conversation::Attributes>(stream, &Request::Stat(stat)).await,
            Ask::ReadLink(link) => {
                let found = self.link.ask::<conversation::Link>(&Request::ReadLink(link)).await;
                send(stream, &told(found.and_then(|(link, _)| plausible(link)))).await
            }
            Ask::Resolve(resolve) => {
                let found = self.link.ask::<conversation::Resolved>(&Request::Resolve(resolve)).await;
                send(stream, &told(found.map(|(found, _)| few(found)))).await
            }
            Ask::Connect(connect) => {
                let connected = self.outgoing.connect(&self.link, &self.holds, connect).await;
                send(stream, &told(connected)).await
            }
            Ask::Attach(attach) => send(stream, &Answer::from(self.outgoing.attach(attach))).await,
            Ask::Log(log) => {
                record(&log);
                send(stream, &Answer::Ok(Done {})).await
            }
        }
    }

    /// Passes a question on to the pod, and its answer back.
    async fn pass<T: Serialize + DeserializeOwned>(
        &self,
        stream: &mut UnixStream,
        request: &Request,
    ) -> io::Result<()> {
        let answer = self.link.ask::<T>(request).await.map(|(value, _)| value);
        send(stream, &told(answer)).await
    }
}

fn welcome(hello: &Hello) -> Welcome {
    tracing::debug!(pid = hello.pid, program = bounded(&hello.program), "a layer says hello");
    Welcome { version: hello.version.min(VERSION) }
}

fn record(log: &Log) {
    let text = bounded(&log.text);
    match log.level {
        Level::Warning => tracing::warn!(text, "from a layer"),
        Level::Debug | Level::Unknown => tracing::debug!(text, "from a layer"),
    }
}

fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES)).unwrap_or_default()
}

/// A target that a kernel could have given: programs take it for a path.
fn plausible(link: conversation::Link) -> Result<conversation::Link, LinkError> {
    let target = &link.target;
    if target.is_empty() || target.len() > PATH_BYTES || target.contains(&0) {
        let message = "the pod's link leads to what is no path";
        return Err(LinkError::Failed(Failure::new(FailureCode::Malformed, libc::EIO, message)));
    }
    Ok(link)
}

/// No more addresses than the wire allows: a program may try them one by one.
fn few(mut found: conversation::Resolved) -> conversation::Resolved {
    found.addresses.truncate(ADDRESSES);
    found
}

fn told<T>(result: Result<T, LinkError>) -> Answer<T> {
    match result {
        Ok(value) => Answer::Ok(value),
        Err(LinkError::Failed(failure)) => Answer::Failed(failure),
        Err(LinkError::Over(reason)) => Answer::Ended(Ended { reason }),
    }
}

/// Whether the process at the other end is of our user.
pub(super) fn is_own(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

/// Where no descriptor is left, accept(2) fails at once, again and again.
pub(super) async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be taken");
    tokio::task::yield_now().await;
    let second = tokio::time::Instant::now() + std::time::Duration::from_secs(1);
    tokio::time::sleep_until(second).await;
}

async fn receive(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; PREFIX_BYTES];
    match stream.read_exact(&mut prefix).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let mut body = vec![0; conversation::body_length(prefix).map_err(io::Error::other)?];
    stream.read_exact(&mut body).await?;
    Ok(Some(body))
}

async fn send<T: Serialize>(stream: &mut UnixStream, answer: &T) -> io::Result<()> {
    stream.write_all(&conversation::encode(answer).map_err(io::Error::other)?).await
}

/// The descriptor goes with the first byte.
async fn send_with_descriptor<T: Serialize>(
    stream: &mut UnixStream,
    answer: &T,
    descriptor: &OwnedFd,
) -> io::Result<()> {
    let message = conversation::encode(answer).map_err(io::Error::other)?;
    let socket = &*stream;
    let sent = socket
        .async_io(Interest::WRITABLE, || send_once(socket.as_fd(), &message, descriptor.as_fd()))
        .await?;
    stream.write_all(message.get(sent..).unwrap_or_default()).await
}

fn send_once(socket: BorrowedFd<'_>, message: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?)
}
