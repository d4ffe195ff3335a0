//! What each command does.

pub mod check;
pub mod exec;
pub mod ls;
pub mod report;
pub mod session;
pub mod table;
pub mod verify;

use std::path::{Path, PathBuf};

use crate::{
    arguments::Cluster,
    exit::{Exit, Problem},
    kubernetes::access::Access,
};

/// The user's home directory.
#[must_use]
pub fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

/// The working directory.
///
/// # Errors
/// Where it is gone.
pub fn directory() -> Result<PathBuf, Problem> {
    std::env::current_dir().map_err(|error| {
        Problem::new(Exit::Internal, format!("the working directory can't be found: {error}"))
            .help("cd elsewhere")
    })
}

/// How the API server is reached: flags before the configuration's.
#[must_use]
pub fn access(
    cluster: &Cluster,
    kubeconfig: Option<&Path>,
    context: Option<&str>,
    directory: &Path,
) -> Access {
    let named = cluster.kubeconfig.as_deref().or(kubeconfig);
    let list = std::env::var_os("KUBECONFIG");
    Access {
        kubeconfigs: Access::locate(named, list.as_deref(), home().as_deref(), directory),
        context: cluster.context.clone().or_else(|| context.map(str::to_owned)),
        user: cluster.user.clone(),
        groups: cluster.groups.clone(),
    }
}

/// Runs what needs the network, on this thread.
///
/// # Errors
/// Those of the task, or that the machine has no room for a runtime.
pub fn block_on<T>(task: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Problem::new(Exit::Internal, format!("no runtime: {error}")))?.block_on(task)
}

/// Prints to stdout; a closed pipe is no error.
pub fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints JSON to stdout.
///
/// # Errors
/// Where the value can't be expressed.
pub fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Problem::new(Exit::Internal, format!("no JSON: {error}")))?;
    print(&text);
    Ok(())
}
