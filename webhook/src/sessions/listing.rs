//! What a caller can use in a namespace: the answer to a dry run without a target.
//!
//! Pods are grouped by the workload at the top of their ownership, each with how many run and how many have sidecars.
//! Only workloads on which the caller has a feature are listed. Who has a feature on all workloads is asked about once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, authentication::v1::UserInfo, batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Error, ResourceExt, api::ListParams};
use mirrord_protocol::feature::Feature;
use mirrord_session::{NAMED_PODS, TargetKind, TargetReport};

use super::{
    grants::Grants,
    lookup::{Lookup, Workload, controller_of, kind_of},
    sidecars::{is_running, opts_out, process_namespace, sidecars},
};
use crate::injection::ProcessNamespace;

/// Workloads whose rights are asked for at the same time.
const CONCURRENT: usize = 16;

/// Lists the workloads of a namespace that a caller may use.
///
/// # Errors
/// What the API server said.
pub async fn list(
    lookup: &Lookup,
    grants: &Grants,
    user: &UserInfo,
    namespace: &str,
) -> Result<Vec<TargetReport>, Error> {
    let everything = ListParams::default();
    let (pods, replica_sets, jobs) = (lookup.api::<Pod>(), lookup.api::<ReplicaSet>(), lookup.api::<Job>());
    let (pods, replica_sets, jobs, everywhere) = futures::future::try_join4(
        pods.list(&everything),
        replica_sets.list_metadata(&everything),
        jobs.list_metadata(&everything),
        grants.of(user, namespace, None, Feature::ALL),
    )
    .await?;
    let replica_sets = replica_sets.items.iter().map(|object| &object.metadata);
    let between = replica_sets.chain(jobs.items.iter().map(|object| &object.metadata));
    let everywhere = &everywhere;
    stream::iter(group(&pods.items, between))
        .map(|(workload, report)| async move {
            let rest = Feature::ALL.into_iter().filter(|feature| !everywhere.contains(feature));
            let granted = grants.of(user, namespace, Some(&workload), rest).await?;
            let all = Feature::ALL.into_iter().filter(|it| everywhere.contains(it) || granted.contains(it));
            Ok(TargetReport { features: all.map(|feature| feature.verb().to_owned()).collect(), ..report })
        })
        .buffered(CONCURRENT)
        .try_filter(|report| std::future::ready(!report.features.is_empty()))
        .try_collect()
        .await
}

/// What the pods of a workload add up to.
#[derive(Default)]
struct Sum {
    pods: u32,
    injected: u32,
    opted_out: u32,
    containers: BTreeSet<String>,
    without_sidecar: BTreeSet<String>,
    process_namespaces: BTreeSet<&'static str>,
}

impl Sum {
    fn add(&mut self, pod: &Pod) {
        let sidecars = sidecars(pod);
        self.pods += 1;
        self.opted_out += u32::from(opts_out(pod));
        if sidecars.is_empty() {
            self.without_sidecar.insert(pod.name_any());
            return;
        }
        self.injected += 1;
        self.containers.extend(sidecars.into_iter().map(|sidecar| sidecar.name));
        self.process_namespaces.insert(match process_namespace(pod) {
            ProcessNamespace::Shared => "shared",
            ProcessNamespace::Isolated => "isolated",
        });
    }

    fn report(self, workload: &Workload) -> TargetReport {
        let process_namespace = match self.process_namespaces.len() {
            0 | 1 => self.process_namespaces.first().copied().unwrap_or_default(),
            _ => "mixed",
        };
        TargetReport {
            target: workload.to_string(),
            containers: self.containers.into_iter().collect(),
            pods: self.pods,
            injected: self.injected,
            features: Vec::new(),
            process_namespace: process_namespace.to_owned(),
            without_sidecar: self.without_sidecar.into_iter().take(NAMED_PODS).collect(),
            opted_out: self.opted_out == self.pods,
        }
    }
}

/// Groups running pods by their top-level workloads. `between` are the objects between pods and those.
fn group<'a>(
    pods: &[Pod],
    between: impl IntoIterator<Item = &'a ObjectMeta>,
) -> BTreeMap<Workload, TargetReport> {
    let between: HashMap<&str, &ObjectMeta> =
        between.into_iter().filter_map(|meta| Some((meta.uid.as_deref()?, meta))).collect();
    let mut sums: BTreeMap<Workload, Sum> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_running(pod)) {
        sums.entry(top(pod, &between)).or_default().add(pod);
    }
    let reports = sums.into_iter().map(|(workload, sum)| {
        let report = sum.report(&workload);
        (workload, report)
    });
    reports.collect()
}

