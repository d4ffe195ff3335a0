//! Why a pod gets no sidecar: a closed list.
//!
//! Each reason is one row below. Its label is the value of the metric's label and never changes its meaning; its
//! sentence goes into Events and, where the pod's author asked for a sidecar that can't be, into a warning.
//!
#![doc = include_str!("skips.md")]

use std::fmt;

use super::{
    NamespaceFacts,
    names::{AGENT, SYSTEM_NAMESPACES},
    pod::Pod,
    settings::Settings,
    status::Status,
};

macro_rules! reasons {
    ($($variant:ident $label:literal $warns:ident $sentence:literal)*) => {
        /// Why a pod gets no sidecar.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum SkipReason {
            $(#[doc = $sentence] $variant,)*
        }

        impl SkipReason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The value of the metric's label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }

            /// Whether the pod's author is told: a sidecar was asked for and can't be.
            #[must_use]
            pub fn warns(self) -> bool {
                match self { $(Self::$variant => reasons!($warns),)* }
            }
        }
    };
    (warns) => { true };
    (quiet) => { false };
}

reasons! {
    NotAPodCreation "not_a_pod_creation" quiet "only the creation of pods is changed"
    NotOptedIn "not_opted_in" quiet "neither the namespace nor the pod is labelled mirrord.dev/inject=enabled"
    OptedOut "opted_out" quiet "the pod is labelled mirrord.dev/inject=disabled"
    SystemNamespace "system_namespace" quiet "namespaces of Kubernetes and of mirrord itself are left alone"
    AlreadyInjected "already_injected" quiet "the sidecar is there already"
    MirrorPod "mirror_pod" quiet "static pods belong to their node: they can't have a projected token"
    Windows "windows" warns "the sidecar runs on Linux only"
    HostNetwork "host_network" warns "with hostNetwork the sidecar's UDP port would be the node's"
    NoContainers "no_containers" quiet "the pod has no container"
    UnknownContainer "unknown_container" warns "mirrord.dev/containers names a container that the pod does not have"
    NameTaken "name_taken" warns "a container or volume of the pod already has one of the sidecar's names"
    PathTaken "path_taken" warns "a container mounts a volume at or below /.mirrord"
    NoFreePort "no_free_port" warns "the pod declares all ports that the sidecar could take"
    NoRoom "no_room" warns "a LimitRange, a quota or the pod's own resources leave no room for the sidecar"
    NoAuthority "no_authority" warns "the control plane has no certificate authority yet; recreate the pod later"
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// The reasons that need nothing but a look at the pod.
pub(super) fn at_first_sight(
    pod: &Pod<'_>,
    namespace: &NamespaceFacts<'_>,
    settings: &Settings,
) -> Result<(), SkipReason> {
    let label = pod.metadata.labels.inject.as_deref();
    let windows = [Some(&*pod.spec.os.name), pod.spec.node_selector.os.as_deref()].contains(&Some("windows"));
    let system = SYSTEM_NAMESPACES.contains(&namespace.name) || namespace.name == settings.own_namespace;
    let checks = [
        (system, SkipReason::SystemNamespace),
        (label == Some("disabled"), SkipReason::OptedOut),
        (namespace.opted_in == Some(false) && label != Some("enabled"), SkipReason::NotOptedIn),
        (already_injected(pod), SkipReason::AlreadyInjected),
        (pod.annotation(|annotations| &annotations.mirror_pod).is_some(), SkipReason::MirrorPod),
        (windows, SkipReason::Windows),
        (pod.spec.host_network, SkipReason::HostNetwork),
        (pod.spec.containers.is_empty(), SkipReason::NoContainers),
    ];
    checks.into_iter().find(|(applies, _)| *applies).map_or(Ok(()), |(_, reason)| Err(reason))
}

/// Whether the status annotation tells the truth: each sidecar that it names is there, runs our agent for the
/// container it says and listens where it says. An annotation that came along with a copied template is not believed.
fn already_injected(pod: &Pod<'_>) -> bool {
    let Some(status) = pod.annotation(|annotations| &annotations.status).and_then(Status::read) else {
        return false;
    };
    !status.containers.is_empty()
        && status.containers.iter().all(|twin| {
            let port = twin.port.to_string();
            pod.init_containers().iter().any(|container| {
                let says = |flag: &str, value: &str| {
                    container.command.windows(2).any(|pair| &*pair[0] == flag && &*pair[1] == value)
                };
                *container.name == *twin.sidecar
                    && container.restarts_always()
                    && container.command.first().is_some_and(|program| **program == *AGENT)
                    && says("--container", &twin.name)
                    && says("--port", &port)
            })
        })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write};

    use super::*;

    #[test]
    fn every_reason_is_documented_in_its_table() {
        let mut table = String::from("| label | warned | reason |\n|---|---|---|\n");
        for reason in SkipReason::ALL {
            let warned = if reason.warns() { "yes" } else { "" };
            writeln!(table, "| `{}` | {warned} | {reason} |", reason.label()).unwrap();
        }
        assert_eq!(table, include_str!("skips.md"), "skips.md is to be:\n{table}");
    }

    #[test]
    fn labels_tell_reasons_apart() {
        let labels: BTreeSet<_> = SkipReason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), SkipReason::ALL.len());
    }
}
