//! The one binary a developer installs: commands, configuration, and the local proxy that holds the tunnel.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | `mirrord.json`: keys, checks with places, defaults |
//! | [`environment`] | which variables the program gets |
//! | [`exit`] | exit codes, and how an error is told |
//! | [`progress`] | lines on stderr |
#![forbid(unsafe_code)]

pub mod config;
pub mod environment;
pub mod exit;
pub mod progress;

use std::{ffi::OsString, process::ExitCode};

/// Runs the command.
pub fn main(_arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
