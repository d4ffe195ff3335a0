//! Which file it is: the one named, else the nearest `.mirrord/mirrord.json` from the working directory upwards.
//!
//! The search ends at the first folder that holds `.git`, at the home directory, or at the root: a project's
//! configuration is the project's, not that of whatever lies above it.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{Config, Mistakes, resolve::resolve};
use crate::exit::{Exit, Problem};

/// Where the file lies in a project.
pub const NAME: &str = ".mirrord/mirrord.json";

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum FileError {
    /// It can't be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another format.
    #[error("{} isn't JSON by its name: this release reads only JSON", .0.display())]
    Format(PathBuf),
    /// There are mistakes in it.
    #[error("{}", Problem::from(.0.clone()).message)]
    Mistakes(Mistakes),
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Mistakes(mistakes) => mistakes.into(),
            FileError::Unreadable { .. } => Self::new(Exit::Configuration, error.to_string())
                .help("name the file with -f or MIRRORD_CONFIG_FILE"),
            FileError::Format(_) => {
                Self::new(Exit::Configuration, error.to_string()).help("convert it to JSON")
            }
        }
    }
}

/// The nearest file of a project, if there is one.
#[must_use]
pub fn nearest(directory: &Path, home: Option<&Path>) -> Option<PathBuf> {
    for folder in directory.ancestors() {
        let file = folder.join(NAME);
        if file.is_file() {
            return Some(file);
        }
        if folder.join(".git").exists() || Some(folder) == home {
            return None;
        }
    }
    None
}

/// Reads the named file, else the nearest, else takes the defaults; says which file it was.
///
/// # Errors
/// See [`FileError`].
pub fn load(
    named: Option<&Path>,
    directory: &Path,
    home: Option<&Path>,
) -> Result<(Config, Option<PathBuf>), FileError> {
    let Some(path) = named.map(Path::to_owned).or_else(|| nearest(directory, home)) else {
        return Ok((Config::standard(), None));
    };
    if path
        .extension()
        .is_some_and(|extension| ["toml", "yaml", "yml"].iter().any(|other| extension == *other))
    {
        return Err(FileError::Format(path));
    }
    let shown = path.strip_prefix(directory).unwrap_or(&path);
    let text = std::fs::read_to_string(directory.join(&path))
        .map_err(|error| FileError::Unreadable { path: shown.to_owned(), error })?;
    let config = resolve(&text, shown, &base(&directory.join(&path))).map_err(FileError::Mistakes)?;
    Ok((config, Some(shown.to_owned())))
}

/// What relative paths start from: the project, for a file in its `.mirrord`, else the file's own folder.
fn base(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new("/"));
    match folder.parent() {
        Some(project) if folder.ends_with(".mirrord") => project.to_owned(),
        _ => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn project() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir(folder.path().join(".mirrord")).unwrap();
        fs::write(folder.path().join(NAME), r#"{"kubeconfig": "k"}"#).unwrap();
        (folder, inner)
    }

    #[test]
    fn the_nearest_file_upwards_is_taken_and_its_paths_start_at_the_project() {
        let (folder, inner) = project();
        let (config, file) = load(None, &inner, None).unwrap();
        assert_eq!(file, Some(folder.path().join(NAME)));
        assert_eq!(config.kubeconfig, Some(folder.path().join("k")));
    }

    #[test]
    fn the_search_ends_at_a_repository_s_root_and_at_home() {
        let (folder, inner) = project();
        assert_eq!(nearest(&inner, Some(&folder.path().join("a"))), None);
        fs::create_dir(folder.path().join("a/.git")).unwrap();
        assert_eq!(nearest(&inner, None), None);
        assert!(nearest(folder.path(), Some(folder.path())).is_some());
    }

    #[test]
    fn a_file_that_can_t_be_read_is_told_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let problem =
            |name: &str| Problem::from(load(Some(Path::new(name)), folder.path(), None).unwrap_err());
        let missing = problem("none.json");
        assert_eq!(missing.exit, Exit::Configuration);
        assert_eq!(missing.message, "none.json: No such file or directory (os error 2)");
        assert!(problem("mirrord.yaml").message.contains("reads only JSON"));
    }
}
