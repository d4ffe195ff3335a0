//! Which pods can serve a session: a decision over pods as the API server shows them.
//!
//! The status annotation of a pod is a claim (annotations can be edited); it is believed of a container only where
//! the pod's specification, which can't, has that sidecar with that port, and the kubelet says it has started.

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use mirrord_protocol::route::RouteId;

use crate::injection::{
    InjectedContainer, ProcessNamespace, Status,
    names::{NAMESPACE_SHARED, STATUS_ANNOTATION},
};

/// How many pods of a workload one session names: each costs the control plane a connection.
pub const MAX_PODS: usize = 64;

/// A pod that can serve, without its gate token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The route of the chosen container's sidecar.
    pub route: RouteId,
    /// Its IP address.
    pub address: String,
    /// The sidecar's UDP port.
    pub port: u16,
}

/// What a session is served by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The container whose context it is.
    pub container: String,
    /// The primary first; never empty, at most [`MAX_PODS`].
    pub pods: Vec<Serving>,
    /// Running pods whose specification has no sidecar; at most [`MAX_PODS`] are named.
    pub without_sidecar: Vec<String>,
    /// How many pods run.
    pub running: u32,
    /// How many of them have a sidecar.
    pub injected: u32,
}

/// Why nothing can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNone {
    /// No pod runs.
    NothingRuns,
    /// Pods run, and none has a sidecar. Whether all of them opt out by label.
    NoSidecar {
        /// All of them carry the label with `disabled`.
        opted_out: bool,
    },
    /// There are sidecars, and none has started yet.
    NotStarted,
    /// The wanted container has no sidecar; these have.
    OtherContainers(Vec<String>),
    /// No pod has a container of that name; these are there.
    NoSuchContainer(Vec<String>),
}

/// Chooses the container and the pods. The primary is the one that was it before, else the oldest that is ready.
///
/// # Errors
/// See [`WhyNone`].
pub fn choose(pods: &[Pod], container: Option<&str>, primary: Option<&str>) -> Result<Choice, WhyNone> {
    let mut running: Vec<&Pod> = pods.iter().filter(|pod| is_running(pod)).collect();
    running.sort_by_key(|pod| {
        let kept = primary.is_some() && pod.metadata.uid.as_deref() == primary;
        (!kept, !is_ready(pod), created(pod), pod.name_any())
    });
    let started: Vec<(&Pod, Vec<InjectedContainer>)> =
        running.iter().map(|pod| (*pod, started_sidecars(pod))).collect();
    let chosen = container
        .map(str::to_owned)
        .or_else(|| started.iter().flat_map(|(_, sidecars)| sidecars).next().map(|first| first.name.clone()))
        .ok_or_else(|| why_none(&running, container))?;
    let mut serving: Vec<Serving> = started
        .iter()
        .filter_map(|(pod, sidecars)| serving(pod, sidecars.iter().find(|sidecar| sidecar.name == chosen)?))
        .collect();
    serving.truncate(MAX_PODS);
    if serving.is_empty() {
        return Err(why_none(&running, container));
    }
    let mut without: Vec<String> =
        running.iter().filter(|pod| sidecars(pod).is_empty()).map(|pod| pod.name_any()).collect();
    let injected = count(running.len() - without.len());
    without.truncate(MAX_PODS);
    Ok(Choice {
        container: chosen,
        pods: serving,
        without_sidecar: without,
        running: count(running.len()),
        injected,
    })
}

fn count(pods: usize) -> u32 {
    u32::try_from(pods).unwrap_or(u32::MAX)
}

/// Whether a pod's sidecars look at its other containers' processes: the specification says so, not the annotation.
#[must_use]
pub fn process_namespace(pod: &Pod) -> ProcessNamespace {
    let Some(spec) = &pod.spec else { return ProcessNamespace::Isolated };
    let mut words =
        spec.init_containers.iter().flatten().flat_map(|container| container.command.iter().flatten());
    let told = words.any(|word| word == NAMESPACE_SHARED);
    if told && spec.share_process_namespace == Some(true) {
        ProcessNamespace::Shared
    } else {
        ProcessNamespace::Isolated
    }
}

