//! Which container a process belongs to, told by its mounts (proc_pid_mountinfo(5)).
//!
//! kubelet binds a file of each container's own folder, `…/pods/UID/containers/NAME/…`, into it for the termination
//! message, wherever a pod wants that, and the fourth field names the folder. Container ids in cgroup paths would have to be
//! mapped to names by somebody; this needs nobody.

/// Whether these mounts are those of a container of a pod.
pub(crate) fn belongs_to(mountinfo: &str, pod_uid: &str, container: &str) -> bool {
    let folder = format!("/pods/{pod_uid}/containers/{container}/");
    mountinfo.lines().filter_map(|line| line.split(' ').nth(3)).any(|root| root.contains(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "5a0b2f7e-0d3c-4d35-9a3f-0f6a1f2d3c4b";

    fn mounts(root: &str) -> String {
        format!(
            "611 479 0:52 / / rw,relatime master:200 - overlay overlay rw,lowerdir=/l\n\
             622 611 252:1 {root} /dev/termination-log rw,relatime - ext4 /dev/vda1 rw,discard\n"
        )
    }

    #[test]
    fn the_termination_log_tells_the_container() {
        let own = mounts(&format!("/var/lib/kubelet/pods/{UID}/containers/app/3f2a9c1d"));
        assert!(belongs_to(&own, UID, "app"));
        assert!(!belongs_to(&own, UID, "ap"));
        assert!(!belongs_to(&own, UID, "mirrord-app"));
        assert!(!belongs_to(&own, "another", "app"));
    }

    #[test]
    fn kubelet_on_a_filesystem_of_its_own_is_recognised() {
        assert!(belongs_to(&mounts(&format!("/pods/{UID}/containers/app/3f2a9c1d")), UID, "app"));
    }

    #[test]
    fn other_mounts_tell_nothing() {
        assert!(!belongs_to("", UID, "app"));
        let elsewhere = format!("1 2 0:1 / /pods/{UID}/containers/app/x rw - tmpfs tmpfs rw\n");
        assert!(!belongs_to(&elsewhere, UID, "app"), "a mount point is the container's own choice");
    }
}
