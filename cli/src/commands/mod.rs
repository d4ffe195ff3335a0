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
    config::{Config, file},
    exit::{Exit, Problem},
    kubernetes::access::{Access, AccessError, Place},
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

/// What configuration file and command line say together; the command line wins.
#[derive(Debug)]
pub struct Choice {
    /// The file's, else the defaults.
    pub config: Config,
    /// How the API server is reached.
    pub access: Access,
    namespace: Option<String>,
}

impl Choice {
    /// Reads the file that these options name, else the nearest from the directory upwards.
    ///
    /// # Errors
    /// All mistakes in it.
    pub fn new(cluster: &Cluster, directory: &Path) -> Result<Self, Problem> {
        let (config, _) = file::load(cluster.config_file.as_deref(), directory, home().as_deref())?;
        let named = cluster.kubeconfig.as_deref().or(config.kubeconfig.as_deref());
        let list = std::env::var_os("KUBECONFIG");
        let access = Access {
            kubeconfigs: Access::locate(named, list.as_deref(), home().as_deref(), directory),
            context: cluster.context.clone().or_else(|| config.context.clone()),
            user: cluster.user.clone(),
            groups: cluster.groups.clone(),
        };
        let namespace = cluster.namespace.clone().or_else(|| config.namespace.clone());
        Ok(Self { config, access, namespace })
    }

    /// The place in the cluster.
    ///
    /// # Errors
    /// Where the kubeconfig doesn't work out.
    pub fn place(&self) -> Result<Place, AccessError> {
        self.access.place(self.namespace.as_deref())
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
