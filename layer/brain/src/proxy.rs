//! Asks the proxy, over a connection per thread.
//!
//! A connection is made at a thread's first question and kept. While a question is under way it belongs to the call
//! alone, taken out of the thread's place: a signal handler that asks meanwhile, or that leaves by longjmp(3), finds the
//! place empty and makes another. Before each use three things are made sure of: that we are the process that made it
//! (a fork's child must not share its parent's), that its number still is our socket (programs close what they don't
//! know), and that its number is high, so that the program's own descriptors keep the lowest.

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    mem::{self, ManuallyDrop},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use mirrord_protocol::{
    frame::{FrameError, PREFIX_BYTES},
    limits::TEXT_BYTES,
    reply::Failure,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::{
    conversation::{self, Answer, Ask, Done, Hello, Level, Log, Opened, VERSION, Welcome},
    descriptors::Identity,
    sys::{self, Errno, ThreadEnd},
    text::printable,
};

/// Our descriptors are numbered from here, or from half of what the process may have.
const LOWEST_NUMBER: u64 = 1000;

/// Why a question wasn't answered as hoped.
#[derive(Debug, Error)]
pub enum AskError {
    /// The pod said no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The session is over, or its proxy gone.
    #[error("the session ended: {0}")]
    Ended(String),
    /// An answer came without its descriptor: the process has too many.
    #[error("no descriptor came along")]
    NoDescriptor,
}

/// What goes wrong on one connection.
enum Broken {
    Errno(Errno),
    HungUp,
    Frame(FrameError),
}

impl From<Errno> for Broken {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl Broken {
    fn reason(&self) -> String {
        match self {
            Self::Errno(errno) => format!("its proxy can't be reached ({errno})"),
            Self::HungUp => "its proxy hung up".to_owned(),
            Self::Frame(error) => format!("its proxy can't be understood ({error})"),
        }
    }
}

/// The way to the proxy.
#[derive(Debug)]
pub struct Proxy {
    socket: PathBuf,
    /// The process, as far as fork(2) told us.
    process: AtomicU32,
    complained: AtomicBool,
}

/// One connection.
struct Channel {
    socket: OwnedFd,
    identity: Identity,
    process: u32,
}

thread_local! {
    /// Closed by [`THREAD_END`].
    static CHANNEL: Cell<Option<ManuallyDrop<Channel>>> = const { Cell::new(None) };
}

static THREAD_END: ThreadEnd = ThreadEnd::new();

extern "C" fn close_channel(_: *mut c_void) {
    if let Some(channel) = CHANNEL.take() {
        ManuallyDrop::into_inner(channel).leave();
    }
}

impl Proxy {
    /// The way to a proxy at a unix socket. Nothing is connected yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        THREAD_END.prepare(close_channel);
        Self { socket, process: AtomicU32::new(sys::process()), complained: AtomicBool::new(false) }
    }

    /// To be called in the child of a fork(2) that copied memory.
    pub fn after_fork(&self) {
        self.process.store(sys::process(), Ordering::Relaxed);
        self.complained.store(false, Ordering::Relaxed);
    }

    /// Whether this process owns its memory: not between vfork(2) and execve(2), nor behind a fork we weren't told of.
    #[must_use]
    pub fn is_own_process(&self) -> bool {
        self.process.load(Ordering::Relaxed) == sys::process()
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, AskError> {
        self.converse(ask, true).map(|(answer, _)| answer)
    }

    /// Asks for a file or folder.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn open(&self, ask: &Ask, close_on_exec: bool) -> Result<(Opened, OwnedFd), AskError> {
        let (opened, descriptor) = self.converse(ask, close_on_exec)?;
        descriptor.map(|descriptor| (opened, descriptor)).ok_or(AskError::NoDescriptor)
    }

    /// Leaves a line with the proxy; lost where there is none.
    pub fn log(&self, level: Level, mut text: String) {
        let end = (0..=TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        let _: Result<Done, _> = self.ask(&Ask::Log(Log { level, text }));
    }

    fn converse<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        close: bool,
    ) -> Result<(T, Option<OwnedFd>), AskError> {
        let process = sys::process();
        let known = self.take(process);
        let first = known.map(|channel| (channel.exchange(ask, close), channel));
        let (result, channel) = match first {
            Some((Ok(answer), channel)) => (Ok(answer), Some(channel)),
            // Kept from earlier, it may have been cut since: once more, on a new one.
            _ => self.on_new_channel(ask, close, process),
        };
        if let Some(channel) = channel {
            self.put_back(channel);
        }
        match result {
            Ok((Answer::Ok(value), descriptor)) => Ok((value, descriptor)),
            Ok((Answer::Failed(failure), _)) => Err(AskError::Failed(failure)),
            Ok((Answer::Ended(ended), _)) => Err(self.ended(ended.reason)),
            Err(broken) => Err(self.ended(broken.reason())),
        }
    }

    #[expect(
        clippy::type_complexity,
        reason = "an answer and what it came by; named parts would say no more"
    )]
    fn on_new_channel<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        close: bool,
        process: u32,
    ) -> (Result<(Answer<T>, Option<OwnedFd>), Broken>, Option<Channel>) {
        let channel = match Channel::new(&self.socket, process) {
            Ok(channel) => channel,
            Err(broken) => return (Err(broken), None),
        };
        let hello = Ask::Hello(Hello { version: VERSION, pid: process, program: program() });
        match channel.exchange::<Welcome>(&hello, true) {
            Ok((Answer::Ok(_), _)) => {}
            Ok((Answer::Failed(failure), _)) => return (Ok((Answer::Failed(failure), None)), None),
            Ok((Answer::Ended(ended), _)) => return (Ok((Answer::Ended(ended), None)), None),
            Err(broken) => return (Err(broken), None),
        }
        match channel.exchange(ask, close) {
            Ok(answer) => (Ok(answer), Some(channel)),
            Err(broken) => (Err(broken), None),
        }
    }

    /// The thread's connection, if it is there and ours.
    fn take(&self, process: u32) -> Option<Channel> {
        let channel = ManuallyDrop::into_inner(CHANNEL.take()?);
        if channel.process == process && channel.is_there() {
            return Some(channel);
        }
        if channel.process != process && !self.is_own_process() {
            // A vfork's child: the place is its parent's, who will go on with the connection.
            CHANNEL.set(Some(ManuallyDrop::new(channel)));
        } else {
            channel.leave();
        }
        None
    }

    /// Keeps a connection for the thread's next question, unless the place is a parent's. Where nobody would close it at the
    /// thread's end, it is closed now.
    fn put_back(&self, channel: Channel) {
        if !self.is_own_process() || !THREAD_END.ask() {
            return;
        }
        // There may be one that a signal handler put there meanwhile.
        let before = CHANNEL.replace(Some(ManuallyDrop::new(channel)));
        drop(before.map(ManuallyDrop::into_inner));
    }

    /// Says once per process what happened.
    fn ended(&self, reason: String) -> AskError {
        if !self.complained.swap(true, Ordering::Relaxed) {
            sys::complain(&format!("mirrord: the session ended: {}\n", printable(&reason)));
        }
        AskError::Ended(reason)
    }
}

