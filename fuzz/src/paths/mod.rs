//! The sidecar's path resolver against a folder of real files and links, and a model of what the kernel should find there.
//!
//! An input is text, a line each: what is made below the root, which of it is hidden or a Secret, and what is asked for.
//!
//! ```text
//! d etc                  a folder (its parents must be there and be folders, or nothing is made)
//! f etc/hosts            a file
//! p etc/fifo             a FIFO
//! l etc/link ../x        a symbolic link; the target is what follows the first blank
//! h etc/own              never shown
//! s etc/token            withheld
//! ? /etc/link/../hosts   asked for, in each way there is
//! ```

mod model;

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use mirrord_agent::root::{Refusal, Root, Secrets};
use mirrord_protocol::path::RemotePath;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, openat},
    io::Errno,
};
use tempfile::TempDir;

use self::model::{Kind, Model, Node};

/// More are left out: the time is to go into what is asked.
const LINES: usize = 64;
/// Nothing is made at a longer path: with the root in front of it, it shall fit the kernel's bound.
const LONG: usize = 2048;

/// Builds the folder, and asks for paths in it.
pub fn paths(data: &[u8]) {
    let lines = || data.split(|byte| *byte == b'\n').take(LINES).filter_map(|line| line.split_at_checked(2));
    if !lines().any(|(kind, _)| kind == b"? ") {
        return;
    }
    let mut world = World::new();
    lines().for_each(|(kind, rest)| world.make(kind, rest));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, world.root(), flags, Mode::empty()).expect("opened");
    let listed = |wanted: &[u8; 2]| -> Vec<PathBuf> {
        let plain = |(_, path): &(&[u8], &[u8])| model::parts(path).is_some();
        let path = |(_, path): (&[u8], &[u8])| Path::new("/").join(std::ffi::OsStr::from_bytes(path));
        lines().filter(|(kind, _)| kind == wanted).filter(plain).map(path).collect()
    };
    let (secret, hidden) = (listed(b"s "), listed(b"h "));
    let asked = Asked {
        hidden: world.model.nodes_at(&hidden),
        secret: world.model.nodes_at(&secret),
        root: Root::new(folder, &secret, &hidden).expect("a root"),
        world: &world,
    };
    for (_, path) in lines().filter(|(kind, _)| *kind == b"? ") {
        let Ok(path) = RemotePath::new(path) else { continue };
        for no_follow in [false, true] {
            asked.stat(&path, no_follow);
            asked.open(&path, no_follow);
        }
        asked.read_link(&path);
        asked.list(&path);
    }
}

/// The folder and its model. Beside the root lies what must never be seen.
struct World {
    scratch: TempDir,
    model: Model,
}

impl World {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a folder");
        fs::create_dir(scratch.path().join("root")).expect("made");
        fs::write(scratch.path().join("outside"), "outside").expect("written");
        Self { scratch, model: Model::default() }
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// Makes one thing, where the model has a folder for it: so nothing is ever made through a link.
    fn make(&mut self, kind: &[u8], rest: &[u8]) {
        let (path, target) = match kind {
            b"l " => {
                let Some(blank) = rest.iter().position(|byte| *byte == b' ') else { return };
                (&rest[..blank], &rest[blank + 1..])
            }
            _ => (rest, &[][..]),
        };
        let kind = match kind {
            b"d " => Kind::Folder(Vec::new()),
            b"f " => Kind::File,
            b"p " => Kind::Fifo,
            b"l " if (1..4096).contains(&target.len()) && !target.contains(&0) => Kind::Link(target.to_vec()),
            _ => return,
        };
        let Some(node) =
            Some(path).filter(|path| path.len() < LONG).and_then(|path| self.model.add(path, kind))
        else {
            return;
        };
        let at = self.root().join(std::ffi::OsStr::from_bytes(path));
        match &self.model.node(node).kind {
            Kind::Folder(_) => fs::create_dir(&at).expect("made"),
            Kind::File => {
                fs::write(&at, node.to_string()).expect("written");
                fs::set_permissions(&at, Permissions::from_mode(0o600)).expect("set");
            }
            Kind::Fifo => mknodat(CWD, &at, FileType::Fifo, Mode::RUSR, 0).expect("made"),
            Kind::Link(target) => symlink(std::ffi::OsStr::from_bytes(target), &at).expect("linked"),
        }
        let inode = fs::symlink_metadata(&at).expect("there").ino();
        self.model.set_inode(node, inode);
    }
}

