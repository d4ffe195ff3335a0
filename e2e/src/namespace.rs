//! A namespace of a test's own, with sample workloads that may be broken at will.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    cluster::cluster,
    developer::Developer,
    run::{Run, until},
    shop,
    snapshot::Snapshot,
};

/// The verbs that `mirrord exec` asks for unless told otherwise.
pub const USUAL: [&str; 3] = ["env", "files", "outgoing"];

/// A namespace; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one that enforces Pod Security `restricted` and is opted in.
    #[must_use]
    pub fn opted_in(name: &str) -> Self {
        Self::with_labels(name, &json!({"mirrord.dev/inject": "enabled"}))
    }

    /// Makes one that enforces Pod Security `restricted` and is not opted in.
    #[must_use]
    pub fn plain(name: &str) -> Self {
        Self::with_labels(name, &json!({}))
    }

    /// Makes one with these labels, which may name another level of Pod Security.
    #[must_use]
    pub fn with_labels(name: &str, labels: &Value) -> Self {
        let name = format!("e2e-{name}");
        // Left by a test that was killed.
        cluster().run(&["delete", "namespace", &name, "--ignore-not-found", "--timeout=60s"]);
        let mut all = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        labels.as_object().into_iter().flatten().for_each(|(label, value)| all[label] = value.clone());
        cluster().apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": all}
        }));
        Self { name }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A Deployment of the checkout's image that only waits, after `edit`; waits until it is rolled out.
    pub fn deploy(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        self.store(name, edit);
        self.rolled_out(&[&format!("deployment/{name}")]);
    }

    /// Stores such a Deployment, or what `edit` makes of it, and doesn't wait.
    pub fn store(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut deployment = sample(name, &self.name);
        edit(&mut deployment);
        cluster().apply(&deployment);
    }

    /// Waits until these are rolled out.
    pub fn rolled_out(&self, workloads: &[&str]) {
        for workload in workloads {
            cluster().run(&["rollout", "status", "--namespace", &self.name, workload, "--timeout=55s"]);
        }
    }

    /// Grants the developer these verbs on a workload, named as RBAC does: `deployment.app`.
    pub fn allow(&self, workload: &str, verbs: &[&str]) {
        self.grant(Some(workload), verbs);
    }

    /// Grants the developer these verbs on all workloads.
    pub fn allow_all(&self, verbs: &[&str]) {
        self.grant(None, verbs);
    }

    fn grant(&self, workload: Option<&str>, verbs: &[&str]) {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "developer", "namespace": self.name},
            "rules": [
                {"apiGroups": ["mirrord.dev"], "resources": ["sessions"],
                 "verbs": ["create", "get", "list", "patch", "delete"]},
                {"apiGroups": ["mirrord.dev"], "resources": ["workloads"], "resourceNames": workload.map(|name| [name]), "verbs": verbs},
            ],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "developer", "namespace": self.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "developer"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "developer"}],
        });
        cluster().apply(&role);
        cluster().apply(&binding);
        // The authorizer learns of it a moment later.
        let developer = Developer::new(&self.name);
        until(Duration::from_secs(10), "the developer's rights", || {
            let on_workload = format!("workloads.mirrord.dev:{}", workload.unwrap_or_default());
            let all = developer.may("create", "sessions.mirrord.dev")
                && verbs.iter().all(|verb| developer.may(verb, &on_workload));
            all.then_some(())
        });
    }

    /// Its pods.
    #[must_use]
    pub fn pods(&self) -> Vec<Value> {
        cluster().list("pods", &self.name)
    }

    /// Its Sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<Value> {
        cluster().list("sessions.mirrord.dev", &self.name)
    }

    /// How everything in it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Run::of(&mut cluster().kubectl(&["delete", "namespace", &self.name, "--wait=false"]));
    }
}

fn sample(name: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "app",
                        "image": cluster().image_of("checkout", shop::NAMESPACE),
                        "command": ["sleep", "infinity"],
                        "env": [{"name": "GREETING", "value": "from the pod"}],
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            },
        },
    })
}