fn top(pod: &Pod, between: &HashMap<&str, &ObjectMeta>) -> Workload {
    let mut workload = Workload { kind: TargetKind::Pod, name: pod.name_any() };
    let mut meta = Some(&pod.metadata);
    // At most Pod → Job → CronJob; the bound is for references that go in circles.
    for _ in 0..3 {
        let Some(owner) = meta.and_then(controller_of) else { break };
        let Some(kind) = kind_of(owner) else { break };
        workload = Workload { kind, name: owner.name.clone() };
        meta = between.get(owner.uid.as_str()).copied();
    }
    workload
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owner(api_version: &str, kind: &str, name: &str) -> serde_json::Value {
        json!([{ "apiVersion": api_version, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true }])
    }

    fn pod(name: &str, owners: &serde_json::Value) -> Pod {
        let pod = json!({
            "metadata": { "name": name, "uid": format!("uid-{name}"), "ownerReferences": owners },
            "spec": { "containers": [{ "name": "app" }] },
            "status": { "phase": "Running", "podIP": "10.0.0.1" },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn meta(name: &str, owners: &serde_json::Value) -> ObjectMeta {
        serde_json::from_value(
            json!({ "name": name, "uid": format!("uid-{name}"), "ownerReferences": owners }),
        )
        .unwrap()
    }

    #[test]
    fn pods_are_listed_under_the_workload_at_the_top() {
        let pods = [
            pod("checkout-1-a", &owner("apps/v1", "ReplicaSet", "checkout-1")),
            pod("checkout-2-a", &owner("apps/v1", "ReplicaSet", "checkout-2")),
            pod("db-0", &owner("apps/v1", "StatefulSet", "db")),
            pod("nightly-1-a", &owner("batch/v1", "Job", "nightly-1")),
            pod("odd", &owner("argoproj.io/v1", "ReplicaSet", "odd")),
        ];
        let between = [
            meta("checkout-1", &owner("apps/v1", "Deployment", "checkout")),
            meta("checkout-2", &owner("apps/v1", "Deployment", "checkout")),
            meta("nightly-1", &owner("batch/v1", "CronJob", "nightly")),
        ];
        let groups = group(&pods, &between);
        let counts: Vec<_> = groups.values().map(|report| (report.target.as_str(), report.pods)).collect();
        assert_eq!(
            counts,
            [("deployment/checkout", 2), ("statefulset/db", 1), ("cronjob/nightly", 1), ("pod/odd", 1)]
        );
    }

    fn injected(name: &str, shared: Option<bool>) -> Pod {
        let status = r#"{"version":1,"containers":[{"name":"app","sidecar":"mirrord","port":4801}],"process_namespace":"isolated"}"#;
        let mut pod = serde_json::to_value(pod(name, &owner("apps/v1", "StatefulSet", "db"))).unwrap();
        pod["metadata"]["annotations"] = json!({ "mirrord.dev/status": status });
        pod["spec"]["shareProcessNamespace"] = json!(shared);
        pod["spec"]["initContainers"] = json!([{
            "name": "mirrord", "restartPolicy": "Always",
            "command": ["agent", "serve", "--container", "app", "--port", "4801"],
        }]);
        if shared == Some(true) {
            let command = pod["spec"]["initContainers"][0]["command"].as_array_mut().unwrap();
            command.push(json!("--namespace-shared"));
        }
        serde_json::from_value(pod).unwrap()
    }

    fn report(pods: &[Pod]) -> TargetReport {
        group(pods, []).into_values().next().unwrap()
    }

    #[test]
    fn the_process_namespace_is_that_of_the_specification_and_mixed_where_pods_differ() {
        let (shared, isolated) = (injected("db-0", Some(true)), injected("db-1", None));
        let bare = pod("db-2", &owner("apps/v1", "StatefulSet", "db"));
        assert_eq!(report(std::slice::from_ref(&shared)).process_namespace, "shared");
        assert_eq!(report(std::slice::from_ref(&isolated)).process_namespace, "isolated");
        assert_eq!(report(&[shared, isolated, bare.clone()]).process_namespace, "mixed");
        assert_eq!(report(&[bare]).process_namespace, "");
    }

    #[test]
    fn pods_without_a_sidecar_are_named() {
        let bare = pod("db-1", &owner("apps/v1", "StatefulSet", "db"));
        let report = report(&[injected("db-0", None), bare]);
        assert_eq!((report.pods, report.injected), (2, 1));
        assert_eq!(report.without_sidecar, ["db-1"]);
    }

    #[test]
    fn a_workload_whose_pods_all_opt_out_is_told_from_one_that_lacks_sidecars() {
        let bare = || pod("db-1", &owner("apps/v1", "StatefulSet", "db"));
        let mut out = bare();
        out.labels_mut().insert(mirrord_session::INJECT_LABEL.to_owned(), "disabled".to_owned());
        assert!(report(&[out.clone()]).opted_out);
        assert!(!report(&[out, bare()]).opted_out);
    }
}
