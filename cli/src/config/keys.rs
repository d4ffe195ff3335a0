//! The one table of configuration keys. Checks, nearest names and the reference come from it.

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Names from the outside in, joined by dots.
    pub path: &'static str,
    /// What its value may be. A key that others lie below may be an object as well.
    pub kinds: &'static [Kind],
    /// What holds without it.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub meaning: &'static str,
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// Any string.
    Text,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A string of words separated by `;`, or a list of strings.
    Words,
    /// An object whose values are strings.
    Map,
}

use Kind::{Choice, Map, Switch, Text, Words};

const fn key(
    path: &'static str,
    kinds: &'static [Kind],
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { path, kinds, default, meaning }
}

/// What `feature.fs` can be.
pub const FILE_MODES: &[&str] = &["read", "local"];

/// The table.
pub const KEYS: &[Key] = &[
    key("$schema", &[Text], "", "Ignored; editors use it."),
    key(
        "target",
        &[Text],
        "`-t`",
        "Whose context the program gets: `kind/name` or `kind/name/container/name`.",
    ),
    key("target.namespace", &[Text], "kubeconfig's", "Namespace of the target."),
    key(
        "target.path",
        &[Text],
        "",
        "The target, where the namespace stands beside it: `kind/name[/container/name]`.",
    ),
    key("target.path.deployment", &[Text], "", "Name of a Deployment."),
    key("target.path.stateful_set", &[Text], "", "Name of a StatefulSet."),
    key("target.path.daemon_set", &[Text], "", "Name of a DaemonSet."),
    key("target.path.replica_set", &[Text], "", "Name of a ReplicaSet."),
    key("target.path.job", &[Text], "", "Name of a running Job."),
    key("target.path.cron_job", &[Text], "", "Name of a CronJob: its running Jobs."),
    key("target.path.pod", &[Text], "", "Name of a pod."),
    key("target.path.container", &[Text], "first with a sidecar", "Which container of the target."),
    key("target.deployment", &[Text], "", "As `target.path.deployment`."),
    key("target.stateful_set", &[Text], "", "As `target.path.stateful_set`."),
    key("target.daemon_set", &[Text], "", "As `target.path.daemon_set`."),
    key("target.replica_set", &[Text], "", "As `target.path.replica_set`."),
    key("target.job", &[Text], "", "As `target.path.job`."),
    key("target.cron_job", &[Text], "", "As `target.path.cron_job`."),
    key("target.pod", &[Text], "", "As `target.path.pod`."),
    key("target.container", &[Text], "first with a sidecar", "As `target.path.container`."),
    key(
        "kubeconfig",
        &[Text],
        "`KUBECONFIG`, `~/.kube/config`",
        "Path of the kubeconfig; relative to the configuration file's project.",
    ),
    key("kube_context", &[Text], "current context", "Context of the kubeconfig."),
    key(
        "feature.env",
        &[Switch],
        "`true`",
        "Whether the program gets the pod's environment, over the local one.",
    ),
    key(
        "feature.env.include",
        &[Words],
        "all",
        "Only these variables of the pod; `*` stands for any characters. Not together with `exclude`.",
    ),
    key(
        "feature.env.exclude",
        &[Words],
        "none",
        "All but these variables of the pod; `*` stands for any characters.",
    ),
    key(
        "feature.env.mapping",
        &[Map],
        "none",
        "Regular expressions of whole names, and the value that such variables of the pod get; `$1` stands for the first group.",
    ),
    key(
        "feature.env.env_file",
        &[Text],
        "none",
        "Path of a file of `NAME=value` lines (dotenv), over the pod's variables; relative to the configuration file's project. In values `$NAME` is your shell's variable, else one of the file's.",
    ),
    key(
        "feature.env.load_from_process",
        &[Switch],
        "`true`",
        "No effect: the environment of the running program is taken wherever the sidecar can see it.",
    ),
    key("feature.env.override", &[Map], "none", "Variables set to a value of your own, after the pod's."),
    key(
        "feature.env.unset",
        &[Words],
        "none",
        "Variables removed in the end, wherever they come from; `*` stands for any characters.",
    ),
    key(
        "feature.fs",
        &[Switch, Choice(FILE_MODES)],
        "`\"read\"`",
        "Whether files are read in the pod (`true` is `read`, `false` is `local`).",
    ),
    key("feature.fs.mode", &[Choice(FILE_MODES)], "`\"read\"`", "As `feature.fs`."),
    key("feature.network", &[Switch], "`true`", "`false` turns off all below."),
    key("feature.network.outgoing", &[Switch], "`true`", "Whether TCP connections go out from the pod."),
    key(
        "feature.network.dns",
        &[Switch],
        "as `outgoing`",
        "Whether names are resolved in the pod. Can't differ from `outgoing` in this release.",
    ),
];

/// The table as text, for `--help`.
#[must_use]
pub fn table() -> String {
    let row = |key: &Key| format!("  {}\n      {}\n", key.path, key.meaning.replace('`', ""));
    format!("Keys:\n{}", KEYS.iter().map(row).collect::<String>())
}

/// The path that a name at the top, where it is no key, stands for: its last part, or all of it with dots.
#[must_use]
pub fn meant_by(name: &str) -> Option<&'static str> {
    let nested = |path: &str| path.rsplit_once('.').is_some_and(|(_, last)| last == name || path == name);
    let found: Vec<&str> = KEYS.iter().map(|key| key.path).filter(|path| nested(path)).collect();
    let tops: Vec<_> = found.iter().map(|path| path.split('.').next()).collect();
    let is_one = tops.windows(2).all(|pair| pair[0] == pair[1]);
    // Of aliases the shortest.
    found.into_iter().min_by_key(|path| path.len()).filter(|_| is_one)
}

/// The key of a path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Names that may stand in the object at a path; empty where no object may be.
#[must_use]
pub fn below(path: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| match path {
            "" => Some(key.path),
            _ => key.path.strip_prefix(path)?.strip_prefix('.'),
        })
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
