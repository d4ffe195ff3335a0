//! A proxy for tests: answers the layer's questions from a folder, a table of names and a table of addresses.
//!
//! A thread per connection, blocking calls: the least that speaks the conversation. `mirrord`'s own proxy does the same
//! through the tunnel.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    io::{self, IoSlice, Read, Write},
    mem::MaybeUninit,
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::MetadataExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use mirrord_layer_brain::{
    conversation::{
        self, Answer, Ask, Attributes, Connected, Done, Ended, FILE_MEMFD, FOLDER_MEMFD, Link, Open, Opened,
        Resolve, Resolved, Stat, VERSION, Welcome,
    },
    listing,
};
use mirrord_protocol::{
    frame::PREFIX_BYTES,
    reply::{Entry, Failure, Time},
    request::Family,
};
use rustix::{
    fs::{Gid, MemfdFlags, Mode, OFlags, SealFlags, Timespec, Timestamps, Uid},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};
use serde::Serialize;

/// What the tests' proxy serves, and what it was asked.
#[derive(Default)]
pub(crate) struct Pod {
    /// The remote root.
    pub(crate) root: PathBuf,
    /// What stands in for remote addresses, on this machine.
    pub(crate) addresses: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Names and their addresses.
    pub(crate) names: Mutex<HashMap<String, Vec<IpAddr>>>,
    /// Why the session is over, once it is.
    pub(crate) ended: Mutex<Option<String>>,
    /// Everything that was asked, as debug text.
    pub(crate) asked: Mutex<Vec<String>>,
    waiting: Mutex<HashMap<u64, (TcpListener, TcpStream)>>,
    tickets: AtomicU64,
}

/// One answer, and what goes with it.
type Reply = (Vec<u8>, Option<OwnedFd>);

/// Serves until the listener is gone.
pub(crate) fn serve(pod: Arc<Pod>, listener: UnixListener) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let pod = Arc::clone(&pod);
            thread::spawn(move || converse(&pod, stream));
        }
    });
}

/// Until the layer hangs up.
fn converse(pod: &Pod, mut stream: UnixStream) -> io::Result<()> {
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        stream.read_exact(&mut prefix)?;
        let mut body = vec![0; conversation::body_length(prefix).map_err(io::Error::other)?];
        stream.read_exact(&mut body)?;
        let ask = Ask::decode(&body).map_err(io::Error::other)?;
        pod.asked.lock().unwrap().push(format!("{ask:?}"));
        let over = pod.ended.lock().unwrap().clone();
        let (bytes, descriptor) = match over {
            Some(reason) => (conversation::encode(&Answer::<Done>::Ended(Ended { reason })).unwrap(), None),
            None => pod.answer(ask),
        };
        // The first byte brings the descriptor.
        let sent = match &descriptor {
            Some(descriptor) => send_with(&stream, &bytes, descriptor)?,
            None => 0,
        };
        stream.write_all(&bytes[sent..])?;
    }
}

fn send_with(stream: &UnixStream, bytes: &[u8], descriptor: &OwnedFd) -> io::Result<usize> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors = [descriptor.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?)
}

fn reply<T: Serialize>(result: Result<T, Failure>) -> Reply {
    (conversation::encode(&Answer::from(result)).unwrap(), None)
}

fn failure(error: &io::Error) -> Failure {
    Failure::system(error.raw_os_error().unwrap_or(libc::EIO))
}

