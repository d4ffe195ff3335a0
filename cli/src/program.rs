//! Which program a command means, and whether mirrord can run it.
//!
//! As execvp(3): a name with a slash is a path, another is looked up in the local `PATH`. What the layer can't enter is
//! refused, unless the user lets it run locally.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use mirrord_layer_brain::program::{Refusal, refusal};
use rustix::fs::{Access, access};
use thiserror::Error;

use crate::exit::{Exit, Problem};

/// Why a program isn't run.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// There is none of that name.
    #[error("{}: there is no such program{}", .0.display(), if .0.as_os_str().as_bytes().contains(&b'/') { "" } else { " in PATH" })]
    NotFound(PathBuf),
    /// It is there, but no program.
    #[error("{} can't be executed", .0.display())]
    NotExecutable(PathBuf),
    /// A folder.
    #[error("{} is a folder", .0.display())]
    Folder(PathBuf),
    /// The layer can't enter it.
    #[error("{0}")]
    Refused(Box<Refusal>),
}

impl From<ProgramError> for Problem {
    fn from(error: ProgramError) -> Self {
        match &error {
            ProgramError::NotFound(_) => Self::new(Exit::NotFound, error.to_string())
                .help("the program runs on this machine and must be installed here; check its name and PATH"),
            ProgramError::NotExecutable(path) => Self::new(Exit::CannotExecute, error.to_string())
                .help(format!("a file is made a program by: chmod +x {}", path.display())),
            ProgramError::Folder(_) => Self::new(Exit::CannotExecute, error.to_string()).help(
                "write the program's name after --, as in: mirrord exec -t deployment/NAME -- ./program",
            ),
            ProgramError::Refused(_) => Self::new(Exit::CannotExecute, error.to_string()).help(Refusal::HELP),
        }
    }
}

/// Finds a program as execvp(3) would.
///
/// # Errors
/// See [`ProgramError`].
pub fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    let runnable = |file: &Path| file.is_file() && access(file, Access::EXEC_OK).is_ok();
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return match file.exists() {
            true if runnable(&file) => Ok(file),
            true if file.is_dir() => Err(ProgramError::Folder(file)),
            true => Err(ProgramError::NotExecutable(file)),
            false => Err(ProgramError::NotFound(file)),
        };
    }
    let mut seen = None;
    for folder in
        std::env::split_paths(path.unwrap_or(OsStr::new("/usr/bin:/bin"))).filter(|_| !name.is_empty())
    {
        let file = folder.join(name);
        if runnable(&file) {
            return Ok(file);
        }
        if file.is_file() {
            seen = seen.or(Some(file));
        }
    }
    Err(seen.map_or_else(|| ProgramError::NotFound(name.into()), ProgramError::NotExecutable))
}

/// Whether the layer can enter a program.
///
/// # Errors
/// [`ProgramError::Refused`].
pub fn admit(file: &Path) -> Result<(), ProgramError> {
    refusal(file).map_or(Ok(()), |refusal| Err(ProgramError::Refused(Box::new(refusal))))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_would() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| folder.path().join(name));
        for place in [&first, &second] {
            fs::create_dir(place).unwrap();
        }
        fs::write(first.join("tool"), "").unwrap();
        fs::write(second.join("tool"), "").unwrap();
        fs::write(first.join("plain"), "").unwrap();
        fs::set_permissions(second.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::join_paths([&first, &second]).unwrap();
        let find = |name: &str| find(OsStr::new(name), Some(&path));
        assert_eq!(find("tool").unwrap(), second.join("tool"), "the first that can be executed");
        let code = |name: &str| Problem::from(find(name).unwrap_err()).exit.number();
        assert_eq!(code("plain"), 126);
        assert!(matches!(super::find(first.as_os_str(), None), Err(ProgramError::Folder(_))));
        assert_eq!(code("missing"), 127);
        assert_eq!(code("./missing"), 127);
        assert_eq!(code(""), 127);
        assert_eq!(code(first.join("plain").to_str().unwrap()), 126);
    }
}
