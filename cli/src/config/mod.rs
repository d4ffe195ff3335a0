//! The configuration: `mirrord.json`, found, read, checked and resolved.
//!
//! | module | what it holds |
//! |---|---|
//! | [`keys`] | the one table of keys: path, type, default, meaning |
//! | [`text`] | JSON with positions, checked against the table; all mistakes at once |
//! | [`resolve`] | raw values → [`Config`] |
//! | [`file`] | which file it is |
//! | [`reference`] | `CONFIGURATION.md`, made from the table |

pub mod file;
pub mod keys;
pub mod reference;
pub mod resolve;
pub mod text;

use std::path::PathBuf;

use mirrord_session::Target;
use serde::Serialize;

use crate::{
    environment::Rules,
    exit::{Exit, Problem},
};

/// What `mirrord exec` shall do, as far as a file can say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Whose context it is.
    pub target: Option<Target>,
    /// Where the target is; else the kubeconfig's.
    pub namespace: Option<String>,
    /// Instead of `KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Instead of the kubeconfig's current one.
    pub context: Option<String>,
    /// Which variables are the pod's; `None`: none.
    pub environment: Option<Rules>,
    /// Whether files are read in the pod.
    pub files: bool,
    /// Whether connections and look-ups go out from the pod.
    pub outgoing: bool,
}

/// A mistake, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// A file with mistakes in it: all that were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// As the user would write it.
    pub file: PathBuf,
    /// At least one, in the file's order.
    pub mistakes: Vec<Mistake>,
}

impl Config {
    /// What holds where no file says otherwise.
    #[must_use]
    pub fn standard() -> Self {
        Self { environment: Some(Rules::default()), files: true, outgoing: true, ..Self::default() }
    }
}

impl From<Mistakes> for Problem {
    fn from(found: Mistakes) -> Self {
        let file = found.file.display();
        let lines: Vec<String> = found
            .mistakes
            .iter()
            .map(|mistake| format!("{file}:{}:{}: {}", mistake.line, mistake.column, mistake.message))
            .collect();
        Self::new(Exit::Configuration, lines.join("\n"))
            .help("`mirrord verify-config` checks the file without starting anything; with --help it lists all keys")
    }
}
