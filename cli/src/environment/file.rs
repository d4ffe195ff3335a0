//! `NAME=value` lines of a file, in the dialect of dotenv: comments, `export`, quotes, `$NAME`.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Rules, Variables};
use crate::exit::{Exit, Problem};

/// Why a file gives no variables.
#[derive(Debug, Error)]
pub enum EnvFileError {
    /// It can't be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line makes no sense.
    #[error("{}:{line}:{column}: this is no `NAME=value`", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In bytes, from 1.
        column: usize,
    },
}

impl From<EnvFileError> for Problem {
    fn from(error: EnvFileError) -> Self {
        let help = match error {
            EnvFileError::Unreadable { .. } => {
                "\"feature.env.env_file\" names it, relative to the configuration file's project"
            }
            EnvFileError::Line { .. } => "quote values with spaces or `#` in them: NAME=\"a value\"",
        };
        Self::new(Exit::Configuration, error.to_string()).help(help)
    }
}

/// The variables of the file that rules name; none where they name none.
///
/// # Errors
/// See [`EnvFileError`].
pub fn of(rules: Option<&Rules>) -> Result<Variables, EnvFileError> {
    let named = rules.and_then(|rules| rules.file.as_deref());
    named.map(read).transpose().map(Option::unwrap_or_default)
}

/// Reads a file. Where a name stands twice, the last counts, as in a shell.
///
/// # Errors
/// See [`EnvFileError`].
fn read(path: &Path) -> Result<Variables, EnvFileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| EnvFileError::Unreadable { path: path.to_owned(), error })?;
    // Editors of Windows begin with it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let pairs = dotenvy::from_read_iter(text.as_bytes()).map(|pair| match pair {
        Ok((name, value)) => Ok((name.into(), value.into())),
        Err(dotenvy::Error::LineParse(wrong, at)) => {
            let first = wrong.lines().next().unwrap_or_default();
            let line = text.lines().position(|line| line == first).unwrap_or(0) + 1;
            Err(EnvFileError::Line { path: path.to_owned(), line, column: at + 1 })
        }
        Err(other) => {
            Err(EnvFileError::Unreadable { path: path.to_owned(), error: std::io::Error::other(other) })
        }
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn quotes_comments_and_references_mean_what_they_mean_to_dotenv() {
        let text = "# first\nexport A=1\nB='a $A b' # why\nC=\"$A and\\n2\"\n\nD=\nE=x # y\nA=2\n";
        let (_folder, path) = file(text);
        let read = read(&path).unwrap();
        let pairs: Vec<_> =
            read.iter().map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap())).collect();
        assert_eq!(pairs, [("A", "2"), ("B", "a $A b"), ("C", "1 and\n2"), ("D", ""), ("E", "x")]);
    }

    #[test]
    fn what_editors_put_before_a_text_is_no_part_of_it() {
        let (_folder, path) = file("\u{feff}A=1\n");
        assert_eq!(read(&path).unwrap().get(std::ffi::OsStr::new("A")).unwrap(), "1");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let (_folder, path) = file("A=1\nnonsense here\n");
        let problem = Problem::from(read(&path).unwrap_err());
        assert!(problem.message.contains(".env:2:"), "{problem}");
        assert_eq!(problem.exit, Exit::Configuration);
        let missing = Problem::from(read(Path::new("/nowhere/.env")).unwrap_err());
        assert!(missing.message.starts_with("/nowhere/.env: No such file"), "{missing}");
    }
}