/// A root and what is known of it.
struct Asked<'w> {
    root: Root,
    world: &'w World,
    hidden: BTreeSet<usize>,
    secret: BTreeSet<usize>,
}

impl Asked<'_> {
    /// What the model says of a path: the kernel's word, then ours.
    fn expected(&self, path: &RemotePath, flags: OFlags) -> Result<&Node, Refusal> {
        let node = self.world.model.resolve(path.as_bytes(), flags)?;
        if self.hidden.contains(&node) {
            Err(Refusal::System(Errno::NOENT))
        } else if self.secret.contains(&node) {
            Err(Refusal::Secret)
        } else {
            Ok(self.world.model.node(node))
        }
    }

    fn stat(&self, path: &RemotePath, no_follow: bool) {
        let flags = if no_follow { OFlags::NOFOLLOW } else { OFlags::empty() };
        let expected = self.expected(path, flags).map(|node| node.inode);
        let found = self.root.stat(path, no_follow, 0, Secrets::Withheld).map(|found| found.ino);
        // The root's own inode isn't in the model.
        let own = fs::metadata(self.world.root()).expect("there").ino();
        assert_eq!(found, expected.map(|inode| inode.unwrap_or(own)), "{path:?} {no_follow}");
    }

    fn open(&self, path: &RemotePath, no_follow: bool) {
        let flags = if no_follow { OFlags::NOFOLLOW } else { OFlags::empty() };
        let opened = self.root.open(path, no_follow, false, Secrets::Withheld);
        let expected = self.expected(path, flags).and_then(|node| match node.kind {
            Kind::Fifo => Err(Refusal::Never("FIFOs")),
            Kind::Link(_) => Err(Errno::LOOP.into()),
            Kind::File | Kind::Folder(_) => Ok(node),
        });
        let (mut file, attributes) = match (opened, expected) {
            (Ok(opened), Ok(_)) => opened,
            (opened, expected) => {
                return assert_eq!(opened.map(drop), expected.map(drop), "{path:?} {no_follow}");
            }
        };
        let status = file.metadata().expect("open");
        assert_eq!((status.ino(), status.dev()), (attributes.ino, attributes.dev));
        if FileType::from_raw_mode(attributes.mode) == FileType::RegularFile {
            let mut text = String::new();
            file.read_to_string(&mut text).expect("read");
            let node: usize = text.parse().expect("a file from below the root");
            assert_eq!(self.world.model.node(node).inode, Some(attributes.ino));
        }
    }

    fn read_link(&self, path: &RemotePath) {
        let expected = self.expected(path, OFlags::NOFOLLOW).and_then(|node| match &node.kind {
            Kind::Link(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL.into()),
        });
        assert_eq!(self.root.read_link(path, Secrets::Withheld), expected, "{path:?}");
    }

    fn list(&self, path: &RemotePath) {
        let mut names = BTreeSet::new();
        let each = |entry: mirrord_protocol::reply::Entry| names.insert(entry.name);
        let listed = self.root.list(path, Secrets::Withheld, drop, each);
        let expected = self.expected(path, OFlags::DIRECTORY).map(|node| match &node.kind {
            Kind::Folder(entries) => entries
                .iter()
                .filter(|(_, node)| !self.hidden.contains(node))
                .map(|(name, _)| name.clone())
                .collect(),
            _ => BTreeSet::new(),
        });
        assert_eq!(listed.map(|()| names), expected, "{path:?}");
    }
}
