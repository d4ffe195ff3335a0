//! Files and links as a tree in memory, and how path_resolution(7) goes about in it, where the top is `/`.

use std::{collections::BTreeSet, os::unix::ffi::OsStrExt, path::PathBuf};

use rustix::{fs::OFlags, io::Errno};

/// The longest name (NAME_MAX) and path (PATH_MAX, with its NUL).
const NAME_BYTES: usize = 255;
const PATH_BYTES: usize = 4096;
/// How many links are followed (MAXSYMLINKS).
const LINKS: usize = 40;

/// What a node is.
pub(super) enum Kind {
    Folder(Vec<(Vec<u8>, usize)>),
    File,
    Fifo,
    Link(Vec<u8>),
}

pub(super) struct Node {
    pub(super) kind: Kind,
    parent: usize,
    /// In the real file system; `None` of the top.
    pub(super) inode: Option<u64>,
}

/// The tree; the first node is its top.
pub(super) struct Model(Vec<Node>);

impl Default for Model {
    fn default() -> Self {
        Self(vec![Node { kind: Kind::Folder(Vec::new()), parent: 0, inode: None }])
    }
}

/// The names of a path without dots, relative to the top.
pub(super) fn parts(path: &[u8]) -> Option<Vec<&[u8]>> {
    let plain = |part: &&[u8]| {
        (1..=NAME_BYTES).contains(&part.len()) && ![&b"."[..], b".."].contains(part) && !part.contains(&0)
    };
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    parts.iter().all(plain).then_some(parts)
}

impl Model {
    pub(super) fn node(&self, node: usize) -> &Node {
        &self.0[node]
    }

    pub(super) fn set_inode(&mut self, node: usize, inode: u64) {
        self.0[node].inode = Some(inode);
    }

    /// Adds a node; `None` where it can't be there, or something is there already.
    pub(super) fn add(&mut self, path: &[u8], kind: Kind) -> Option<usize> {
        let parts = parts(path)?;
        let (name, folders) = parts.split_last()?;
        let mut parent = 0;
        for folder in folders {
            parent = self.entry(parent, folder)?;
        }
        let added = self.0.len();
        match &mut self.0[parent].kind {
            Kind::Folder(entries) if entries.iter().all(|(other, _)| other != name) => {
                entries.push((name.to_vec(), added));
            }
            _ => return None,
        }
        self.0.push(Node { kind, parent, inode: None });
        Some(added)
    }

    /// The nodes that these paths lead to.
    pub(super) fn nodes_at(&self, paths: &[PathBuf]) -> BTreeSet<usize> {
        paths
            .iter()
            .filter_map(|path| self.resolve(path.as_os_str().as_bytes(), OFlags::empty()).ok())
            .collect()
    }

    fn entry(&self, folder: usize, name: &[u8]) -> Option<usize> {
        let Kind::Folder(entries) = &self.0[folder].kind else { return None };
        entries.iter().find(|(other, _)| other == name).map(|(_, node)| *node)
    }

    /// Where a path leads.
    pub(super) fn resolve(&self, path: &[u8], flags: OFlags) -> Result<usize, Errno> {
        if path.len() >= PATH_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        let mut links = 0;
        let (node, slash) = self.walk(0, path, !flags.contains(OFlags::NOFOLLOW), &mut links)?;
        let folder = matches!(self.0[node].kind, Kind::Folder(_));
        if (slash || flags.contains(OFlags::DIRECTORY)) && !folder {
            return Err(Errno::NOTDIR);
        }
        Ok(node)
    }

    /// Goes from a folder along a path; says also whether a slash ended it.
    fn walk(
        &self,
        from: usize,
        path: &[u8],
        follow: bool,
        links: &mut usize,
    ) -> Result<(usize, bool), Errno> {
        let mut here = if path.starts_with(b"/") { 0 } else { from };
        let slash = path.ends_with(b"/");
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let Kind::Folder(_) = self.0[here].kind else { return Err(Errno::NOTDIR) };
            let next = match *part {
                b"." => here,
                b".." => self.0[here].parent,
                name if name.len() > NAME_BYTES => return Err(Errno::NAMETOOLONG),
                name => self.entry(here, name).ok_or(Errno::NOENT)?,
            };
            here = match &self.0[next].kind {
                Kind::Link(target) if !last || follow || slash => {
                    *links += 1;
                    if *links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    let (found, slash) = self.walk(here, target, true, links)?;
                    if slash && !matches!(self.0[found].kind, Kind::Folder(_)) {
                        return Err(Errno::NOTDIR);
                    }
                    found
                }
                _ => next,
            };
        }
        Ok((here, slash && !parts.is_empty()))
    }
}
