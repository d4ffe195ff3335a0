//! The folder with the gate keys, as kubelet keeps it from a Secret: `current`, and while keys change `next` and `previous`.
//!
//! Nobody watches it. A token that no key has signed is what a new key looks like from here, so that is when the folder
//! is looked at again, at most once per second, and read if its files are no longer the same ones.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mirrord_certs::GateMaster;
use thiserror::Error;

/// How often the folder is looked at under a flood of forged tokens.
const PAUSE: Duration = Duration::from_secs(1);
const FILES: [&str; 3] = ["current", "next", "previous"];

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum GateError {
    /// A file can't be read.
    #[error("cannot read the gate key {path}: {error}; mount the Secret `mirrord-gate` there")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file has the wrong length.
    #[error(
        "the gate key {path} must have 32 bytes; the webhook fills the Secret `mirrord-gate`, delete it to have it made anew"
    )]
    Length {
        /// Which.
        path: PathBuf,
    },
}

/// Which files the keys came from: inode, and seconds and nanoseconds of their last change.
type Stamp = [Option<(u64, i64, i64)>; FILES.len()];

/// A folder of keys.
#[derive(Debug)]
pub struct GateFolder {
    path: PathBuf,
    stamp: Stamp,
    looked: Option<Instant>,
}

impl GateFolder {
    /// Opens a folder and reads its keys.
    ///
    /// # Errors
    /// See [`GateError`].
    pub fn open(path: PathBuf) -> Result<(Self, Vec<GateMaster>), GateError> {
        let stamp = stamp(&path);
        let keys = read(&path)?;
        Ok((Self { path, stamp, looked: None }, keys))
    }

    /// New keys, if there are any and it isn't too early to look again.
    pub fn refresh(&mut self, now: Instant) -> Option<Vec<GateMaster>> {
        if self.looked.is_some_and(|looked| now.duration_since(looked) < PAUSE) {
            return None;
        }
        self.looked = Some(now);
        let stamp = stamp(&self.path);
        if stamp == self.stamp {
            return None;
        }
        match read(&self.path) {
            Ok(keys) => {
                self.stamp = stamp;
                tracing::info!(keys = keys.len(), "gate keys changed");
                Some(keys)
            }
            Err(error) => {
                tracing::warn!(%error, "gate keys changed, but the old ones stay in use");
                None
            }
        }
    }
}

fn stamp(folder: &Path) -> Stamp {
    FILES.map(|file| {
        let metadata = fs::metadata(folder.join(file)).ok()?;
        Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
    })
}

fn read(folder: &Path) -> Result<Vec<GateMaster>, GateError> {
    let mut keys = Vec::with_capacity(FILES.len());
    for file in FILES {
        let path = folder.join(file);
        match fs::read(&path) {
            Ok(bytes) => match GateMaster::new(&bytes) {
                Some(key) => keys.push(key),
                None => return Err(GateError::Length { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && file != FILES[0] => {}
            Err(error) => return Err(GateError::Read { path, error }),
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Puts a version of the Secret in place as kubelet's atomic writer does.
    fn put(folder: &Path, version: &str, files: &[(&str, &[u8])]) {
        fs::create_dir(folder.join(version)).unwrap();
        for (name, bytes) in files {
            fs::write(folder.join(version).join(name), bytes).unwrap();
            let _ = symlink(Path::new("..data").join(name), folder.join(name));
        }
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }

    fn bytes(keys: &[GateMaster]) -> Vec<[u8; 32]> {
        keys.iter().map(|key| *key.as_bytes()).collect()
    }

    #[test]
    fn keys_follow_kubelets_swap_at_most_once_per_second() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "..1", &[("current", &[1; 32])]);
        let (mut gate, keys) = GateFolder::open(folder.path().into()).unwrap();
        assert_eq!(bytes(&keys), [[1; 32]]);
        let now = Instant::now();
        assert!(gate.refresh(now).is_none(), "nothing changed");
        put(folder.path(), "..2", &[("current", &[2; 32]), ("next", &[3; 32]), ("previous", &[1; 32])]);
        assert!(gate.refresh(now + PAUSE / 2).is_none(), "too early");
        assert_eq!(bytes(&gate.refresh(now + PAUSE).unwrap()), [[2; 32], [3; 32], [1; 32]]);
        assert!(gate.refresh(now + 3 * PAUSE).is_none(), "nothing changed since");
    }

    #[test]
    fn a_broken_new_key_leaves_the_old_ones_and_is_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "..1", &[("current", &[1; 32])]);
        let (mut gate, _) = GateFolder::open(folder.path().into()).unwrap();
        let now = Instant::now();
        put(folder.path(), "..2", &[("current", b"short")]);
        assert!(gate.refresh(now).is_none());
        put(folder.path(), "..3", &[("current", &[3; 32])]);
        assert_eq!(bytes(&gate.refresh(now + PAUSE).unwrap()), [[3; 32]]);
    }

    #[test]
    fn without_a_key_the_error_names_the_file_and_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let error = GateFolder::open(folder.path().into()).unwrap_err().to_string();
        assert!(error.contains("/current") && error.contains("mirrord-gate"), "{error}");
        fs::write(folder.path().join("current"), b"").unwrap();
        let error = GateFolder::open(folder.path().into()).unwrap_err().to_string();
        assert!(error.contains("32 bytes"), "{error}");
    }
}
