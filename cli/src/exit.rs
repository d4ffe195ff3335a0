//! Exit codes, and how an error is told.
//!
//! Every operation has an error enum of its own; [`Problem`] is what they all become: a code of the one table
//! below, a sentence about what happened and where, and the next step. A problem can travel from the proxy's
//! process to the command's as JSON, so it makes no difference which of them met it.

use std::{fmt, process::ExitCode};

use serde::{Deserialize, Serialize};

/// Why mirrord ended. Numbers follow sysexits(3) and, from 126 on, the shell (POSIX.1 XCU 2.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", from = "u8")]
pub enum Exit {
    /// A check found something that doesn't work.
    Findings,
    /// The command line is wrong.
    Usage,
    /// The configuration file is wrong.
    Configuration,
    /// There is no such target, or none that can serve.
    Target,
    /// Something on the way to the pod doesn't answer.
    Unreachable,
    /// A defect, or a machine that lacks something basic.
    Internal,
    /// Try again later.
    Temporary,
    /// A right is missing.
    NotGranted,
    /// The program can't be run.
    CannotExecute,
    /// There is no such program.
    NotFound,
}

/// The one table of exit codes: code, number, meaning.
pub const TABLE: [(Exit, u8, &str); 10] = [
    (Exit::Findings, 1, "`mirrord check` found errors"),
    (Exit::Usage, 64, "the command line is wrong, or there is no target"),
    (Exit::Configuration, 65, "the configuration or kubeconfig is wrong"),
    (Exit::Target, 66, "the target doesn't exist, or has no sidecar yet"),
    (Exit::Unreachable, 69, "API server, webhook, ingress or sidecar can't be reached or trusted"),
    (Exit::Internal, 70, "a defect, or something basic is missing on this machine"),
    (Exit::Temporary, 75, "not now: try again"),
    (
        Exit::NotGranted,
        77,
        "a right is missing: the message names verb and resource (`check`: not all was checked)",
    ),
    (Exit::CannotExecute, 126, "the program can't be run, or not under mirrord"),
    (Exit::NotFound, 127, "there is no such program"),
];

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub fn number(self) -> u8 {
        TABLE.iter().find(|(exit, ..)| *exit == self).map_or(70, |(_, number, _)| *number)
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit.number()
    }
}

impl From<u8> for Exit {
    fn from(number: u8) -> Self {
        TABLE.iter().find(|(_, known, _)| *known == number).map_or(Self::Internal, |(exit, ..)| *exit)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// The table as text, for `--help`.
#[must_use]
pub fn table() -> String {
    let row = |(_, number, meaning): &(Exit, u8, &str)| format!("  {number:>3}  {meaning}\n");
    format!(
        "Exit codes (of `exec`: only until the command runs, then they are the command's own):\n{}",
        TABLE.iter().map(row).collect::<String>()
    )
}

/// An error on its way to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How the process ends.
    #[serde(rename = "code")]
    pub exit: Exit,
    /// What happened, and where.
    pub message: String,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Problem {
    /// A problem without advice.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None }
    }

    /// Adds the next step.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", indented(&self.message, 7))?;
        self.help.iter().try_for_each(|help| write!(f, "\n  help: {}", indented(help, 8)))
    }
}

impl std::error::Error for Problem {}

fn indented(text: &str, columns: usize) -> String {
    text.trim_end().replace('\n', &format!("\n{:columns$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_and_survive_the_pipe() {
        for (exit, number, _) in TABLE {
            assert_eq!(exit.number(), number);
            assert_eq!(Exit::from(number), exit);
        }
    }

    #[test]
    fn an_error_reads_as_what_happened_and_what_to_do() {
        let problem = Problem::new(Exit::Target, "two\nlines").help("do this\nthen that");
        assert_eq!(problem.to_string(), "error: two\n       lines\n  help: do this\n        then that");
        let json = serde_json::to_string(&problem).unwrap();
        assert_eq!(json, r#"{"code":66,"message":"two\nlines","help":"do this\nthen that"}"#);
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), problem);
    }
}
