//! Where sockets, logs and locks lie: a folder of the user's own, for nobody else's eyes.
//!
//! `$XDG_RUNTIME_DIR/mirrord`, else `/tmp/mirrord-UID`. In /tmp anybody could have been first, so the folder must be a
//! real one, ours, and closed to others; else nothing is put there.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::exit::{Exit, Problem};

/// The folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

/// Why there is no such folder.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It can't be made or looked at.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It isn't safe.
    #[error("{} isn't a folder that only you can enter", .0.display())]
    Unsafe(PathBuf),
}

impl From<FolderError> for Problem {
    fn from(error: FolderError) -> Self {
        Self::new(Exit::Internal, error.to_string())
            .help("set XDG_RUNTIME_DIR to a folder of your own (mode 0700), or remove the one named")
    }
}

impl Folder {
    /// The user's folder; made where it isn't there.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn of_user() -> Result<Self, FolderError> {
        let user = rustix::process::geteuid().as_raw();
        let path = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(runtime) if runtime.is_absolute() && runtime.is_dir() => runtime.join("mirrord"),
            _ => PathBuf::from(format!("/tmp/mirrord-{user}")),
        };
        Self::at(path, user)
    }

    /// A folder of a user; made where it isn't there.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn at(path: PathBuf, user: u32) -> Result<Self, FolderError> {
        let failed = |error| FolderError::Io { path: path.clone(), error };
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let found = fs::symlink_metadata(&path).map_err(failed)?;
        if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
            return Err(FolderError::Unsafe(path));
        }
        Ok(Self(path))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The commands' door of a proxy.
    #[must_use]
    pub fn control(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.control"))
    }

    /// The layers' door of a proxy: never that of one before it.
    #[must_use]
    pub fn layer(&self, name: &str, process: u32) -> PathBuf {
        self.0.join(format!("{name}-{process}.layer"))
    }

    /// The log of a proxy.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }

    /// Locks the making and removing of a proxy's doors, until the file is dropped.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn lock(&self, name: &str) -> io::Result<File> {
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.0.join(format!("{name}.lock")))?;
        file.lock()?;
        Ok(file)
    }

    /// The names of all proxies that have a door.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let name =
            |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".control").map(str::to_owned);
        let mut names: Vec<String> = entries.filter_map(|entry| name(entry.ok()?)).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_that_others_can_enter_or_that_is_elsewhere_is_refused() {
        let user = rustix::process::geteuid().as_raw();
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("mirrord");
        assert!(Folder::at(path.clone(), user).is_ok());
        assert!(Folder::at(path.clone(), user).is_ok(), "a second time");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(Folder::at(path.clone(), user + 1), Err(FolderError::Unsafe(_))), "another's");
        let link = base.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(Folder::at(link, user), Err(FolderError::Unsafe(_))), "a symbolic link");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let problem = Problem::from(Folder::at(path, user).unwrap_err());
        assert!(problem.message.ends_with("isn't a folder that only you can enter"), "{problem}");
    }
}
