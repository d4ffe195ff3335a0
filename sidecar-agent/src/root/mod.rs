//! Paths, as far as a session may go: every path is resolved below one root folder and judged by what it *is*.
//!
//! 1. openat2(2) with RESOLVE_IN_ROOT and O_PATH: `..`, absolute links and races with renames stay inside, magic links of
//!    `/proc` fail, and nothing is opened yet, so no FIFO blocks and no device stirs.
//! 2. The object is judged by its descriptor: its filesystem (never `/proc`, `/sys` …), its mount (ours: hidden;
//!    secrets: only for sessions that may), its kind (only regular files and folders are opened).
//! 3. It is opened for reading through that very descriptor, so that what was judged is what is read.

mod mounts;
mod never;
mod node;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use mirrord_protocol::{
    path::RemotePath,
    reply::{Attributes, Entry},
};
use rustix::{
    fs::{Access, AtFlags, CWD, FileType, OFlags, RawDir, StatxFlags, accessat, fstatfs, readlinkat, statx},
    io::Errno,
};
use thiserror::Error;

use self::{
    mounts::Mounts,
    never::never_served,
    node::{Node, attributes},
};

/// What getdents64(2) gets, in bytes.
const LISTING_BYTES: usize = 32 * 1024;

/// Why a path isn't served.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The kernel's word.
    #[error("{0}")]
    System(Errno),
    /// A kind of object that no session gets.
    #[error("{0} are never served")]
    Never(&'static str),
    /// A mounted Secret or token, and the session may not see such.
    #[error("it lies on a mounted Secret or token")]
    Secret,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// What a session may see of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// All of them.
    Shown,
    /// None.
    Withheld,
}

/// A root folder and the mounts below it that aren't like the others.
pub struct Root {
    folder: OwnedFd,
    secret: Mounts,
    hidden: Mounts,
}

impl Root {
    /// Below this folder, with volumes of secrets and what is never shown at these paths.
    ///
    /// # Errors
    /// Where one of the paths can't be looked at.
    pub fn new(folder: OwnedFd, secret: &[PathBuf], hidden: &[PathBuf]) -> Result<Self, Errno> {
        let mut root = Self { folder, secret: Mounts::default(), hidden: Mounts::default() };
        root.secret = root.mounts(secret)?;
        root.hidden = root.mounts(hidden)?;
        Ok(root)
    }

    /// Opens a file or folder for reading.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn open(
        &self,
        path: &RemotePath,
        no_follow: bool,
        directory: bool,
        secrets: Secrets,
    ) -> Result<(File, Attributes), Refusal> {
        let mut flags = OFlags::empty();
        flags.set(OFlags::NOFOLLOW, no_follow);
        flags.set(OFlags::DIRECTORY, directory);
        let node = self.resolve(path, flags, secrets)?;
        let file = node.open()?;
        Ok((file, attributes(&node.status)))
    }

    /// Attributes of a path, and whether it may be accessed so.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn stat(
        &self,
        path: &RemotePath,
        no_follow: bool,
        access: u8,
        secrets: Secrets,
    ) -> Result<Attributes, Refusal> {
        let flags = if no_follow { OFlags::NOFOLLOW } else { OFlags::empty() };
        let node = self.resolve(path, flags, secrets)?;
        if access != 0 {
            let access = Access::from_bits(u32::from(access)).ok_or(Errno::INVAL)?;
            accessat(CWD, node.link(), access, AtFlags::EACCESS)?;
        }
        Ok(attributes(&node.status))
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn read_link(&self, path: &RemotePath, secrets: Secrets) -> Result<Vec<u8>, Refusal> {
        let node = self.resolve(path, OFlags::NOFOLLOW, secrets)?;
        if node.kind() != FileType::Symlink {
            return Err(Errno::INVAL.into());
        }
        Ok(readlinkat(&node.handle, c"", Vec::new())?.into_bytes())
    }

    /// Attributes of a folder, then its entries one by one until `each` says that it is enough.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn list(
        &self,
        path: &RemotePath,
        secrets: Secrets,
        folder: impl FnOnce(Attributes),
        mut each: impl FnMut(Entry) -> bool,
    ) -> Result<(), Refusal> {
        let node = self.resolve(path, OFlags::DIRECTORY, secrets)?;
        let opened = node.open()?;
        folder(attributes(&node.status));
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut entries = RawDir::new(&opened, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            let status = statx(&opened, name, flags, StatxFlags::BASIC_STATS).ok();
            if status.as_ref().is_some_and(|status| self.hidden.is_top(status)) {
                continue;
            }
            let attributes = status.as_ref().map(attributes);
            if !each(Entry { name: name.to_bytes().to_vec(), attributes }) {
                break;
            }
        }
        Ok(())
    }

    fn resolve(&self, path: &RemotePath, flags: OFlags, secrets: Secrets) -> Result<Node, Refusal> {
        let node = Node::resolve(self.folder.as_fd(), path.as_bytes(), flags)?;
        if let Some(what) = never_served(fstatfs(&node.handle)?.f_type) {
            return Err(Refusal::Never(what));
        }
        if !StatxFlags::from_bits_retain(node.status.stx_mask).contains(StatxFlags::MNT_ID) {
            // Linux before 5.8: secrets couldn't be told from the rest.
            return Err(Refusal::Never("files of a kernel before Linux 5.8"));
        }
        if self.hidden.holds(&node.status) {
            return Err(Errno::NOENT.into());
        }
        if secrets == Secrets::Withheld && self.secret.holds(&node.status) {
            return Err(Refusal::Secret);
        }
        Ok(node)
    }

    /// The mounts at these paths; a path that leads nowhere has none.
    fn mounts(&self, paths: &[PathBuf]) -> Result<Mounts, Errno> {
        let mut mounts = Mounts::default();
        for path in paths {
            match Node::resolve(self.folder.as_fd(), path.as_os_str().as_encoded_bytes(), OFlags::empty()) {
                Ok(node) => mounts.add(&node.status, fstatfs(&node.handle)?.f_type),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(mounts)
    }
}