fn why_none(running: &[&Pod], container: Option<&str>) -> WhyNone {
    if running.is_empty() {
        return WhyNone::NothingRuns;
    }
    if let Some(wanted) = container {
        let all =
            names(running.iter().flat_map(|pod| containers(pod)).map(|container| container.name.clone()));
        if !all.iter().any(|name| name == wanted) {
            return WhyNone::NoSuchContainer(all);
        }
    }
    let with = names(running.iter().flat_map(|pod| sidecars(pod)).map(|sidecar| sidecar.name));
    if with.is_empty() {
        return WhyNone::NoSidecar { opted_out: running.iter().all(|pod| opts_out(pod)) };
    }
    match container {
        Some(wanted) if !with.iter().any(|name| name == wanted) => WhyNone::OtherContainers(with),
        _ => WhyNone::NotStarted,
    }
}

/// Whether a pod's own label says that it gets no sidecar.
#[must_use]
pub fn opts_out(pod: &Pod) -> bool {
    pod.labels().get(mirrord_session::INJECT_LABEL).is_some_and(|label| label == "disabled")
}

fn names(all: impl Iterator<Item = String>) -> Vec<String> {
    all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// Whether a pod runs, and stays.
#[must_use]
pub fn is_running(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    pod.metadata.deletion_timestamp.is_none()
        && status.and_then(|status| status.phase.as_deref()) == Some("Running")
        && status.is_some_and(|status| status.pod_ip.is_some())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn created(pod: &Pod) -> Option<Time> {
    pod.metadata.creation_timestamp.clone()
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

/// The sidecars that a pod's specification really has.
#[must_use]
pub fn sidecars(pod: &Pod) -> Vec<InjectedContainer> {
    let claimed = pod.annotations().get(STATUS_ANNOTATION).and_then(|text| Status::read(text));
    let claimed = claimed.map(|status| status.containers).unwrap_or_default();
    let init: Vec<&Container> =
        pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).collect();
    claimed.into_iter().filter(|claim| init.iter().any(|container| is_sidecar(container, claim))).collect()
}

fn is_sidecar(container: &Container, claim: &InjectedContainer) -> bool {
    let command: Vec<&str> =
        container.command.iter().chain(&container.args).flatten().map(String::as_str).collect();
    let says = |flag: &str, value: &str| command.windows(2).any(|pair| pair == [flag, value]);
    container.name == claim.sidecar
        && container.restart_policy.as_deref() == Some("Always")
        && says("--container", &claim.name)
        && says("--port", &claim.port.to_string())
}

fn started_sidecars(pod: &Pod) -> Vec<InjectedContainer> {
    let statuses: Vec<_> =
        pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten()).collect();
    let has_started = |name: &str| {
        statuses.iter().any(|status| {
            let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
            status.name == name && status.started == Some(true) && runs
        })
    };
    sidecars(pod).into_iter().filter(|sidecar| has_started(&sidecar.sidecar)).collect()
}

fn serving(pod: &Pod, sidecar: &InjectedContainer) -> Option<Serving> {
    let uid = pod.metadata.uid.clone()?;
    Some(Serving {
        name: pod.name_any(),
        route: RouteId::of(&uid, &sidecar.name),
        uid,
        address: pod.status.as_ref()?.pod_ip.clone()?,
        port: sidecar.port,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, created: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let status = r#"{"version":1,"containers":[{"name":"app","sidecar":"mirrord","port":4801}],"process_namespace":"isolated"}"#;
        let mut pod = json!({
            "metadata": {
                "name": name, "uid": format!("uid-{name}"), "creationTimestamp": created,
                "annotations": { "mirrord.dev/status": status },
            },
            "spec": {
                "containers": [{ "name": "app" }, { "name": "log" }],
                "initContainers": [{
                    "name": "mirrord", "restartPolicy": "Always",
                    "command": ["agent", "serve", "--container", "app", "--port", "4801"],
                }],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{ "type": "Ready", "status": "True" }],
                "initContainerStatuses": [{
                    "name": "mirrord", "started": true, "state": { "running": {} },
                    "image": "", "imageID": "", "ready": true, "restartCount": 0,
                }],
            },
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    const MONDAY: &str = "2026-11-23T08:00:00Z";
    const TUESDAY: &str = "2026-11-24T08:00:00Z";

    fn names_of(choice: &Choice) -> Vec<&str> {
        choice.pods.iter().map(|pod| pod.name.as_str()).collect()
    }

    #[test]
    fn the_primary_is_the_oldest_ready_pod_and_stays_once_it_is() {
        let pods = [
            pod("young", TUESDAY, |_| ()),
            pod("old", MONDAY, |_| ()),
            pod("older-unready", MONDAY, |pod| pod["status"]["conditions"] = json!([])),
        ];
        let choice = choose(&pods, None, None).unwrap();
        assert_eq!(choice.container, "app");
        assert_eq!(names_of(&choice), ["old", "young", "older-unready"]);
        assert_eq!(choice.pods[0].route, RouteId::of("uid-old", "app"));
        let choice = choose(&pods, Some("app"), Some("uid-young")).unwrap();
        assert_eq!(names_of(&choice), ["young", "old", "older-unready"]);
    }

    #[test]
    fn pods_that_end_or_have_no_address_do_not_serve() {
        let pods = [
            pod("ending", MONDAY, |pod| pod["metadata"]["deletionTimestamp"] = json!(TUESDAY)),
            pod("pending", MONDAY, |pod| pod["status"]["phase"] = json!("Pending")),
            pod("nowhere", MONDAY, |pod| pod["status"]["podIP"] = Value::Null),
        ];
        assert_eq!(choose(&pods, None, None), Err(WhyNone::NothingRuns));
    }

    #[test]
    fn an_annotation_is_believed_only_where_the_specification_bears_it_out() {
        let lies: [fn(&mut Value); 5] = [
            |pod| pod["spec"]["initContainers"] = json!([]),
            |pod| pod["spec"]["initContainers"][0]["restartPolicy"] = Value::Null,
            |pod| pod["spec"]["initContainers"][0]["command"][5] = json!("53"),
            |pod| pod["spec"]["initContainers"][0]["command"][3] = json!("other"),
            |pod| pod["metadata"]["annotations"]["mirrord.dev/status"] = json!("{"),
        ];
        for lie in lies {
            let choice = choose(&[pod("liar", MONDAY, lie)], None, None);
            assert_eq!(choice, Err(WhyNone::NoSidecar { opted_out: false }));
        }
    }

    #[test]
    fn who_gets_nothing_learns_why() {
        let starting =
            pod("p", MONDAY, |pod| pod["status"]["initContainerStatuses"][0]["started"] = json!(false));
        assert_eq!(choose(&[starting], None, None), Err(WhyNone::NotStarted));
        let fine = [pod("p", MONDAY, |_| ())];
        assert_eq!(choose(&fine, Some("log"), None), Err(WhyNone::OtherContainers(vec!["app".into()])));
        let both = vec!["app".into(), "log".into()];
        assert_eq!(choose(&fine, Some("lgo"), None), Err(WhyNone::NoSuchContainer(both)));
        let out = pod("p", MONDAY, |pod| {
            pod["spec"]["initContainers"] = json!([]);
            pod["metadata"]["labels"] = json!({ "mirrord.dev/inject": "disabled" });
        });
        assert_eq!(choose(&[out], None, None), Err(WhyNone::NoSidecar { opted_out: true }));
    }

    #[test]
    fn pods_older_than_the_sidecar_are_named() {
        let pods = [
            pod("new", TUESDAY, |_| ()),
            pod("old", MONDAY, |pod| pod["metadata"]["annotations"] = json!({})),
        ];
        let choice = choose(&pods, None, None).unwrap();
        assert_eq!(names_of(&choice), ["new"]);
        assert_eq!(choice.without_sidecar, ["old"]);
        assert_eq!((choice.injected, choice.running), (1, 2));
    }

    #[test]
    fn all_pods_are_counted_also_those_that_are_not_named() {
        let old =
            |number| pod(&format!("old-{number}"), MONDAY, |pod| pod["metadata"]["annotations"] = json!({}));
        let pods: Vec<Pod> = (0..MAX_PODS + 6).map(old).chain([pod("new", TUESDAY, |_| ())]).collect();
        let choice = choose(&pods, None, None).unwrap();
        assert_eq!(choice.without_sidecar.len(), MAX_PODS);
        assert_eq!((choice.injected, choice.running), (1, 71));
    }
}
