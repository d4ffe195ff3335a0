//! The few fields of a Pod that injection decides by, borrowed from the review's bytes.
//!
//! Anything else is skipped over while reading, and what is copied stays raw. Values of an unexpected type make the
//! pod unreadable, which is a fault of ours (the API server has validated nothing yet, but it has decoded the pod).

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    quantity::Quantity,
    raw::{Text, or_default},
    secrets::PodVolume,
};

#[derive(Deserialize)]
pub(super) struct Pod<'a> {
    /// Every pod of the API server has it, and the patch adds to it: without it the patch could not be applied.
    #[serde(borrow)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) spec: Spec<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) generate_name: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) labels: Labels<'a>,
    /// `None` where the patch has to add the whole map.
    #[serde(borrow)]
    pub(super) annotations: Option<Annotations<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) owner_references: Vec<Owner<'a>>,
}

#[derive(Default, Deserialize)]
pub(super) struct Labels<'a> {
    #[serde(rename = "mirrord.dev/inject", borrow)]
    pub(super) inject: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
pub(super) struct Annotations<'a> {
    #[serde(rename = "mirrord.dev/status", borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(rename = "mirrord.dev/containers", borrow)]
    pub(super) containers: Option<Text<'a>>,
    #[serde(rename = "mirrord.dev/process-namespace", borrow)]
    pub(super) process_namespace: Option<Text<'a>>,
    #[serde(rename = "kubectl.kubernetes.io/default-container", borrow)]
    pub(super) default_container: Option<Text<'a>>,
    #[serde(rename = "kubernetes.io/config.mirror", borrow)]
    pub(super) mirror_pod: Option<Text<'a>>,
    #[serde(rename = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", borrow)]
    pub(super) evictable_volumes: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Owner<'a> {
    #[serde(borrow, default)]
    pub(super) kind: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) containers: Vec<Container<'a>>,
    /// `None` where the patch has to add the whole list; so for `volumes`.
    #[serde(borrow)]
    pub(super) init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) ephemeral_containers: Vec<Named<'a>>,
    #[serde(borrow)]
    pub(super) volumes: Option<Vec<PodVolume<'a>>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) host_network: bool,
    #[serde(rename = "hostPID", default, deserialize_with = "or_default")]
    pub(super) host_pid: bool,
    pub(super) share_process_namespace: Option<bool>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) os: Named<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) node_selector: NodeSelector<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) resources: Resources<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) security_context: Identity<'a>,
}

#[derive(Default, Deserialize)]
pub(super) struct Named<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) name: Text<'a>,
}

#[derive(Default, Deserialize)]
pub(super) struct NodeSelector<'a> {
    #[serde(rename = "kubernetes.io/os", borrow)]
    pub(super) os: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) image: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) image_pull_policy: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) restart_policy: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) command: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) args: Vec<Text<'a>>,
    #[serde(borrow)]
    pub(super) working_dir: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) env: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) env_from: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) volume_mounts: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) resources: Resources<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) security_context: Identity<'a>,
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<Port>,
}

/// The part of a security context that says who a container is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity<'a> {
    #[serde(borrow)]
    pub(super) run_as_user: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) run_as_group: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) run_as_non_root: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) se_linux_options: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
pub(super) struct Resources<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) requests: Amounts<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) limits: Amounts<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Amounts<'a> {
    #[serde(borrow)]
    pub(super) cpu: Option<Amount<'a>>,
    #[serde(borrow)]
    pub(super) memory: Option<Amount<'a>>,
    #[serde(borrow)]
    pub(super) ephemeral_storage: Option<Amount<'a>>,
}

/// An amount as it is written, a string or a number.
#[derive(Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct Amount<'a>(#[serde(borrow)] &'a RawValue);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    container_port: Option<i64>,
    host_port: Option<i64>,
}

impl<'a> Pod<'a> {
    pub(super) fn read(json: &'a RawValue) -> serde_json::Result<Self> {
        serde_json::from_str(json.get())
    }

    pub(super) fn init_containers(&self) -> &[Container<'a>] {
        self.spec.init_containers.as_deref().unwrap_or_default()
    }

    /// All containers that state ports, resources and an identity.
    pub(super) fn all_containers(&self) -> impl Iterator<Item = &Container<'a>> {
        self.init_containers().iter().chain(&self.spec.containers)
    }

    /// Whatever looks up an annotation finds none where the map is absent.
    pub(super) fn annotation<'s>(
        &'s self,
        pick: impl FnOnce(&'s Annotations<'a>) -> &'s Option<Text<'a>>,
    ) -> Option<&'s str> {
        self.metadata.annotations.as_ref().and_then(|annotations| pick(annotations).as_deref())
    }

    /// All ports that the pod declares, of any protocol.
    pub(super) fn declared_ports(&self) -> BTreeSet<i64> {
        self.all_containers()
            .flat_map(|container| &container.ports)
            .flat_map(|port| [port.container_port, port.host_port])
            .flatten()
            .collect()
    }
}

impl Container<'_> {
    /// A native sidecar, where it stands among the init containers.
    pub(super) fn restarts_always(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

impl Amount<'_> {
    pub(super) fn quantity(self) -> Option<Quantity> {
        self.0.get().trim_matches('"').parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_stands_for_nothing() {
        let json = r#"{"metadata": {"labels": null}, "spec": {"containers": null, "initContainers": null, "hostPID": null,
            "os": null, "volumes": null}}"#;
        let json: &RawValue = serde_json::from_str(json).unwrap();
        let pod = Pod::read(json).unwrap();
        assert!(
            pod.spec.containers.is_empty()
                && pod.spec.init_containers.is_none()
                && pod.spec.volumes.is_none()
        );
    }
}
