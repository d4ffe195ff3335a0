//! Attacks on a root folder: whoever owns the files below it tries to lead a session out of it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, mknodat, openat, renameat_with};
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

/// Changes what lies below a root, over and over, until the test has seen enough.
fn while_changing<T>(mut change: impl FnMut() + Send, look: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                change();
            }
        });
        // Also where looking panics: the thread is waited for.
        let _end = End(&over);
        look()
    })
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a path reads as while somebody races: looked at often, and until it was seen in as many ways as it has.
fn seen(tree: &Tree, at: &str, ways: usize) -> BTreeSet<Result<String, String>> {
    let mut seen = BTreeSet::new();
    for look in 0..1_000_000 {
        seen.insert(tree.read(at).map_err(|refusal| refusal.to_string()));
        if look > 3000 && seen.len() >= ways {
            break;
        }
    }
    seen
}

#[test]
fn a_folder_that_turns_into_a_link_and_back_leads_nowhere_outside() {
    let outside = tempfile::tempdir().expect("made");
    fs::create_dir(outside.path().join("etc")).expect("made");
    fs::write(outside.path().join("etc/config"), "outside").expect("written");
    let tree = tree(|root| {
        fs::create_dir_all(root.join("folder/etc")).expect("made");
        fs::write(root.join("folder/etc/config"), "inside").expect("written");
        // As seen by the sidecar's process, and relative: both would lead out of the root.
        symlink(outside.path(), root.join("absolute")).expect("linked");
        let up =
            "../".repeat(16) + outside.path().strip_prefix("/").expect("absolute").to_str().expect("UTF-8");
        symlink(up, root.join("relative")).expect("linked");
    });
    for link in ["absolute", "relative"] {
        let (root, exchanged) = (tree.folder.path(), RenameFlags::EXCHANGE);
        let change =
            || renameat_with(CWD, root.join("folder"), CWD, root.join(link), exchanged).expect("exchanged");
        let seen = while_changing(change, || seen(&tree, "/folder/etc/config", 2));
        let nowhere = Err(Refusal::System(Errno::NOENT).to_string());
        assert_eq!(seen, BTreeSet::from([Ok("inside".to_owned()), nowhere]));
        // Whichever way round they are now.
        if root.join("folder").is_symlink() {
            change();
        }
    }
}

#[test]
fn a_folder_that_is_moved_away_under_a_path_with_dots_leads_nowhere_outside() {
    let world = tempfile::tempdir().expect("made");
    fs::create_dir(world.path().join("secret")).expect("made");
    fs::write(world.path().join("secret/config"), "outside").expect("written");
    let root = world.path().join("root");
    fs::create_dir_all(root.join("a/b/c")).expect("made");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = openat(CWD, &root, flags, Mode::empty()).expect("opened");
    let tree = Tree { root: Root::new(handle, &[], &[]).expect("made"), folder: world };
    // `a/b` leaves the root and comes back: a walk that is below it then would climb beside the root.
    let (inside, outside) = (root.join("a/b"), tree.folder.path().join("b"));
    let change = || {
        fs::rename(&inside, &outside).expect("moved");
        fs::rename(&outside, &inside).expect("moved back");
    };
    let at = "/a/b/c/../../secret/config";
    let seen = while_changing(change, || seen(&tree, at, 1));
    assert!(seen.iter().all(Result::is_err), "{seen:?}");
}

#[test]
fn a_file_that_turns_into_a_fifo_is_never_waited_for() {
    let tree = tree(|root| {
        mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("made");
        fs::write(root.join("file"), "inside").expect("written");
    });
    let root = tree.folder.path();
    let change = || {
        renameat_with(CWD, root.join("file"), CWD, root.join("fifo"), RenameFlags::EXCHANGE)
            .expect("exchanged");
    };
    let seen = while_changing(change, || seen(&tree, "/file", 2));
    let expected = [Err("FIFOs are never served".to_owned()), Ok("inside".to_owned())];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn no_way_through_proc_leads_anywhere() {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = Root::new(openat(CWD, "/", flags, Mode::empty()).expect("opened"), &[], &[]).expect("made");
    let scratch = tempfile::tempdir().expect("made");
    fs::write(scratch.path().join("file"), "outside").expect("written");
    let open = File::open(scratch.path().join("file")).expect("opened");
    let (pid, number) = (std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&open));
    symlink("/proc/self/root", scratch.path().join("root")).expect("linked");
    let file = scratch.path().join("file").to_str().expect("UTF-8").to_owned();
    for at in [
        format!("/proc/self/root{file}"),
        format!("/proc/{pid}/root{file}"),
        format!("/proc/{pid}/task/{pid}/root{file}"),
        format!("/proc/self/fd/{number}"),
        format!("/dev/fd/{number}"),
        format!("/proc/self/cwd/../..{file}"),
        format!("{}/root{file}", scratch.path().display()),
    ] {
        for secrets in [Secrets::Withheld, Secrets::Shown] {
            let opened = root.open(&path(&at), false, false, secrets).map(drop);
            assert_eq!(opened, Err(Refusal::System(Errno::LOOP)), "{at}");
        }
    }
}
