//! Why no process of the application can be read, for people who may change it.
//!
//! The conditions are the kernel's (PTRACE_MODE_READ_FSCREDS in ptrace(2)): all uids and gids of the process are ours, it
//! has no capability that we lack, and it is dumpable. proc_pid_status(5) shows all of that but the last, to everybody.

use std::fs;

use mirrord_protocol::control::Obstacle;

use crate::live::{Target, processes};

/// What is in the way of a view of the target's lowest process.
pub(crate) fn obstacle(target: &Target) -> Obstacle {
    let Some(number) = processes(target).next() else { return Obstacle::NoProcess };
    let (Some(ours), Some(theirs)) = (status("self"), status(&number.to_string())) else {
        return Obstacle::NoProcess;
    };
    let credentials = Credentials::parse(&ours).zip(Credentials::parse(&theirs));
    let different = credentials.and_then(|(ours, theirs)| ours.difference(&theirs));
    different.unwrap_or_else(|| match fs::File::open(format!("/proc/{number}/environ")) {
        Ok(_) => Obstacle::Overwritten,
        Err(_) => Obstacle::Shielded,
    })
}

/// What the kernel tells of a process. Its name, cut after 15 bytes, need not be text.
fn status(who: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{who}/status")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Who a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Credentials {
    /// Real, effective and saved; those of the file system for whoever reads.
    users: [u32; 4],
    groups: [u32; 4],
    permitted: u64,
    effective: u64,
}

impl Credentials {
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let ids = |name| {
            let ids: Vec<u32> =
                field(name)?.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
            ids.try_into().ok()
        };
        let set = |name| u64::from_str_radix(field(name)?.trim(), 16).ok();
        Some(Self {
            users: ids("Uid:")?,
            groups: ids("Gid:")?,
            permitted: set("CapPrm:")?,
            effective: set("CapEff:")?,
        })
    }

    fn difference(&self, theirs: &Self) -> Option<Obstacle> {
        let [.., our_user] = self.users;
        let [.., our_group] = self.groups;
        if theirs.users[..3].iter().any(|user| *user != our_user) {
            Some(Obstacle::User)
        } else if theirs.groups[..3].iter().any(|group| *group != our_group) {
            Some(Obstacle::Group)
        } else if theirs.permitted & !self.effective != 0 {
            Some(Obstacle::Capabilities)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user: &str, group: &str, permitted: &str) -> Credentials {
        let status = format!(
            "Name:\tapp\nUmask:\t0022\nUid:\t{user}\nGid:\t{group}\nGroups:\t1000 \nCapInh:\t0000000000000000\n\
             CapPrm:\t{permitted}\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n"
        );
        Credentials::parse(&status).unwrap()
    }

    #[test]
    fn the_first_condition_that_fails_is_named() {
        const NONE: &str = "0000000000000000";
        let ours = who("7\t7\t7\t7", "8\t8\t8\t8", NONE);
        for (user, group, permitted, obstacle) in [
            ("7\t7\t7\t7", "8\t8\t8\t8", NONE, None),
            ("7\t0\t7\t7", "8\t8\t8\t8", NONE, Some(Obstacle::User)),
            ("7\t7\t0\t7", "9\t9\t9\t9", NONE, Some(Obstacle::User)),
            ("7\t7\t7\t7", "8\t8\t0\t8", NONE, Some(Obstacle::Group)),
            ("7\t7\t7\t7", "8\t8\t8\t8", "0000000000000400", Some(Obstacle::Capabilities)),
        ] {
            assert_eq!(ours.difference(&who(user, group, permitted)), obstacle, "{user} {group} {permitted}");
        }
    }

    #[test]
    fn the_kernels_own_file_is_understood() {
        assert!(Credentials::parse(&fs::read_to_string("/proc/self/status").unwrap()).is_some());
        assert_eq!(Credentials::parse("Uid:\t1\t1\nGid:\t1\t1\t1\t1\n"), None);
    }

    #[test]
    fn a_process_whose_name_is_cut_within_a_letter_is_understood() {
        fs::write("/proc/thread-self/comm", "vierzehn bytesä").unwrap();
        assert!(fs::read_to_string("/proc/thread-self/status").is_err(), "the name ends with half a letter");
        assert!(Credentials::parse(&status("thread-self").unwrap()).is_some());
    }
}
