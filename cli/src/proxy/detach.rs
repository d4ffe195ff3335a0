//! How a proxy becomes nobody's child.
//!
//! `exec` ends in execve(2), so a child of it would be a child of the user's program, which may wait for its children.
//! Therefore two generations: `exec` starts a process that leaves the terminal's session (setsid(2)), starts the proxy and
//! ends; init takes the proxy over. Of descriptors only the two pipes to `exec` go along, and stderr until the proxy is
//! ready: the job comes by stdin, reports go by stdout, and on stderr a credential plugin may ask its user to log in.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{folder::Folder, job::Job, log, run};
use crate::exit::{Exit, Problem};

/// The program that proxies are started from: this one, wherever it was found.
fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
}

/// The first generation's command; its stdin and stdout are pipes.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(own_program());
    command.arg("proxy").stdin(Stdio::piped()).stdout(Stdio::piped()).arg0("mirrord");
    command
}

/// The first generation: leaves everything behind and starts the second.
///
/// # Errors
/// As the kernel says.
pub fn leave() -> io::Result<()> {
    close_inherited()?;
    std::env::set_current_dir("/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Fails only for a leader of a process group, which a fresh child isn't; then it is no worse off.
    let _ = rustix::process::setsid();
    Command::new(own_program()).args(["proxy", "--detached"]).arg0("mirrord").spawn().map(drop)
}

/// What the user's shell had open and didn't mark is no business of ours, and would be kept open by us.
fn close_inherited() -> io::Result<()> {
    let numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // The folder's own is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// The second generation: the proxy itself, until its end.
///
/// # Errors
/// What was wrong at the start.
pub fn stay() -> Result<(), Problem> {
    let internal =
        |error: &dyn std::fmt::Display| Problem::new(Exit::Internal, format!("the proxy can't run: {error}"));
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|error| internal(&error))?;
    if let Ok(nowhere) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&nowhere);
    }
    let job: Job = serde_json::from_str(&text).map_err(|error| internal(&error))?;
    let folder = Folder::of_user()?;
    log::start(&folder.log(&job.name)).map_err(|error| internal(&error))?;
    // Two: the tunnel's packets and the programs' sockets.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| internal(&error))?;
    let result = runtime.block_on(run::run(job, folder));
    if let Err(problem) = &result {
        tracing::error!(%problem, "not started");
    }
    result
}
