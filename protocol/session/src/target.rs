//! Targets as users type them: `kind/name[/container/c]`.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// A workload, or a pod of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
    /// Which container, where the user said so.
    pub container: Option<String>,
}

/// What a target can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "Kubernetes' own kinds")]
pub enum TargetKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
    CronJob,
    Pod,
}

impl TargetKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::Job,
        Self::CronJob,
        Self::Pod,
    ];

    /// As users type it and RBAC names it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::ReplicaSet => "replicaset",
            Self::Job => "job",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
        }
    }

    /// The kind of a word; Kubernetes' short names count.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "deployment" | "deployments" | "deploy" => Self::Deployment,
            "statefulset" | "statefulsets" | "sts" => Self::StatefulSet,
            "daemonset" | "daemonsets" | "ds" => Self::DaemonSet,
            "replicaset" | "replicasets" | "rs" => Self::ReplicaSet,
            "job" | "jobs" => Self::Job,
            "cronjob" | "cronjobs" | "cj" => Self::CronJob,
            "pod" | "pods" | "po" => Self::Pod,
            _ => return None,
        })
    }
}

impl Target {
    /// The name that RBAC rules' `resourceNames` use: `deployment.checkout`.
    #[must_use]
    pub fn resource_name(&self) -> String {
        format!("{}.{}", self.kind.word(), self.name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.word(), self.name)?;
        self.container.iter().try_for_each(|container| write!(f, "/container/{container}"))
    }
}

/// The line that gives pods which are older than the webhook their sidecar; `None` where no controller can be told to
/// replace them.
#[must_use]
pub fn restart_line(kind: TargetKind, name: &str, namespace: &str) -> Option<String> {
    match kind {
        TargetKind::Deployment | TargetKind::StatefulSet | TargetKind::DaemonSet => {
            Some(format!("kubectl rollout restart {}/{name} -n {namespace}", kind.word()))
        }
        TargetKind::ReplicaSet | TargetKind::Job | TargetKind::CronJob | TargetKind::Pod => None,
    }
}

/// Why text is no target.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not of the form.
    #[error(
        "{0:?} is no target: write kind/name or kind/name/container/container-name, as in deployment/checkout"
    )]
    Form(String),
    /// Another kind.
    #[error(
        "{0:?} is no kind of target: one of deployment, statefulset, daemonset, replicaset, job, cronjob, pod"
    )]
    Kind(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, name, container) = match parts.as_slice() {
            [kind, name] => (kind, name, None),
            [kind, name, "container", container] if !container.is_empty() => {
                (kind, name, Some((*container).to_owned()))
            }
            _ => return Err(TargetError::Form(text.to_owned())),
        };
        if name.is_empty() {
            return Err(TargetError::Form(text.to_owned()));
        }
        let kind = TargetKind::from_word(kind).ok_or_else(|| TargetError::Kind((*kind).to_owned()))?;
        Ok(Self { kind, name: (*name).to_owned(), container })
    }
}
