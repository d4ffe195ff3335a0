//! Attacks on a root folder: whoever owns the files below it tries to lead a session out of it.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::fs::{CWD, Mode, OFlags, mknodat, openat};
use tempfile::TempDir;

use super::*;

/// A root with a file, a folder, and whatever the test adds.
struct Tree {
    folder: TempDir,
    root: Root,
}

fn tree(prepare: impl FnOnce(&Path)) -> Tree {
    let folder = tempfile::tempdir().expect("made");
    fs::create_dir(folder.path().join("etc")).expect("made");
    fs::write(folder.path().join("etc/config"), "inside").expect("written");
    prepare(folder.path());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = openat(CWD, folder.path(), flags, Mode::empty()).expect("opened");
    Tree { root: Root::new(handle, &[], &[]).expect("made"), folder }
}

fn path(text: &str) -> RemotePath {
    RemotePath::new(text).expect("absolute")
}

impl Tree {
    fn read(&self, at: &str) -> Result<String, Refusal> {
        let (mut file, _) = self.root.open(&path(at), false, false, Secrets::Withheld)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).expect("read");
        Ok(text)
    }
}

#[test]
fn links_and_dots_stay_below_the_root() {
    let tree = tree(|root| {
        symlink("/etc/config", root.join("absolute")).expect("linked");
        symlink("../../../../etc/config", root.join("etc/dots")).expect("linked");
        symlink("/", root.join("etc/top")).expect("linked");
        symlink("/etc/passwd", root.join("passwd")).expect("linked");
    });
    for at in ["/etc/config", "/absolute", "/etc/dots", "/../../etc/config", "/etc/top/etc/top/etc/config"] {
        assert_eq!(tree.read(at).as_deref(), Ok("inside"), "{at}");
    }
    assert_eq!(
        tree.read("/passwd"),
        Err(Refusal::System(Errno::NOENT)),
        "the machine's own file isn't there"
    );
}

#[test]
fn a_storm_of_links_ends() {
    let tree = tree(|root| {
        symlink("/loop", root.join("loop")).expect("linked");
        symlink("/pong", root.join("ping")).expect("linked");
        symlink("/ping", root.join("pong")).expect("linked");
    });
    for at in ["/loop", "/ping/x"] {
        assert_eq!(tree.read(at), Err(Refusal::System(Errno::LOOP)), "{at}");
    }
}

#[test]
fn fifos_devices_and_sockets_are_named_but_not_opened() {
    let tree = tree(|root| {
        mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("made");
        drop(std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bound"));
    });
    for at in ["/fifo", "/socket"] {
        assert!(matches!(tree.read(at), Err(Refusal::Never(_))), "{at}");
        tree.root.stat(&path(at), false, 0, Secrets::Withheld).expect("attributes are harmless");
    }
}

#[test]
fn the_kernels_own_filesystems_are_never_served() {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = openat(CWD, "/", flags, Mode::empty()).expect("opened");
    let root = Root::new(handle, &[], &[]).expect("made");
    let own = format!("/proc/{}/environ", std::process::id());
    for at in ["/proc/self/mem", "/proc/version", &own, "/sys/kernel/notes", "/dev/null", "/dev/pts"] {
        let opened = root.open(&path(at), false, false, Secrets::Shown).map(drop);
        assert!(matches!(opened, Err(Refusal::Never(_) | Refusal::System(_))), "{at}: {opened:?}");
    }
    assert!(root.stat(&path("/proc/version"), false, 0, Secrets::Shown).is_err(), "nor are their attributes");
}

#[test]
fn a_folder_and_its_entries_have_attributes() {
    let tree = tree(|root| symlink("config", root.join("etc/link")).expect("linked"));
    let (mut own, mut names) = (None, Vec::new());
    let each = |entry: Entry| {
        let kind = FileType::from_raw_mode(entry.attributes.expect("there").mode);
        names.push((String::from_utf8(entry.name).expect("ASCII"), kind));
        true
    };
    tree.root
        .list(&path("/etc"), Secrets::Withheld, |attributes| own = Some(attributes), each)
        .expect("listed");
    names.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(names, [("config".into(), FileType::RegularFile), ("link".into(), FileType::Symlink)]);
    assert_eq!(FileType::from_raw_mode(own.expect("given").mode), FileType::Directory);
    assert_eq!(
        tree.root.read_link(&path("/etc/link"), Secrets::Withheld).as_deref(),
        Ok(b"config".as_slice())
    );
    assert!(tree.folder.path().exists());
}
