//! Files: where a path leads, and what open, stat, access and readlink find there.

use std::{
    ffi::{CStr, CString, c_int},
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::Ordering,
};

use mirrord_protocol::{
    path::{PathError, RemotePath},
    reply::Attributes,
};

use crate::{
    conversation::{Ask, Link, Open, ReadLink, Stat},
    descriptors::{File, Identity},
    layer::{Handled, Instead, Layer},
    paths,
    rules::Side,
    sys::{self, Errno, Status},
};

/// A path as the `*at` calls take it.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// A folder's descriptor, or `AT_FDCWD`.
    pub folder: c_int,
    /// The path.
    pub path: &'a CStr,
}

impl<'a> At<'a> {
    /// A path as calls without a folder take it.
    #[must_use]
    pub fn here(path: &'a CStr) -> Self {
        Self { folder: libc::AT_FDCWD, path }
    }
}

const WRITES: c_int = libc::O_WRONLY | libc::O_RDWR;
/// The bit of `O_TMPFILE` that isn't `O_DIRECTORY`.
const TEMPORARY: c_int = libc::O_TMPFILE & !libc::O_DIRECTORY;
/// What fcntl(2) can set of what open(2) takes.
const LATER: c_int = libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOATIME;

impl Layer {
    /// The remote path that a path means.
    pub(crate) fn locate(&self, at: At<'_>) -> Handled<RemotePath> {
        let path = at.path.to_bytes();
        match path.first() {
            None => Err(Instead::Local),
            Some(b'/') => match self.rules.decide(path) {
                Side::Local => Err(Instead::Local),
                Side::Remote => remote(path.to_vec()),
            },
            Some(_) if at.folder == libc::AT_FDCWD => self.locate_here(path),
            Some(_) => self.locate_below(at.folder, path),
        }
    }

    fn locate_here(&self, path: &[u8]) -> Handled<RemotePath> {
        if self.rules.is_all_local() || (!paths::climbs(path) && self.is_folder_local()) {
            return Err(Instead::Local);
        }
        let mut buffer = [0; libc::PATH_MAX as usize];
        let Ok(folder) = sys::working_directory(&mut buffer) else { return Err(Instead::Local) };
        let joined = paths::join_real(folder, path);
        match self.rules.decide(&joined) {
            Side::Local => Err(Instead::Local),
            Side::Remote => remote(joined),
        }
    }

    fn locate_below(&self, folder: c_int, path: &[u8]) -> Handled<RemotePath> {
        if let Some(known) = self.table.folder(folder) {
            let joined = paths::join(known.path.as_bytes(), path);
            return match self.rules.decide(&joined) {
                Side::Remote => remote(joined),
                Side::Local => {
                    let path = CString::new(paths::normal(&joined)).map_err(|_| Errno(libc::EINVAL))?;
                    Err(Instead::LocalAt(path))
                }
            };
        }
        if self.rules.is_all_local() || !(self.rules.is_nested() || paths::climbs(path)) {
            return Err(Instead::Local);
        }
        let mut buffer = [0; libc::PATH_MAX as usize];
        let link = CString::new(format!("/proc/self/fd/{folder}")).map_err(|_| Errno(libc::EINVAL))?;
        match sys::read_link(&link, &mut buffer) {
            Ok(folder) if folder.first() == Some(&b'/') => {
                let joined = paths::join_real(folder, path);
                if self.rules.decide(&joined) == Side::Remote { remote(joined) } else { Err(Instead::Local) }
            }
            _ => Err(Instead::Local),
        }
    }

