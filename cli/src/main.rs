//! The command a developer types. All of it is in the library of this crate.
use std::process::ExitCode;

fn main() -> ExitCode {
    mirrord_cli::main(std::env::args_os())
}
