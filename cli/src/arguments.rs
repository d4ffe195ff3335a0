//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mirrord_session::Target;

use crate::{config::keys, exit, variables};

/// Run a local program in the context of a Kubernetes workload.
///
/// Its environment, files, names and connections are those of a running pod; nothing is deployed or restarted.
#[derive(Debug, Parser)]
#[command(name = "mirrord", version, after_long_help = exit::table(), max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `exec --help` ends with.
const EXAMPLES: &str = "\
Kinds of targets: deployment, statefulset, daemonset, replicaset, job, cronjob, pod.

Examples:
  mirrord exec -t deployment/checkout -- ./checkout --port 8080
  mirrord exec -t deployment/checkout/container/web -n shop -- python3 checkout.py
  mirrord exec -t pod/checkout-7d4b9-x2x8z -- env";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program in the context of a workload.
    #[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}\n{}", variables::table(), exit::table()))]
    Exec(Exec),
    /// List the workloads that can be used.
    Ls(List),
    /// Check a configuration file, and show what it means. Its --help lists all keys.
    #[command(after_long_help = keys::table())]
    VerifyConfig(Verify),
    /// Check an installation: webhook, ingress, workloads, rights. For admins.
    ///
    /// Reads, and creates pods and a Session in dry runs: nothing is changed, but with --probe. Looks at all namespaces, or
    /// with -n at one.
    #[command(after_long_help = exit::table())]
    Check(Check),
    /// List or stop sessions.
    #[command(subcommand)]
    Session(SessionCommand),
    /// The proxy's own process.
    #[command(hide = true)]
    Proxy {
        /// The second generation.
        #[arg(long)]
        detached: bool,
    },
}

/// Which cluster, and as whom.
#[derive(Args, Clone, Debug, Default)]
pub struct Cluster {
    /// Configuration; else the nearest .mirrord/mirrord.json upwards.
    #[arg(short = 'f', long, env = "MIRRORD_CONFIG_FILE", value_name = "FILE", hide_env = true)]
    pub config_file: Option<PathBuf>,
    /// Namespace; else the configuration's, else the context's.
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,
    /// Context; else the configuration's, else the kubeconfig's current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubeconfig; else the configuration's, else KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Act as another user, where you may.
    #[arg(long = "as", value_name = "USER")]
    pub user: Option<String>,
    /// Act as a member of a group (repeatable).
    #[arg(long = "as-group", value_name = "GROUP", requires = "user")]
    pub groups: Vec<String>,
}

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub struct Exec {
    /// Whose context: kind/name or kind/name/container/name.
    #[arg(short, long, value_name = "TARGET")]
    pub target: Option<Target>,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub cluster: Cluster,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Arguments of `ls`.
#[derive(Args, Debug)]
pub struct List {
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Also open a session on this target (in the namespace), ping its sidecar, and end it.
    #[arg(long, value_name = "TARGET")]
    pub probe: Option<Target>,
    /// Create the pods of so many workloads at most.
    #[arg(long, default_value_t = 500, value_name = "NUMBER")]
    pub limit: usize,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub cluster: Cluster,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// Arguments of `verify-config`.
#[derive(Args, Debug)]
pub struct Verify {
    /// The file; else the nearest .mirrord/mirrord.json upwards.
    #[arg(env = "MIRRORD_CONFIG_FILE", hide_env = true)]
    pub file: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List sessions: those of the namespace, and this machine's proxies.
    Ls(SessionList),
    /// End sessions.
    Stop(SessionStop),
}

/// Arguments of `session ls`.
#[derive(Args, Debug)]
pub struct SessionList {
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// Arguments of `session stop`.
#[derive(Args, Debug)]
pub struct SessionStop {
    /// Names of sessions, or the beginnings of names.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// All that this machine's proxies hold.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub cluster: Cluster,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    #[default]
    Table,
    /// JSON.
    Json,
}