    /// open(2).
    ///
    /// # Errors
    /// What to do [`Instead`].
    pub fn open(&self, at: At<'_>, flags: c_int) -> Handled<OwnedFd> {
        let path = self.locate(at)?;
        let writes = flags & (WRITES | libc::O_TRUNC | TEMPORARY) != 0;
        if writes || flags & (libc::O_CREAT | libc::O_EXCL) == libc::O_CREAT | libc::O_EXCL {
            return Err(self.read_only(&path));
        }
        let ask = Open {
            path: path.clone(),
            no_follow: flags & libc::O_NOFOLLOW != 0,
            directory: flags & libc::O_DIRECTORY != 0,
        };
        match self.proxy.open(&Ask::Open(ask), flags & libc::O_CLOEXEC != 0) {
            Ok((opened, descriptor)) => {
                let identity = Identity::from(&sys::status(descriptor.as_raw_fd())?);
                self.table.add_file(identity, File { attributes: opened.attributes, path });
                if flags & LATER != 0 {
                    sys::control(descriptor.as_raw_fd(), libc::F_SETFL, flags & LATER)?;
                }
                Ok(descriptor)
            }
            Err(error) => match Instead::from(error) {
                Instead::Fail(Errno(libc::ENOENT)) if flags & libc::O_CREAT != 0 => {
                    Err(self.read_only(&path))
                }
                other => Err(other),
            },
        }
    }

    /// A call that would change a file.
    ///
    /// # Errors
    /// Always: what to do [`Instead`].
    pub fn change(&self, at: At<'_>) -> Handled<std::convert::Infallible> {
        let path = self.locate(at)?;
        Err(self.read_only(&path))
    }

    fn read_only(&self, path: &RemotePath) -> Instead {
        if !self.warned_read_only.swap(true, Ordering::Relaxed) {
            self.warn(format!(
                "{path} is the pod's, and its files are read-only here; further such calls fail silently"
            ));
        }
        Instead::Fail(Errno(libc::EROFS))
    }

    /// stat(2), lstat(2) and fstatat(2).
    ///
    /// # Errors
    /// What to do [`Instead`].
    pub fn stat(&self, at: At<'_>, flags: c_int) -> Handled<Attributes> {
        if at.path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            return self.stat_open(at.folder).ok_or(Instead::Local);
        }
        let path = self.locate(at)?;
        let no_follow = flags & libc::AT_SYMLINK_NOFOLLOW != 0;
        Ok(self.proxy.ask(&Ask::Stat(Stat { path, no_follow, access: 0 }))?)
    }

    /// fstat(2): attributes of what a number is, where that is remote.
    #[must_use]
    pub fn stat_open(&self, descriptor: c_int) -> Option<Attributes> {
        if self.table.is_empty() {
            return None;
        }
        self.stat_known(&sys::status(descriptor).ok()?)
    }

    /// The remote attributes behind what fstat(2) said.
    #[must_use]
    pub fn stat_known(&self, status: &Status) -> Option<Attributes> {
        self.table.file(Identity::from(status)).map(|file| file.attributes)
    }

    /// access(2) and faccessat(2).
    ///
    /// # Errors
    /// What to do [`Instead`].
    pub fn access(&self, at: At<'_>, mode: c_int, flags: c_int) -> Handled<()> {
        let path = self.locate(at)?;
        if mode & !(libc::R_OK | libc::W_OK | libc::X_OK) != 0 {
            return Err(Instead::Fail(Errno(libc::EINVAL)));
        }
        let access = u8::try_from(mode & (libc::R_OK | libc::X_OK)).unwrap_or(0);
        let no_follow = flags & libc::AT_SYMLINK_NOFOLLOW != 0;
        let _: Attributes = self.proxy.ask(&Ask::Stat(Stat { path, no_follow, access }))?;
        // As on a file system that is mounted read-only.
        if mode & libc::W_OK != 0 { Err(Instead::Fail(Errno(libc::EROFS))) } else { Ok(()) }
    }

    /// readlink(2).
    ///
    /// # Errors
    /// What to do [`Instead`].
    pub fn read_link(&self, at: At<'_>) -> Handled<Vec<u8>> {
        let path = self.locate(at)?;
        let link: Link = self.proxy.ask(&Ask::ReadLink(ReadLink { path }))?;
        Ok(link.target)
    }

    /// Extended attributes of remote files: there are none.
    ///
    /// # Errors
    /// Always: what to do [`Instead`].
    pub fn no_attributes(&self, at: At<'_>) -> Handled<std::convert::Infallible> {
        self.locate(at)?;
        Err(Instead::Fail(Errno(libc::ENOTSUP)))
    }
}

