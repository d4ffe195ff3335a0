//! Sidecars age with their pods: pods that are older than the webhook have none, others an older agent, or one that was told
//! of another authority.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use mirrord_session::INJECT_LABEL;

use super::{
    authority,
    finding::{Finding, Severity, Topic, some_of},
    injection::{agent_image, has_sidecar},
    webhook::Current,
    workload::{Workload, restart},
};

/// What a pod's sidecar is, seen from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Missing,
    Untrusting,
    Old,
    Fresh,
}

/// Judges the running pods of these workloads. `current`: what injection does now, where that is known.
#[must_use]
pub fn check(pods: &[Pod], workloads: &[&Workload], current: Option<&Current>) -> Vec<Finding> {
    let mut groups: BTreeMap<(String, String, State), Vec<String>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| runs(pod)) {
        let namespace = pod.namespace().unwrap_or_default();
        let owner = owner(pod);
        // A pod that nothing makes anew counts by its own label or its namespace's; it was read for one of them.
        let known =
            workloads.iter().any(|workload| workload.namespace == namespace && workload.target() == owner);
        if known || owner.starts_with("pod/") {
            groups.entry((namespace, owner, state(pod, current))).or_default().push(pod.name_any());
        }
    }
    groups
        .iter()
        .filter_map(|((namespace, owner, state), pods)| told(namespace, owner, *state, pods))
        .collect()
}

fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let out = pod.labels().get(INJECT_LABEL).is_some_and(|label| label == "disabled");
    let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    pod.metadata.deletion_timestamp.is_none() && phase == Some("Running") && !host_network && !out && !mirror
}

/// What makes a pod: `deployment/checkout`; the pod itself where nothing does.
fn owner(pod: &Pod) -> String {
    let Some(owner) = pod.owner_references().iter().find(|owner| owner.controller == Some(true)) else {
        return format!("pod/{}", pod.name_any());
    };
    let hash = pod.labels().get("pod-template-hash");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    match (owner.kind.as_str(), deployment) {
        ("ReplicaSet", Some(deployment)) => format!("deployment/{deployment}"),
        (kind, _) => format!("{}/{}", kind.to_ascii_lowercase(), owner.name),
    }
}

fn state(pod: &Pod, current: Option<&Current>) -> State {
    if !has_sidecar(pod) {
        return State::Missing;
    }
    let Some(current) = current else { return State::Fresh };
    let trusted = authority::of_pod(pod);
    if !current.authorities.is_empty() && !authority::knows(&trusted, &current.authorities, &current.bundle) {
        State::Untrusting
    } else if current.agent_image.is_some() && agent_image(pod) != current.agent_image {
        State::Old
    } else {
        State::Fresh
    }
}

fn told(namespace: &str, owner: &str, state: State, pods: &[String]) -> Option<Finding> {
    let place = format!("{owner} -n {namespace}");
    let (severity, what) = match state {
        State::Fresh => return None,
        State::Missing => (Severity::Warning, "pods without a sidecar, older than the webhook or its label"),
        State::Untrusting => (
            Severity::Warning,
            "pods whose sidecar trusts an authority that is gone: no session reaches them",
        ),
        State::Old => (Severity::Note, "pods whose sidecar is of another release than new ones would be"),
    };
    let what = format!("{what}: {}", some_of(pods));
    let finding = if severity == Severity::Note {
        Topic::Sidecars.note(place, what)
    } else {
        Topic::Sidecars.warning(place, what)
    };
    Some(finding.fix(restart(owner, namespace).unwrap_or_else(|| {
        format!(
            "kubectl delete pod {} -n {namespace}   # and make it anew, if nothing else does",
            pods.join(" ")
        )
    })))
}

#[cfg(test)]
mod tests {
    use mirrord_session::TargetKind;
    use serde_json::{Value, json};

    use super::*;

    const CA: &str = "TUlJQg==";

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let status = r#"{"version":1,"containers":[{"name":"app","sidecar":"mirrord","port":20001}]}"#;
        let mut pod = json!({
            "metadata": {
                "name": name, "namespace": "shop", "labels": { "pod-template-hash": "abc" },
                "annotations": { "mirrord.dev/status": status },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-abc", "uid": "u", "controller": true,
                }],
            },
            "spec": { "containers": [{ "name": "app" }], "initContainers": [
                { "name": "mirrord-copy", "image": "agent:2" },
                { "name": "mirrord", "command": ["a", "serve", "--ca", CA] },
            ]},
            "status": { "phase": "Running" },
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn findings(pods: &[Pod]) -> Vec<Finding> {
        let object = json!({ "metadata": { "name": "app", "namespace": "shop" }, "spec": {} });
        let workload = Workload::new(TargetKind::Deployment, object).unwrap();
        let authorities = authority::of_pod(&pod("now", |_| ()));
        let current = Current { agent_image: Some("agent:2".to_owned()), authorities, bundle: Vec::new() };
        check(pods, &[&workload], Some(&current))
    }

    fn bare(pod: &mut Value) {
        pod["spec"]["initContainers"] = json!([]);
    }

    #[test]
    fn pods_that_are_as_new_ones_would_be_are_not_mentioned() {
        assert_eq!(findings(&[pod("a", |_| ())]), []);
    }

    #[test]
    fn pods_of_a_workload_without_sidecar_are_named_with_the_line_that_restarts_it() {
        let found = findings(&[pod("a", bare), pod("b", |_| ()), pod("c", bare)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].severity == Severity::Warning && found[0].what.ends_with(": a, c"), "{found:?}");
        assert_eq!(found[0].fix.as_deref(), Some("kubectl rollout restart deployment/app -n shop"));
    }

    #[test]
    fn an_old_agent_is_a_note_and_another_authority_a_warning() {
        let old = findings(&[pod("a", |pod| pod["spec"]["initContainers"][0]["image"] = "agent:1".into())]);
        assert_eq!(old[0].severity, Severity::Note);
        let lost =
            findings(&[pod("a", |pod| pod["spec"]["initContainers"][1]["command"][3] = "TUlJQw==".into())]);
        assert!(lost[0].severity == Severity::Warning && lost[0].what.contains("authority"), "{lost:?}");
    }

    #[test]
    fn pods_that_end_or_never_get_one_are_left_alone() {
        let out = |pod: &mut Value| {
            bare(pod);
            pod["metadata"]["labels"][INJECT_LABEL] = "disabled".into();
        };
        let leaving = |pod: &mut Value| {
            bare(pod);
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        };
        assert_eq!(findings(&[pod("a", out), pod("b", leaving)]), []);
    }

    #[test]
    fn a_pod_that_nothing_makes_anew_has_to_be_made_by_hand() {
        let found = findings(&[pod("lone", |pod| {
            bare(pod);
            pod["metadata"]["ownerReferences"] = json!([]);
        })]);
        assert!(found[0].fix.as_ref().unwrap().starts_with("kubectl delete pod lone -n shop"), "{found:?}");
    }
}
