//! What makes pods, and the pods that it would make.
//!
//! Templates stay JSON as the API server gave them: a typed pod would lose the fields that are newer than this program.

use mirrord_session::{INJECT_LABEL, TargetKind};
use serde_json::{Value, json};

/// Kinds that make pods, with the API's group and version. ReplicaSets and Jobs count where nothing else owns them.
pub const KINDS: [(TargetKind, &str, &str, &str); 6] = [
    (TargetKind::Deployment, "apps", "v1", "Deployment"),
    (TargetKind::StatefulSet, "apps", "v1", "StatefulSet"),
    (TargetKind::DaemonSet, "apps", "v1", "DaemonSet"),
    (TargetKind::ReplicaSet, "apps", "v1", "ReplicaSet"),
    (TargetKind::Job, "batch", "v1", "Job"),
    (TargetKind::CronJob, "batch", "v1", "CronJob"),
];

/// Something that makes pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// What it is.
    pub kind: TargetKind,
    /// Where.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it made all the pods that it ever will.
    pub done: bool,
    /// The object.
    object: Value,
}

impl Workload {
    /// From an object of the API; `None` where it belongs to another workload.
    #[must_use]
    pub fn new(kind: TargetKind, object: Value) -> Option<Self> {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).map(str::to_owned);
        if object["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty()) {
            return None;
        }
        let ended = |condition: &Value| {
            ["Complete", "Failed"].map(Value::from).contains(&condition["type"])
                && condition["status"] == "True"
        };
        let conditions = object["status"]["conditions"].as_array();
        let done = kind == TargetKind::Job && conditions.into_iter().flatten().any(ended);
        let (namespace, name) = (text("/metadata/namespace")?, text("/metadata/name")?);
        Some(Self { kind, namespace, name, done, object })
    }

    /// As users type it: `deployment/checkout`.
    #[must_use]
    pub fn target(&self) -> String {
        format!("{}/{}", self.kind.word(), self.name)
    }

    /// As kubectl takes it: `deployment/checkout -n shop`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{} -n {}", self.target(), self.namespace)
    }

    /// Its pods' template.
    #[must_use]
    pub fn template(&self) -> &Value {
        match self.kind {
            TargetKind::CronJob => &self.object["spec"]["jobTemplate"]["spec"]["template"],
            _ => &self.object["spec"]["template"],
        }
    }

    /// What its template says to injection.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.template()["metadata"]["labels"][INJECT_LABEL].as_str()
    }

    /// A pod as its controller would make it.
    #[must_use]
    pub fn pod(&self) -> Value {
        let template = self.template();
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": template["spec"] });
        for field in ["labels", "annotations"] {
            if template["metadata"][field].is_object() {
                pod["metadata"][field] = template["metadata"][field].clone();
            }
        }
        pod["metadata"]["namespace"] = self.namespace.as_str().into();
        pod["metadata"]["generateName"] = format!("{}-", self.name).into();
        if let Some((_, group, version, kind)) = KINDS.iter().find(|row| row.0 == self.kind) {
            pod["metadata"]["ownerReferences"] = json!([{
                "apiVersion": format!("{group}/{version}"), "kind": kind, "name": self.name,
                "uid": self.object["metadata"]["uid"], "controller": true,
            }]);
        }
        self.add_claims(&mut pod);
        pod
    }

    /// A StatefulSet's controller gives its pods a volume for each template of a claim.
    fn add_claims(&self, pod: &mut Value) {
        for claim in self.object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
            let Some(name) = claim["metadata"]["name"].as_str() else { continue };
            let volume = json!({
                "name": name, "persistentVolumeClaim": { "claimName": format!("{name}-{}-0", self.name) },
            });
            match pod["spec"]["volumes"].as_array_mut() {
                Some(volumes) => volumes.push(volume),
                None => pod["spec"]["volumes"] = json!([volume]),
            }
        }
    }

    /// The line that makes its pods anew.
    #[must_use]
    pub fn restart(&self) -> Option<String> {
        restart(&self.target(), &self.namespace)
    }

    /// The line that opts it out.
    #[must_use]
    pub fn opt_out(&self) -> String {
        let template = json!({ "template": { "metadata": { "labels": { INJECT_LABEL: "disabled" } } } });
        let spec = match self.kind {
            TargetKind::CronJob => json!({ "jobTemplate": { "spec": template } }),
            _ => template,
        };
        format!("kubectl patch {} -p '{}'", self.place(), json!({ "spec": spec }))
    }
}

/// The line that makes a target's pods anew, where kubectl has one.
#[must_use]
pub fn restart(target: &str, namespace: &str) -> Option<String> {
    let restarts = ["deployment/", "statefulset/", "daemonset/"].iter().any(|kind| target.starts_with(kind));
    restarts.then(|| format!("kubectl rollout restart {target} -n {namespace}"))
}

/// The same pod, opted out.
#[must_use]
pub fn opted_out(mut pod: Value) -> Value {
    pod["metadata"]["labels"][INJECT_LABEL] = "disabled".into();
    pod
}

/// A pod that asks for a sidecar and for nothing that a cluster might refuse: it shows what injection does now.
#[must_use]
pub fn canary(namespace: &str) -> Value {
    let quantities = json!({ "cpu": "10m", "memory": "16Mi" });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "mirrord-check-", "namespace": namespace, "labels": { INJECT_LABEL: "enabled" },
        },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65_534, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "check", "image": "mirrord-check", "imagePullPolicy": "IfNotPresent",
                "resources": { "requests": quantities, "limits": quantities },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stateful_set() -> Value {
        json!({
            "metadata": { "name": "db", "namespace": "shop", "uid": "u-1" },
            "spec": {
                "volumeClaimTemplates": [{ "metadata": { "name": "data" } }],
                "template": {
                    "metadata": { "labels": { "app": "db" }, "annotations": { "a": "b" } },
                    "spec": { "containers": [{ "name": "db" }], "newerThanThisProgram": 1 },
                },
            },
        })
    }

    #[test]
    fn the_pod_is_the_one_that_the_controller_would_make() {
        let workload = Workload::new(TargetKind::StatefulSet, stateful_set()).unwrap();
        let pod = workload.pod();
        assert_eq!(pod["metadata"]["generateName"], "db-");
        assert_eq!(pod["metadata"]["labels"]["app"], "db");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
        assert_eq!(pod["spec"]["newerThanThisProgram"], 1, "fields that we don't know stay");
        assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-0");
        assert_eq!(opted_out(pod)["metadata"]["labels"][INJECT_LABEL], "disabled");
    }

    #[test]
    fn what_another_workload_owns_is_not_looked_at_twice() {
        let mut owned = stateful_set();
        owned["metadata"]["ownerReferences"] = json!([{ "kind": "Deployment", "name": "x" }]);
        assert_eq!(Workload::new(TargetKind::ReplicaSet, owned), None);
    }

    #[test]
    fn the_lines_can_be_pasted() {
        let workload = Workload::new(TargetKind::StatefulSet, stateful_set()).unwrap();
        assert_eq!(workload.restart().unwrap(), "kubectl rollout restart statefulset/db -n shop");
        assert_eq!(
            workload.opt_out(),
            r#"kubectl patch statefulset/db -n shop -p '{"spec":{"template":{"metadata":{"labels":{"mirrord.dev/inject":"disabled"}}}}}'"#
        );
        let job = json!({
            "metadata": { "name": "tidy", "namespace": "shop" },
            "status": { "conditions": [{ "type": "Complete", "status": "True" }] },
        });
        let job = Workload::new(TargetKind::Job, job).unwrap();
        assert!(job.done && job.restart().is_none());
    }
}
