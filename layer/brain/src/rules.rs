//! Which paths are remote: one table with a reason per row, the pod's mounts and the user's folders on top.
//!
//! The longest row that holds the path decides; where none does, the file mode's default. A trailing
//! row for each parent of the user's folders keeps the way to them local, since programs look at every component
//! (realpath(3)). Asking costs no allocation: rows are found by the first letter of the path, longest first.

use std::os::unix::ffi::OsStrExt;

use crate::{
    paths::{below, is_plain, normal},
    settings::{FileMode, Settings},
};

/// Where a path is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On this machine.
    Local,
    /// In the pod.
    Remote,
}

/// One built-in rule; it holds for the path and all below.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// An absolute path.
    pub path: &'static str,
    /// Where it is served.
    pub side: Side,
    /// Why.
    pub reason: &'static str,
}

const fn local(path: &'static str, reason: &'static str) -> Row {
    Row { path, side: Side::Local, reason }
}

const fn remote(path: &'static str, reason: &'static str) -> Row {
    Row { path, side: Side::Remote, reason }
}

const CODE: &str = "libraries, interpreters and tools must fit the program that runs here";
const MACHINE: &str = "speaks of this machine's kernel, devices and processes";
const SCRATCH: &str = "scratch space that the program shares with other local programs";
const LOADER: &str = "read by the local dynamic linker and C library";
const USERS: &str = "the process runs as a user of this machine";
const TRUST: &str = "certificates and settings of local tools";

/// The built-in rules of [`FileMode::Read`]. All else is remote: the application's files, mounted volumes,
/// /etc/hosts, /etc/resolv.conf, /etc/hostname and the like.
pub const ROWS: &[Row] = &[
    local("/bin", CODE),
    local("/sbin", CODE),
    local("/lib", CODE),
    local("/lib32", CODE),
    local("/lib64", CODE),
    local("/libx32", CODE),
    local("/usr", CODE),
    local("/opt", CODE),
    local("/nix", CODE),
    local("/snap", CODE),
    local("/gnu", CODE),
    local("/proc", MACHINE),
    local("/sys", MACHINE),
    local("/dev", MACHINE),
    local("/run", MACHINE),
    local("/boot", MACHINE),
    local("/var/run", "the same folder as /run"),
    local("/tmp", SCRATCH),
    local("/var/tmp", SCRATCH),
    local("/var/cache", "caches of local tools: fontconfig, man, package managers"),
    local("/var/lib/sss", "read by the local C library's modules for users and names"),
    local("/var/lib/locales", "locale data of local libraries"),
    local("/etc/ld.so.cache", LOADER),
    local("/etc/ld.so.conf", LOADER),
    local("/etc/ld.so.conf.d", LOADER),
    local("/etc/ld.so.preload", LOADER),
    local("/etc/ld-nix.so.preload", LOADER),
    local("/etc/malloc.conf", "read by allocators while nothing can be allocated"),
    local("/etc/locale.alias", LOADER),
    local("/etc/locale.conf", LOADER),
    local("/etc/localtime", "times are shown as the user's other programs show them"),
    local("/etc/timezone", "as /etc/localtime"),
    local("/etc/nsswitch.conf", "names modules of the local C library"),
    local("/etc/gai.conf", LOADER),
    local("/etc/services", "numbers of well-known ports, the same everywhere"),
    local("/etc/protocols", "as /etc/services"),
    local("/etc/passwd", USERS),
    local("/etc/group", USERS),
    local("/etc/shadow", USERS),
    local("/etc/gshadow", USERS),
    local("/etc/subuid", USERS),
    local("/etc/subgid", USERS),
    local("/etc/sudoers", USERS),
    local("/etc/pam.d", USERS),
    local("/etc/login.defs", USERS),
    local("/etc/shells", USERS),
    local("/etc/profile", "start-up files of local shells"),
    local("/etc/profile.d", "start-up files of local shells"),
    local("/etc/bash.bashrc", "start-up files of local shells"),
    local("/etc/bashrc", "start-up files of local shells"),
    local("/etc/zsh", "start-up files of local shells"),
    local("/etc/inputrc", "keys of the local terminal"),
    local("/etc/terminfo", "the local terminal"),
    local("/etc/alternatives", CODE),
    local("/etc/ssl", TRUST),
    local("/etc/pki", TRUST),
    local("/etc/ca-certificates", TRUST),
    local("/etc/crypto-policies", TRUST),
    local("/etc/gnutls", TRUST),
    local("/etc/gitconfig", TRUST),
    local("/etc/perl", CODE),
    local("/etc/java", CODE),
    local("/etc/fonts", TRUST),
    local("/etc/machine-id", MACHINE),
    local("/etc/mtab", MACHINE),
    local("/etc/selinux", MACHINE),
    local("/etc/apparmor.d", MACHINE),
    remote("/var/run/secrets", "the pod's tokens are what programs in a pod look for here"),
    remote("/run/secrets", "as /var/run/secrets"),
];

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    path: Vec<u8>,
    side: Side,
    /// Only the path itself.
    exact: bool,
    /// It is local, and something below it is not.
    broken: bool,
}

