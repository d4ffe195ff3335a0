//! Puts this program where the twin finds it: `mirrord-agent copy DIR`, run once by an init container.
//!
//! The copy has mode 0711 and the copier's uid, which no application has: who may execute but not read a program
//! gets a process that the kernel marks as not dumpable, so the application, though of the same uid as the twin, can
//! read neither its memory nor its token (proc(5), PR_SET_DUMPABLE in prctl(2)).

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// The name of the copy.
const NAME: &str = "mirrord-agent";
const MODE: u32 = 0o711;

/// Why the program could not be copied.
#[derive(Debug, Error)]
#[error("copying this program to {}: {error}", to.display())]
pub(crate) struct CopyError {
    to: PathBuf,
    error: io::Error,
}

/// Copies the running program into a folder.
pub(crate) fn copy(folder: &Path) -> Result<(), CopyError> {
    let to = folder.join(NAME);
    place(folder, &to).map_err(|error| CopyError { to, error })
}

/// Writes beside the target and renames, so that a copier that is run again never truncates a program in use.
fn place(folder: &Path, to: &Path) -> io::Result<()> {
    let partial = folder.join(format!("{NAME}.partial"));
    let mut source = File::open("/proc/self/exe")?;
    let mut copy = File::create(&partial)?;
    io::copy(&mut source, &mut copy)?;
    copy.set_permissions(Permissions::from_mode(MODE))?;
    drop(copy);
    fs::rename(&partial, to)
}
