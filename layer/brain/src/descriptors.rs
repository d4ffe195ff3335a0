//! What the program's remote descriptors are: attributes and paths of files, addresses of sockets.
//!
//! The table's key is not the descriptor's number but what the kernel says of the thing behind it: device and inode of
//! the memfd or socket (fstat(2)). So close, dup, fcntl, close_range, SCM_RIGHTS, fork and vfork need no attention,
//! cost nothing, and can't make the table lie: a number that came to mean something else has another inode. What
//! is no longer open is forgotten when the table has doubled, by a look at `/proc/self/fd`.
//!
//! A signal handler may ask as well (fstat is async-signal-safe, signal-safety(7)), so signals wait while the lock is
//! held; and it is held across fork(2), by [`Table::hold`], so that a child never finds it taken by a thread it hasn't got.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::c_int,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use mirrord_protocol::{path::RemotePath, reply::Attributes};

use crate::{
    listing::{self, Record},
    sys::{self, SignalsBlocked, Status},
};

/// Device and inode: what tells a thing from all others on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// As in `st_dev`.
    pub device: u64,
    /// As in `st_ino`.
    pub inode: u64,
}

impl From<&Status> for Identity {
    fn from(status: &Status) -> Self {
        Self { device: status.st_dev, inode: status.st_ino }
    }
}

/// A remote file or folder that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As fstat(2) said in the pod.
    pub attributes: Attributes,
    /// What it was opened as.
    pub path: RemotePath,
}

impl File {
    /// Whether its descriptor holds a [`listing`].
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.attributes.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// A socket whose connection is remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The pod's side.
    pub local: SocketAddr,
    /// The other side.
    pub peer: SocketAddr,
    /// The proxy's listener that it really is connected to.
    pub listener: SocketAddr,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    File(Arc<File>),
    Socket(Socket),
}

/// The table of one process.
#[derive(Debug, Default)]
pub struct Table {
    rows: Mutex<Rows>,
    /// Device of all memfds once one is known: the quick way to tell that a file is none of ours.
    memory: AtomicU64,
    /// How many folders and sockets there are, or more: with none, nobody needs to look.
    folders: AtomicUsize,
    sockets: AtomicUsize,
}

#[derive(Debug, Default)]
struct Rows {
    known: BTreeMap<Identity, Known>,
    /// At this size, what isn't open any more is forgotten.
    sweep_at: usize,
}

const SWEEP_AT_LEAST: usize = 64;

/// The lock, with signals waiting. Fields drop in order: first the lock, then signals are let in.
struct Held<'a> {
    rows: MutexGuard<'a, Rows>,
    _signals: SignalsBlocked,
}

/// Keeps all others out of the table, across fork(2).
#[must_use = "the table is let go when it is dropped"]
pub struct Hold<'a>(#[expect(dead_code, reason = "held, not read")] Held<'a>);

impl Table {
    fn lock(&self) -> Held<'_> {
        let signals = SignalsBlocked::block();
        Held { rows: self.rows.lock().unwrap_or_else(PoisonError::into_inner), _signals: signals }
    }

    /// Keeps all others out until the guard is dropped.
    pub fn hold(&self) -> Hold<'_> {
        Hold(self.lock())
    }

    /// Remembers an open file.
    pub fn add_file(&self, identity: Identity, file: File) {
        self.memory.store(identity.device, Ordering::Relaxed);
        self.folders.fetch_add(usize::from(file.is_folder()), Ordering::Relaxed);
        self.add(identity, Known::File(Arc::new(file)));
    }

    /// Remembers a connected socket.
    pub fn add_socket(&self, identity: Identity, socket: Socket) {
        self.sockets.fetch_add(1, Ordering::Relaxed);
        self.add(identity, Known::Socket(socket));
    }

    fn add(&self, identity: Identity, known: Known) {
        let mut held = self.lock();
        let rows = &mut *held.rows;
        rows.known.insert(identity, known);
        if rows.known.len() >= rows.sweep_at.max(SWEEP_AT_LEAST) {
            if let Some(open) = open_now() {
                rows.known.retain(|identity, _| open.contains(identity));
            }
            rows.sweep_at = rows.known.len() * 2;
            self.count(rows);
        }
    }

    /// Counts anew; in between, the counts only grow.
    fn count(&self, rows: &Rows) {
        let count = |wanted: fn(&Known) -> bool| rows.known.values().filter(|known| wanted(known)).count();
        let folders = count(|known| matches!(known, Known::File(file) if file.is_folder()));
        self.folders.store(folders, Ordering::Relaxed);
        self.sockets.store(count(|known| matches!(known, Known::Socket(_))), Ordering::Relaxed);
    }

    /// Forgets a thing.
    pub fn forget(&self, identity: Identity) {
        self.lock().rows.known.remove(&identity);
    }

    /// The remote file behind what fstat(2) said.
    #[must_use]
    pub fn file(&self, identity: Identity) -> Option<Arc<File>> {
        let memory = self.memory.load(Ordering::Relaxed);
        if memory == 0 || memory != identity.device {
            return None;
        }
        match self.lock().rows.known.get(&identity) {
            Some(Known::File(file)) => Some(Arc::clone(file)),
            _ => None,
        }
    }

    /// The remote folder behind a number.
    #[must_use]
    pub fn folder(&self, descriptor: c_int) -> Option<Arc<File>> {
        if self.folders.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let status = sys::status(descriptor).ok()?;
        self.file(Identity::from(&status)).filter(|file| file.is_folder())
    }

    /// The remote socket behind a number, with its identity.
    #[must_use]
    pub fn socket(&self, descriptor: c_int) -> Option<(Identity, Socket)> {
        if self.sockets.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let identity = Identity::from(&sys::status(descriptor).ok()?);
        match self.lock().rows.known.get(&identity) {
            Some(Known::Socket(socket)) => Some((identity, *socket)),
            _ => None,
        }
    }

    /// Whether nothing was ever remembered, at no cost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory.load(Ordering::Relaxed) == 0 && self.sockets.load(Ordering::Relaxed) == 0
    }

    /// Calls `each` with all that stays open across execve(2).
    pub(crate) fn for_each_inherited(&self, mut each: impl FnMut(Identity, &Known)) {
        let held = self.lock();
        for_each_open(|number, status| {
            let stays =
                sys::control(number, libc::F_GETFD, 0).is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0);
            let identity = Identity::from(status);
            if let Some(known) = held.rows.known.get(&identity).filter(|_| stays) {
                each(identity, known);
            }
        });
    }

    /// Fills in what the program before execve(2) knew.
    pub(crate) fn add_known(&self, identity: Identity, known: Known) {
        match known {
            Known::File(file) => self.add_file(identity, Arc::unwrap_or_clone(file)),
            Known::Socket(socket) => self.add_socket(identity, socket),
        }
    }
}