impl Rule {
    /// Whether it speaks of a path. Most rows are told off by one byte: what follows their length.
    fn holds(&self, path: &[u8]) -> bool {
        match path.get(self.path.len()) {
            Some(b'/') => !self.exact && path.starts_with(&self.path),
            None => path == self.path,
            Some(_) => false,
        }
    }
}

const BUCKETS: usize = 32;

/// The rules of one session.
#[derive(Debug)]
pub struct Rules {
    /// By the lowest bits of the path's first letter; in each, the longest first.
    buckets: [Vec<Rule>; BUCKETS],
    default: Side,
    /// Something below a local row is remote, so that a path from a local folder may be remote.
    nested: bool,
}

impl Rules {
    /// Rules as the settings want them.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut rules =
            Self { buckets: std::array::from_fn(|_| Vec::new()), default: Side::Local, nested: false };
        match settings.files {
            FileMode::Local => return rules,
            FileMode::LocalWithOverrides => {}
            FileMode::Read => {
                rules.default = Side::Remote;
                rules.add_built_in(settings);
            }
        }
        rules.add_mounts(settings);
        rules.mark_broken();
        rules
    }

    fn add_mounts(&mut self, settings: &Settings) {
        for mount in &settings.remote_mounts {
            let mount = normal(mount.as_os_str().as_bytes());
            if mount != b"/" {
                self.nested |= self.side(&mount) == Side::Local;
                self.add(mount, Side::Remote, false);
            }
        }
    }

    fn mark_broken(&mut self) {
        for bucket in &mut self.buckets {
            let remote = |rule: &&Rule| rule.side == Side::Remote;
            let remote: Vec<Vec<u8>> = bucket.iter().filter(remote).map(|rule| rule.path.clone()).collect();
            for rule in bucket {
                rule.broken = remote.iter().any(|path| below(path, &rule.path).is_some());
            }
        }
    }

    fn add_built_in(&mut self, settings: &Settings) {
        for row in ROWS {
            self.add(row.path.as_bytes().to_vec(), row.side, false);
        }
        for own in [&settings.proxy, &settings.layer] {
            self.add(normal(own.as_os_str().as_bytes()), Side::Local, false);
        }
        for tree in &settings.local_trees {
            let tree = normal(tree.as_os_str().as_bytes());
            for (at, _) in tree.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/') {
                self.add(tree[..at].to_vec(), Side::Local, true);
            }
            if tree != b"/" {
                self.add(tree, Side::Local, false);
            }
        }
    }

    /// A later rule of the same path wins over an earlier one, and a tree over its bare root.
    fn add(&mut self, path: Vec<u8>, side: Side, exact: bool) {
        let bucket = &mut self.buckets[bucket(&path)];
        if exact && bucket.iter().any(|rule| rule.path == path) {
            return;
        }
        bucket.retain(|rule| rule.path != path);
        let at = bucket.partition_point(|rule| rule.path.len() > path.len());
        bucket.insert(at, Rule { path, side, exact, broken: false });
    }

    /// Where an absolute path is served.
    #[must_use]
    pub fn decide(&self, path: &[u8]) -> Side {
        match self.find(path) {
            // Local, and nothing in the path can lead out of there: the way of most calls.
            Some(Rule { side: Side::Local, broken: false, exact: false, .. }) if !has_two_dots(path) => {
                Side::Local
            }
            _ if is_plain(path) => self.side(path),
            _ => self.side(&normal(path)),
        }
    }

    fn side(&self, path: &[u8]) -> Side {
        let path = if path.len() > 1 { path.strip_suffix(b"/").unwrap_or(path) } else { path };
        self.find(path).map_or(self.default, |rule| rule.side)
    }

    fn find(&self, path: &[u8]) -> Option<&Rule> {
        self.buckets[bucket(path)].iter().find(|rule| rule.holds(path))
    }

    /// Whether everything in a folder, at any depth, is local.
    #[must_use]
    pub fn is_local_throughout(&self, folder: &[u8]) -> bool {
        let inside = |rule: &Rule| rule.side == Side::Remote && below(&rule.path, folder).is_some();
        let nested = || self.buckets.iter().flatten().any(inside);
        // A row for the folder alone says nothing about what is below it: ask for a path there.
        self.side(folder) == Side::Local && self.side(&[folder, b"/\0"].concat()) == Side::Local && !nested()
    }

    /// Whether a path that starts at a local folder may be remote.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.nested
    }

    /// Whether nothing is remote at all.
    #[must_use]
    pub fn is_all_local(&self) -> bool {
        self.default == Side::Local && self.buckets.iter().all(Vec::is_empty)
    }
}

