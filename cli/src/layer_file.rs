//! Where the preload library is.
//!
//! A release build carries it inside (`MIRRORD_EMBED_LAYER` at build time, see build.rs): then it is written to the
//! runtime folder once, under a name that is its hash, and checked each time. Else it lies beside the program, as in a
//! build folder, or in `../lib/mirrord`. `MIRRORD_LAYER_FILE` names another.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    exit::{Exit, Problem},
    proxy::folder::Folder,
};

/// The variable that names another library.
pub const VARIABLE: &str = "MIRRORD_LAYER_FILE";
/// The library's file name, as cargo gives it.
pub const FILE: &str = "libmirrord_layer_preload.so";

include!(concat!(env!("OUT_DIR"), "/embedded_layer.rs"));

/// Why there is no library.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The one that was named can't be read.
    #[error("{VARIABLE}={}: {error}", path.display())]
    Named {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is nowhere.
    #[error("the preload library {FILE} is missing: it is neither {}", looked(.0))]
    Missing(Vec<PathBuf>),
    /// The embedded one can't be written.
    #[error("the preload library can't be written to {}: {error}", path.display())]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn looked(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" nor ")
}

impl From<LayerError> for Problem {
    fn from(error: LayerError) -> Self {
        let help = match &error {
            LayerError::Named { .. } => "name a file that is there, or unset the variable",
            LayerError::Missing(_) => {
                "build it (cargo build -p mirrord-layer-preload) or install it beside `mirrord`; releases carry it inside"
            }
            LayerError::Unwritable { .. } => {
                "make room there, or set XDG_RUNTIME_DIR to a folder of your own"
            }
        };
        Self::new(Exit::Internal, error.to_string()).help(help)
    }
}

/// Finds the library; the path is absolute.
///
/// # Errors
/// See [`LayerError`].
pub fn find(folder: &Folder) -> Result<PathBuf, LayerError> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        return fs::canonicalize(&path).map_err(|error| LayerError::Named { path, error });
    }
    if let Some(content) = EMBEDDED {
        return extract(content, folder.path());
    }
    let program = std::env::current_exe().unwrap_or_default();
    let beside = program.parent().unwrap_or(Path::new("/"));
    let places = vec![beside.join(FILE), beside.join("../lib/mirrord").join(FILE)];
    let found = places.iter().find_map(|path| fs::canonicalize(path).ok());
    found.ok_or(LayerError::Missing(places))
}

/// Writes the library, unless it is there: whole or not at all, as several commands may do so at once.
fn extract(content: &[u8], folder: &Path) -> Result<PathBuf, LayerError> {
    let hash: String = Sha256::digest(content).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!("layer-{hash}.so"));
    if fs::read(&path).is_ok_and(|found| found == content) {
        return Ok(path);
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file: File = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(0o500))?;
        drop(file);
        fs::rename(&new, &path)
    };
    match write() {
        Ok(()) => Ok(path),
        Err(error) => Err(LayerError::Unwritable { path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_library_is_written_once_and_mended_if_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = extract(b"library", folder.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"library");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o500);
        assert_ne!(extract(b"another", folder.path()).unwrap(), path);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"tampered").unwrap();
        assert_eq!(extract(b"library", folder.path()).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"library");
    }
}