/// Identities of all that the process has open; `None` where it can't be told.
fn open_now() -> Option<BTreeSet<Identity>> {
    let mut found = BTreeSet::new();
    for_each_open(|_, status| {
        found.insert(Identity::from(status));
    })
    .then_some(found)
}

/// Calls `each` for every open descriptor, without allocating; `false` where it couldn't look.
fn for_each_open(mut each: impl FnMut(c_int, &Status)) -> bool {
    let Ok(folder) = sys::open(c"/proc/self/fd", libc::O_RDONLY | libc::O_DIRECTORY) else { return false };
    let mut buffer = [0; 4096];
    loop {
        let count = match sys::read_folder(folder.as_fd(), &mut buffer) {
            Ok(0) => return true,
            Ok(count) => count,
            Err(_) => return false,
        };
        let mut position = 0;
        while let Some(Record { name, next, .. }) = listing::record(&buffer[..count], position) {
            position = next;
            let number = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
            let status = number.and_then(|number| Some((number, sys::status(number).ok()?)));
            if let Some((number, status)) = status {
                each(number, &status);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpListener, os::fd::AsRawFd};

    use super::*;

    fn identity(file: &impl AsRawFd) -> Identity {
        Identity::from(&sys::status(file.as_raw_fd()).unwrap())
    }

    fn file(name: &str, mode: u32) -> File {
        let attributes = Attributes { mode, size: 7, ..Attributes::default() };
        File { attributes, path: RemotePath::new(name).unwrap() }
    }

    #[test]
    fn a_file_is_known_by_what_is_behind_its_number() {
        let table = Table::default();
        let open = tempfile::tempfile().unwrap();
        assert!(table.is_empty());
        table.add_file(identity(&open), file("/srv/x", libc::S_IFREG));
        let copy = open.try_clone().unwrap();
        assert_eq!(table.file(identity(&copy)).unwrap().path.as_bytes(), b"/srv/x");
        let other = tempfile::tempfile().unwrap();
        assert_eq!(table.file(identity(&other)), None);
        assert_eq!(table.folder(open.as_raw_fd()), None, "a file is no folder");
    }

    #[test]
    fn sockets_keep_their_remote_addresses_until_forgotten() {
        let table = Table::default();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = |text: &str| text.parse().unwrap();
        let socket = Socket {
            local: address("10.0.0.1:1"),
            peer: address("10.0.0.2:2"),
            listener: address("127.0.0.1:3"),
        };
        table.add_socket(identity(&open), socket);
        let (found, known) = table.socket(open.as_raw_fd()).unwrap();
        assert_eq!(known, socket);
        table.forget(found);
        assert_eq!(table.socket(open.as_raw_fd()), None);
    }

    #[test]
    fn what_is_closed_is_forgotten_in_the_end_and_what_is_open_never() {
        let table = Table::default();
        let kept = tempfile::tempfile().unwrap();
        table.add_file(identity(&kept), file("/kept", libc::S_IFREG));
        for inode in 0..10_000 {
            let closed = Identity { device: u64::MAX, inode };
            table.add(closed, Known::File(Arc::new(file("/closed", libc::S_IFREG))));
        }
        assert!(table.file(identity(&kept)).is_some());
        assert!(table.lock().rows.known.len() <= 2 * SWEEP_AT_LEAST);
    }

    #[test]
    fn what_is_inherited_is_what_stays_open_across_exec() {
        let table = Table::default();
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            fs::write(folder.path().join(name), "x").unwrap();
            let file = fs::File::open(folder.path().join(name)).unwrap();
            table.add_file(identity(&file), self::file(&format!("/{name}"), libc::S_IFREG));
            file
        };
        let (closes, stays) = (open("closes"), open("stays"));
        sys::control(stays.as_raw_fd(), libc::F_SETFD, 0).unwrap();
        let mut found = Vec::new();
        table.for_each_inherited(|identity, _| found.push(identity));
        assert_eq!(found, [identity(&stays)]);
        drop(closes);
    }
}