/// Whether two dots follow one another, as they do in every `..`.
fn has_two_dots(path: &[u8]) -> bool {
    // Of two bytes in a row, one is at an odd place.
    (1..path.len())
        .step_by(2)
        .any(|at| path[at] == b'.' && (path[at - 1] == b'.' || path.get(at + 1) == Some(&b'.')))
}

fn bucket(path: &[u8]) -> usize {
    usize::from(path.get(1).copied().unwrap_or(0)) % BUCKETS
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn rules(files: FileMode, mounts: &[&str], trees: &[&str]) -> Rules {
        Rules::new(&Settings {
            proxy: "/var/lib/proxy/socket".into(),
            layer: "/srv/layer.so".into(),
            files,
            outgoing: true,
            remote_mounts: mounts.iter().map(PathBuf::from).collect(),
            local_trees: trees.iter().map(PathBuf::from).collect(),
        })
    }

    fn remote_ones<'a>(rules: &Rules, paths: &[&'a str]) -> Vec<&'a str> {
        paths.iter().copied().filter(|path| rules.decide(path.as_bytes()) == Side::Remote).collect()
    }

    #[test]
    fn the_application_is_remote_and_the_machine_local() {
        let rules = rules(FileMode::Read, &[], &["/home/u", "/projects/shop"]);
        let remote =
            ["/", "/etc", "/etc/hosts", "/etc/app/config.yaml", "/srv/data", "/app", "/var/lib/x", "/usrx"];
        assert_eq!(remote_ones(&rules, &remote), remote);
        let secrets = ["/var/run/secrets/kubernetes.io/serviceaccount/token", "/run/secrets/a"];
        assert_eq!(remote_ones(&rules, &secrets), secrets);
        let local = [
            "/usr",
            "/usr/lib/x.so",
            "/proc/self/maps",
            "/etc/passwd",
            "/etc/ld.so.cache",
            "/tmp/a/",
            "/run/u",
        ];
        assert_eq!(remote_ones(&rules, &local), [""; 0]);
    }

    #[test]
    fn the_users_folders_stay_local_and_so_does_the_way_to_them() {
        let rules = rules(FileMode::Read, &[], &["/home/u", "/projects/shop/", "/"]);
        assert_eq!(
            remote_ones(&rules, &["/home", "/home/u", "/home/u/.npmrc", "/projects", "/projects/shop/x"]),
            [""; 0]
        );
        let remote = ["/home/other", "/projects/other", "/"];
        assert_eq!(remote_ones(&rules, &remote), remote);
    }

    #[test]
    fn mirrords_own_files_stay_local() {
        let rules = rules(FileMode::Read, &[], &[]);
        assert_eq!(remote_ones(&rules, &["/srv/layer.so", "/var/lib/proxy/socket"]), [""; 0]);
        assert_eq!(rules.decide(b"/srv/layer.toml"), Side::Remote);
    }

    #[test]
    fn a_mount_of_the_pod_wins_where_it_is_more_specific() {
        let rules = rules(FileMode::Read, &["/opt/app/config", "/home/u/volume/"], &["/home/u"]);
        assert_eq!(
            remote_ones(&rules, &["/opt/app", "/opt/app/config/a", "/opt/app/configs", "/home/u/volume"]),
            ["/opt/app/config/a", "/home/u/volume"]
        );
        assert!(rules.is_nested());
        assert!(!rules.is_local_throughout(b"/opt/app") && !rules.is_local_throughout(b"/home/u"));
        assert!(rules.is_local_throughout(b"/usr/lib"));
    }

    #[test]
    fn the_way_to_a_local_folder_is_not_local_throughout() {
        let rules = rules(FileMode::Read, &[], &["/projects/shop"]);
        assert!(rules.is_local_throughout(b"/projects/shop/src"));
        assert!(!rules.is_local_throughout(b"/projects"), "its other folders are remote");
        assert!(!rules.is_local_throughout(b"/run"), "/run/secrets is remote");
    }

    #[test]
    fn dots_can_neither_hide_nor_fake_a_row() {
        let rules = rules(FileMode::Read, &[], &["/projects/shop"]);
        assert_eq!(rules.decide(b"/usr/../srv/x"), Side::Remote);
        assert_eq!(rules.decide(b"/srv/../usr/x"), Side::Local);
        assert_eq!(rules.decide(b"//usr//lib"), Side::Local);
        assert_eq!(rules.decide(b"/usr/."), Side::Local);
        assert_eq!(rules.decide(b"/projects"), Side::Local);
        assert_eq!(rules.decide(b"/projects/../srv"), Side::Remote);
        for hidden in ["/run//secrets/x", "/run/./secrets", "//run/secrets", "/var/run/a/../secrets"] {
            assert_eq!(rules.decide(hidden.as_bytes()), Side::Remote, "{hidden}");
        }
    }

    proptest! {
        #[test]
        fn a_path_is_decided_as_its_normal_form(path in "(/|/(usr|run|secrets|srv|etc|passwd|work|shop|[.]|[.][.]|)){1,6}") {
            let rules = rules(FileMode::Read, &["/usr/srv"], &["/projects/shop"]);
            prop_assert_eq!(rules.decide(path.as_bytes()), rules.decide(&normal(path.as_bytes())));
        }
    }

    #[test]
    fn modes_change_the_default() {
        assert!(rules(FileMode::Local, &["/data"], &[]).is_all_local());
        let overrides = rules(FileMode::LocalWithOverrides, &["/data"], &[]);
        assert_eq!(remote_ones(&overrides, &["/", "/etc/hosts", "/data/x"]), ["/data/x"]);
    }

    #[test]
    fn every_row_is_absolute_plain_reasoned_and_there_once() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(row.path.starts_with('/') && is_plain(row.path.as_bytes()) && !row.reason.is_empty());
            assert!(!ROWS[..index].iter().any(|other| other.path == row.path), "{} twice", row.path);
        }
    }
}
