//! Filesystems that no session gets to see: what lies on them isn't files but the kernel, other processes, and handles
//! of this one. Told by the number in statfs(2), whatever the path was.

use rustix::fs::FsWord;

/// Numbers of linux/magic.h and of the filesystems' own sources.
const NEVER: [(FsWord, &str); 23] = [
    (0x9fa0, "files of proc"),
    (0x6265_6572, "files of sysfs"),
    (0x0027_e0eb, "files of cgroup"),
    (0x6367_7270, "files of cgroup2"),
    (0x1cd1, "terminals"),
    (0x7363_6673, "files of securityfs"),
    (0x6462_6720, "files of debugfs"),
    (0x7472_6163, "files of tracefs"),
    (0xcafe_4a11, "files of bpf"),
    (0x1980_0202, "message queues"),
    (0xf97c_ff8c, "files of selinuxfs"),
    (0x4341_5d53, "files of smackfs"),
    (0x5a3c_69f0, "files of apparmorfs"),
    (0x6265_6570, "files of configfs"),
    (0x6165_676c, "files of pstore"),
    (0xde5e_81e4, "files of efivarfs"),
    (0x4249_4e4d, "files of binfmt_misc"),
    (0x6573_5543, "files of fusectl"),
    (0xabba_1974, "files of xenfs"),
    (0x6e73_6673, "namespaces"),
    (0x5049_5045, "pipes"),
    (0x534f_434b, "sockets"),
    (0x0904_1934, "anonymous inodes"),
];

/// What a filesystem of this number holds, where that is never served.
pub(super) fn never_served(number: FsWord) -> Option<&'static str> {
    NEVER.iter().find(|(magic, _)| *magic == number).map(|(_, what)| *what)
}
