//! Mounts that aren't like the others, told after resolution by what the object lies on: no spelling of a path, no
//! link and no `..` gets around that.
//!
//! An object lies on a mount where their mount ids agree (STATX_MNT_ID in statx(2)). kubelet keeps Secrets and tokens
//! on a tmpfs of each volume's own, so there the device tells as well, also when the volume is mounted once more.

use rustix::fs::{FsWord, Statx, StatxAttributes};

/// TMPFS_MAGIC in linux/magic.h.
const TMPFS: FsWord = 0x0102_1994;

type Device = (u32, u32);

/// Some mounts below a root, and the objects at their tops.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    ids: Vec<u64>,
    devices: Vec<Device>,
    tops: Vec<(Device, u64)>,
}

impl Mounts {
    /// Adds what is at a path: a mount, or else that one object.
    pub(super) fn add(&mut self, status: &Statx, filesystem: FsWord) {
        self.tops.push((device(status), status.stx_ino));
        if status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            self.ids.push(status.stx_mnt_id);
            if filesystem == TMPFS {
                self.devices.push(device(status));
            }
        }
    }

    /// Whether an object lies on one of them.
    pub(super) fn holds(&self, status: &Statx) -> bool {
        self.ids.contains(&status.stx_mnt_id) || self.devices.contains(&device(status)) || self.is_top(status)
    }

    /// Whether an object is the top of one of them.
    pub(super) fn is_top(&self, status: &Statx) -> bool {
        self.tops.contains(&(device(status), status.stx_ino))
    }
}

fn device(status: &Statx) -> Device {
    (status.stx_dev_major, status.stx_dev_minor)
}