impl Channel {
    fn new(path: &std::path::Path, process: u32) -> Result<Self, Broken> {
        let low = sys::unix_stream(path)?;
        let lowest = LOWEST_NUMBER.min(sys::descriptor_limit() / 2);
        let lowest = c_int::try_from(lowest).unwrap_or(0);
        // Where the limit was lowered since, the low number has to do.
        let socket = sys::duplicate_above(low.as_fd(), lowest).unwrap_or(low);
        let identity = Identity::from(&sys::status(socket.as_raw_fd())?);
        Ok(Self { socket, identity, process })
    }

    /// Closes it, unless its number is somebody else's by now.
    fn leave(self) {
        if !self.is_there() {
            mem::forget(self.socket);
        }
    }

    fn is_there(&self) -> bool {
        sys::status(self.socket.as_raw_fd()).is_ok_and(|status| Identity::from(&status) == self.identity)
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        close_on_exec: bool,
    ) -> Result<(Answer<T>, Option<OwnedFd>), Broken> {
        sys::send(self.socket.as_fd(), &conversation::encode(ask)?)?;
        let mut prefix = [0; PREFIX_BYTES];
        let (mut filled, descriptor) = sys::receive(self.socket.as_fd(), &mut prefix, close_on_exec)?;
        if filled == 0 {
            return Err(Broken::HungUp);
        }
        while filled < PREFIX_BYTES {
            filled += self.receive_some(&mut prefix[filled..])?;
        }
        let mut body = vec![0; conversation::body_length(prefix)?];
        let mut filled = 0;
        while filled < body.len() {
            filled += self.receive_some(&mut body[filled..])?;
        }
        Ok((conversation::decode_answer(&body)?, descriptor))
    }

    fn receive_some(&self, buffer: &mut [u8]) -> Result<usize, Broken> {
        match sys::receive(self.socket.as_fd(), buffer, true)? {
            (0, _) => Err(Broken::HungUp),
            (count, _) => Ok(count),
        }
    }
}

/// Name of the executable, for the proxy's log.
fn program() -> String {
    let mut buffer = [0; TEXT_BYTES];
    let path = sys::read_link(c"/proc/self/exe", &mut buffer).unwrap_or_default();
    String::from_utf8_lossy(path).into_owned()
}
