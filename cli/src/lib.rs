//! The one binary a developer installs: commands, configuration, and the local proxy that holds the tunnel.
//!
//! | module | what it holds |
//! |---|---|
//! | [`arguments`] | the command line |
//! | [`check`] | what an admin should know of an installation |
//! | [`commands`] | what each command does |
//! | [`config`] | `mirrord.json`: keys, checks with places, defaults |
//! | [`environment`] | which variables the program gets |
//! | [`exit`] | exit codes, and how an error is told |
//! | [`kubernetes`] | the API server, as the user's kubeconfig reaches it |
//! | [`layer_file`] | where the preload library is |
//! | [`nearest`] | what a mistyped word may have meant |
//! | [`program`] | which program a command means, and whether mirrord can run it |
//! | [`progress`] | lines on stderr |
//! | [`proxy`] | the lingering process: session, tunnel, doors |
//! | [`tunnel`] | the connection to the pod, kept up |
//! | [`variables`] | the variables that mirrord itself listens to |
#![forbid(unsafe_code)]

pub mod arguments;
pub mod check;
pub mod commands;
pub mod config;
pub mod environment;
pub mod exit;
pub mod kubernetes;
pub mod layer_file;
pub mod nearest;
pub mod program;
pub mod progress;
pub mod proxy;
pub mod tunnel;
pub mod variables;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, error::ErrorKind};

use arguments::{Arguments, Command};
use exit::{Exit, Problem};
use progress::{Mode, Progress};

/// Runs the command; `exec` comes back only where it failed.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { Exit::Usage.into() };
        }
    };
    if let Command::Proxy { detached } = arguments.command {
        return proxy(detached);
    }
    let (progress, result) = match Progress::from_environment() {
        Ok(progress) => {
            variables::warn_of_slips(&progress);
            (progress, run(&arguments.command, &progress))
        }
        Err(problem) => (Progress::new(Mode::Standard), Err(problem)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            progress.problem(&problem);
            problem.exit.into()
        }
    }
}

fn run(command: &Command, progress: &Progress) -> Result<(), Problem> {
    match command {
        Command::Exec(arguments) => Err(commands::exec::exec(arguments, progress)),
        Command::Ls(arguments) => commands::ls::ls(arguments, progress),
        Command::VerifyConfig(arguments) => commands::verify::verify(arguments, progress),
        Command::Check(arguments) => commands::check::check(arguments, progress),
        Command::Session(command) => commands::session::session(command, progress),
        Command::Proxy { .. } => Ok(()),
    }
}

/// The proxy's generations: what goes wrong is told to whoever started them.
fn proxy(detached: bool) -> ExitCode {
    let result = if detached {
        proxy::detach::stay()
    } else {
        let failed = |error| Problem::new(Exit::Internal, format!("the proxy can't be started: {error}"));
        proxy::detach::leave().map_err(failed)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let exit = problem.exit;
            proxy::run::Report::Problem(problem).tell();
            exit.into()
        }
    }
}