impl Pod {
    /// A pod with these files, and nothing else yet.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, ..Self::default() }
    }

    fn answer(&self, ask: Ask) -> Reply {
        match ask {
            Ask::Hello(_) => reply(Ok(Welcome { version: VERSION })),
            Ask::Open(open) => match self.open(&open) {
                Ok((opened, descriptor)) => (reply(Ok(opened)).0, Some(descriptor)),
                Err(error) => reply::<Opened>(Err(failure(&error))),
            },
            Ask::Stat(stat) => reply(self.stat(&stat).map_err(|error| failure(&error))),
            Ask::ReadLink(link) => {
                let target = fs::read_link(self.place(link.path.as_bytes()));
                let link = target.map(|target| Link { target: target.into_os_string().into_vec() });
                reply(link.map_err(|error| failure(&error)))
            }
            Ask::Connect(connect) => reply(self.connect(connect.address, connect.v6_only)),
            Ask::Attach(attach) => reply(self.attach(attach.ticket, attach.local)),
            Ask::Resolve(resolve) => reply(self.resolve(&resolve)),
            Ask::Log(_) => reply(Ok(Done {})),
        }
    }

    /// Where a remote path lies on this machine.
    fn place(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path).to_str().unwrap().trim_start_matches('/'))
    }

    fn open(&self, open: &Open) -> io::Result<(Opened, OwnedFd)> {
        let path = self.place(open.path.as_bytes());
        let metadata = if open.no_follow { fs::symlink_metadata(&path)? } else { fs::metadata(&path)? };
        let attributes = attributes(&metadata);
        if metadata.is_symlink() {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if metadata.is_dir() {
            return Ok((Opened { attributes }, memory(FOLDER_MEMFD, &list(&path)?, &attributes)?));
        }
        if open.directory {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        Ok((Opened { attributes }, memory(FILE_MEMFD, &fs::read(&path)?, &attributes)?))
    }

    fn stat(&self, stat: &Stat) -> io::Result<Attributes> {
        let path = self.place(stat.path.as_bytes());
        let metadata = if stat.no_follow { fs::symlink_metadata(&path)? } else { fs::metadata(&path)? };
        // The tests run as root, for whom only missing x bits count.
        if stat.access & 1 != 0 && metadata.mode() & 0o111 == 0 {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        Ok(attributes(&metadata))
    }

    fn connect(&self, address: SocketAddr, v6_only: bool) -> Result<Connected, Failure> {
        let known = self.addresses.lock().unwrap().get(&address).copied();
        let Some(target) = known else { return Err(Failure::system(libc::ENETUNREACH)) };
        let remote = TcpStream::connect(target).map_err(|error| failure(&error))?;
        let listener = TcpListener::bind(if v6_only { "[::1]:0" } else { "127.0.0.1:0" });
        let listener = listener.map_err(|error| failure(&error))?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let port = listener.local_addr().map_err(|error| failure(&error))?;
        self.waiting.lock().unwrap().insert(ticket, (listener, remote));
        let pod_side = if address.is_ipv6() { "[2001:db8::aa]:40000" } else { "10.9.9.9:40000" };
        Ok(Connected { ticket, listener: port, local: pod_side.parse().unwrap(), peer: address })
    }

    fn attach(&self, ticket: u64, local: SocketAddr) -> Result<Done, Failure> {
        let waiting = self.waiting.lock().unwrap().remove(&ticket);
        let (listener, remote) = waiting.ok_or_else(|| Failure::system(libc::ENOENT))?;
        loop {
            let (stream, from) = listener.accept().map_err(|error| failure(&error))?;
            if from == local {
                relay(stream, remote);
                return Ok(Done {});
            }
        }
    }

    fn resolve(&self, resolve: &Resolve) -> Result<Resolved, Failure> {
        let unknown = || Failure::lookup(libc::EAI_NONAME, format!("{} isn't known", resolve.name));
        let mut addresses = self.names.lock().unwrap().get(&resolve.name).cloned().ok_or_else(unknown)?;
        addresses.retain(|address| match resolve.family {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        });
        let canonical = resolve.canonical.then(|| format!("{}.pod.test", resolve.name));
        Ok(Resolved { addresses, canonical })
    }

    /// How often something was asked whose debug text begins so.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|ask| ask.starts_with(kind)).count()
    }
}

/// Copies both ways, half-close kept.
fn relay(one: TcpStream, other: TcpStream) {
    for (mut from, mut to) in [(one.try_clone(), other.try_clone()), (Ok(other), Ok(one))]
        .into_iter()
        .map(|(from, to): (io::Result<_>, io::Result<_>)| (from.unwrap(), to.unwrap()))
    {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

fn list(folder: &Path) -> io::Result<Vec<u8>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let attributes = Some(attributes(&fs::symlink_metadata(entry.path())?));
        entries.push(Entry { name: entry.file_name().into_vec(), attributes });
    }
    let parent = fs::metadata(folder.join(".."))?.ino();
    Ok(listing::encode(&attributes(&fs::metadata(folder)?), parent, &entries))
}

/// A sealed memfd, reopened read-only, as the conversation wants it.
fn memory(name: &str, content: &[u8], attributes: &Attributes) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    fs::File::from(memory.try_clone()?).write_all(content)?;
    rustix::fs::fchmod(&memory, Mode::from_raw_mode(attributes.mode & 0o7777))?;
    let owner = (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)));
    rustix::fs::fchown(&memory, owner.0, owner.1)?;
    let time = |Time(seconds, nanoseconds)| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time(attributes.atime), last_modification: time(attributes.mtime) };
    rustix::fs::futimens(&memory, &times)?;
    let seals = SealFlags::from_bits_retain(conversation::SEALS.cast_unsigned());
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    Ok(rustix::fs::open(link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// As the pod's kernel would say; the device is one that no local file has.
fn attributes(metadata: &fs::Metadata) -> Attributes {
    let time = |seconds, nanoseconds: i64| Time(seconds, u32::try_from(nanoseconds).unwrap());
    Attributes {
        mode: metadata.mode(),
        size: metadata.size(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        ino: metadata.ino(),
        dev: metadata.dev(),
        nlink: metadata.nlink(),
        rdev: metadata.rdev(),
        blksize: u32::try_from(metadata.blksize()).unwrap(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}