fn remote(path: Vec<u8>) -> Handled<RemotePath> {
    RemotePath::new(path).map_err(|error| {
        Instead::Fail(Errno(match error {
            PathError::TooLong => libc::ENAMETOOLONG,
            PathError::Relative | PathError::Nul => libc::ENOENT,
        }))
    })
}

/// Attributes as stat(2) says them.
#[must_use]
pub fn to_status(attributes: &Attributes) -> Status {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut status = sys::empty_status();
    status.st_dev = attributes.dev;
    status.st_ino = attributes.ino;
    status.st_nlink = fitting(attributes.nlink, 1);
    status.st_mode = attributes.mode;
    status.st_uid = attributes.uid;
    status.st_gid = attributes.gid;
    status.st_rdev = attributes.rdev;
    status.st_size = signed(attributes.size);
    status.st_blksize = fitting(attributes.blksize.into(), 4096);
    status.st_blocks = signed(attributes.blocks);
    (status.st_atime, status.st_atime_nsec) = (attributes.atime.0, attributes.atime.1.into());
    (status.st_mtime, status.st_mtime_nsec) = (attributes.mtime.0, attributes.mtime.1.into());
    (status.st_ctime, status.st_ctime_nsec) = (attributes.ctime.0, attributes.ctime.1.into());
    status
}

/// A number in a field whose width differs between machines.
fn fitting<T: TryFrom<u64>>(number: u64, otherwise: T) -> T {
    T::try_from(number).unwrap_or(otherwise)
}

/// Attributes as statx(2) says them.
#[must_use]
pub fn to_statx(attributes: &Attributes) -> libc::statx {
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut status = sys::empty_statx();
    let time = |place: &mut libc::statx_timestamp, mirrord_protocol::reply::Time(seconds, nanoseconds)| {
        place.tv_sec = seconds;
        place.tv_nsec = nanoseconds;
    };
    status.stx_mask = libc::STATX_BASIC_STATS;
    status.stx_blksize = attributes.blksize;
    status.stx_nlink = narrow(attributes.nlink);
    status.stx_uid = attributes.uid;
    status.stx_gid = attributes.gid;
    status.stx_mode = u16::try_from(attributes.mode & 0xffff).unwrap_or(0);
    status.stx_ino = attributes.ino;
    status.stx_size = attributes.size;
    status.stx_blocks = attributes.blocks;
    time(&mut status.stx_atime, attributes.atime);
    time(&mut status.stx_mtime, attributes.mtime);
    time(&mut status.stx_ctime, attributes.ctime);
    status.stx_rdev_major = libc::major(attributes.rdev);
    status.stx_rdev_minor = libc::minor(attributes.rdev);
    status.stx_dev_major = libc::major(attributes.dev);
    status.stx_dev_minor = libc::minor(attributes.dev);
    status
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::reply::Time;

    use super::*;

    #[test]
    fn attributes_keep_their_meaning_in_both_kinds_of_stat() {
        let attributes = Attributes {
            mode: libc::S_IFREG | 0o640,
            size: 5_000_000_000,
            uid: 1,
            gid: 2,
            ino: 3,
            dev: libc::makedev(8, 300),
            nlink: 4,
            rdev: libc::makedev(1, 2),
            blksize: 4096,
            blocks: 5,
            atime: Time(6, 7),
            mtime: Time(-8, 9),
            ctime: Time(10, 11),
        };
        let (stat, statx) = (to_status(&attributes), to_statx(&attributes));
        assert_eq!((stat.st_size, stat.st_dev), (5_000_000_000, attributes.dev));
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (-8, 9));
        assert_eq!((statx.stx_size, statx.stx_dev_major, statx.stx_dev_minor), (5_000_000_000, 8, 300));
        assert_eq!((u32::from(statx.stx_mode), statx.stx_mtime.tv_sec), (stat.st_mode, -8));
    }
}
