//! Where the preload library is.
//!
//! A release build carries it inside (`MIRRORD_EMBED_LAYER` at build time, see build.rs): then it is written to the
//! runtime folder once, under a name that is its hash. That folder is ours alone, so a file there of our own, with the
//! library's size and a mode by which nobody writes to it, is the library. Else it lies beside the program, as in a
//! build folder, or in `../lib/mirrord`. `MIRRORD_LAYER_FILE` names another.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    exit::{Exit, Problem},
    proxy::folder::Folder,
};

/// The variable that names another library.
pub const VARIABLE: &str = "MIRRORD_LAYER_FILE";
/// The library's file name, as cargo gives it.
pub const FILE: &str = "libmirrord_layer_preload.so";

/// The mode of the library's file: nobody writes to it.
const MODE: u32 = 0o500;

/// A library inside this program.
struct Embedded {
    content: &'static [u8],
    /// Of the content: the beginning of SHA-256, in hexadecimal.
    hash: &'static str,
}

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
    if let Some(library) = &EMBEDDED {
        return extract(library, folder.path());
    }
    let program = std::env::current_exe().unwrap_or_default();
    let beside = program.parent().unwrap_or(Path::new("/"));
    let places = vec![beside.join(FILE), beside.join("../lib/mirrord").join(FILE)];
    let found = places.iter().find_map(|path| fs::canonicalize(path).ok());
    found.ok_or(LayerError::Missing(places))
}

/// Writes the library, unless it is there: whole or not at all, as several commands may do so at once.
fn extract(library: &Embedded, folder: &Path) -> Result<PathBuf, LayerError> {
    let path = folder.join(format!("layer-{}.so", library.hash));
    if fs::symlink_metadata(&path).is_ok_and(|found| is_whole(&found, library)) {
        return Ok(path);
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file: File = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(library.content)?;
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
        drop(file);
        fs::rename(&new, &path)
    };
    match write() {
        Ok(()) => Ok(path),
        Err(error) => Err(LayerError::Unwritable { path, error }),
    }
}

fn is_whole(found: &fs::Metadata, library: &Embedded) -> bool {
    found.is_file()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o7777 == MODE
        && usize::try_from(found.len()).is_ok_and(|length| length == library.content.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: Embedded = Embedded { content: b"library", hash: "01" };

    #[test]
    fn the_embedded_library_is_written_once_and_mended_if_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = extract(&LIBRARY, folder.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"library");
        let written = fs::metadata(&path).unwrap();
        assert_eq!(written.permissions().mode() & 0o777, 0o500);
        assert_eq!(extract(&LIBRARY, folder.path()).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().ino(), written.ino(), "written once");
        let another = Embedded { hash: "02", ..LIBRARY };
        assert_ne!(extract(&another, folder.path()).unwrap(), path);
    }

    #[test]
    fn a_file_that_may_not_be_the_library_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer-01.so");
        for (content, mode) in [("cut", 0o500), ("LIBRARY", 0o600), ("library and more", 0o500)] {
            let _ = fs::remove_file(&path);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(extract(&LIBRARY, folder.path()).unwrap(), path);
            assert_eq!(fs::read(&path).unwrap(), b"library");
        }
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(fs::symlink_metadata(extract(&LIBRARY, folder.path()).unwrap()).unwrap().is_file());
    }
}
