//! One object: resolved without being opened, so that it can be judged first.

use std::{
    fs::File,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use mirrord_protocol::reply::{Attributes, Time};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawMode, ResolveFlags, Statx, StatxFlags, StatxTimestamp,
        makedev, openat, openat2, statx,
    },
    io::Errno,
};

use super::Refusal;

/// How often a resolution is tried again that raced with a rename or mount (EAGAIN in openat2(2)).
const TRIES: usize = 64;

/// An object that was resolved, not opened.
pub(super) struct Node {
    pub(super) handle: OwnedFd,
    pub(super) status: Statx,
}

impl Node {
    /// Resolves a path as if `root` were `/`.
    pub(super) fn resolve(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<Self, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        let handle = loop {
            match openat2(root, path, flags, Mode::empty(), inside) {
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                other => break other?,
            }
        };
        let status = statx(&handle, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        Ok(Self { handle, status })
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(RawMode::from(self.status.stx_mode))
    }

    /// A name of this very object. A process may always use its own descriptors' links, hidden from others or not.
    pub(super) fn link(&self) -> String {
        format!("/proc/self/fd/{}", self.handle.as_raw_fd())
    }

    /// Opens a file or folder for reading, and nothing else.
    pub(super) fn open(&self) -> Result<File, Refusal> {
        match self.kind() {
            FileType::RegularFile | FileType::Directory => {}
            FileType::Symlink => return Err(Errno::LOOP.into()),
            FileType::Fifo => return Err(Refusal::Never("FIFOs")),
            FileType::Socket => return Err(Refusal::Never("sockets")),
            _ => return Err(Refusal::Never("devices")),
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(openat(CWD, self.link(), flags, Mode::empty())?.into())
    }
}

/// As the wire has them.
pub(super) fn attributes(status: &Statx) -> Attributes {
    let time = |stamp: StatxTimestamp| Time(stamp.tv_sec, stamp.tv_nsec);
    Attributes {
        mode: u32::from(status.stx_mode),
        size: status.stx_size,
        uid: status.stx_uid,
        gid: status.stx_gid,
        ino: status.stx_ino,
        dev: makedev(status.stx_dev_major, status.stx_dev_minor),
        nlink: u64::from(status.stx_nlink),
        rdev: makedev(status.stx_rdev_major, status.stx_rdev_minor),
        blksize: status.stx_blksize,
        blocks: status.stx_blocks,
        atime: time(status.stx_atime),
        mtime: time(status.stx_mtime),
        ctime: time(status.stx_ctime),
    }
}
