//! The test cluster, as its admin sees it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::run::Run;

/// The cluster of this checkout.
#[derive(Debug)]
pub struct Cluster {
    state: PathBuf,
}

/// The cluster of this checkout; panics when it isn't up.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
        let cluster = Cluster { state: checkout().join("target/cluster") };
        assert!(
            cluster.state.join("admin.kubeconfig").exists(),
            "no test cluster is up: `make test` brings it up and deploys to it (as root)"
        );
        cluster
    });
    &CLUSTER
}

/// The folder of the repository.
#[must_use]
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the repository")
}

/// The client that `make build` made.
#[must_use]
pub fn mirrord() -> PathBuf {
    let built = checkout().join("target/dist/mirrord");
    assert!(built.exists(), "{} is missing: `make build` makes it", built.display());
    built
}

/// Of whom one may ask what they may.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// The developer.
    Developer,
    /// A ServiceAccount of the namespace `mirrord`.
    ServiceAccount(&'static str),
}

impl Cluster {
    /// The developer's kubeconfig: no rights but those that a test or the shop gives.
    #[must_use]
    pub fn developer_kubeconfig(&self) -> PathBuf {
        self.state.join("developer.kubeconfig")
    }

    /// `kubectl` as the admin.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.state.join("bin/kubectl"));
        command.arg("--kubeconfig").arg(self.state.join("admin.kubeconfig")).args(arguments);
        command
    }

    /// Asks for objects: `kubectl get … --output json`.
    #[must_use]
    #[track_caller]
    pub fn get(&self, arguments: &[&str]) -> Value {
        let mut command = self.kubectl(&["get", "--output", "json"]);
        let answer = Run::of(command.args(arguments)).succeeded();
        serde_json::from_slice(&answer.stdout).expect("kubectl prints JSON when asked")
    }

    /// All objects of a kind in a namespace.
    #[must_use]
    #[track_caller]
    pub fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        self.get(&[kind, "--namespace", namespace])["items"].as_array().cloned().unwrap_or_default()
    }

    /// Its addresses: `NODE_ADDRESS` and the like.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.state.join("addresses.env")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    /// A command of the node (`e2e/cluster/enter.sh`).
    #[must_use]
    #[track_caller]
    pub fn on_node(&self, command: &[&str]) -> Run {
        Run::of(Command::new(checkout().join("e2e/cluster/enter.sh")).args(command)).succeeded()
    }

    /// The process that a container was started as, by its id: its number on the node.
    #[must_use]
    #[track_caller]
    pub fn main_process(&self, container: &str) -> String {
        let tasks = self.on_node(&["ctr", "-n", "k8s.io", "tasks", "ls"]).text();
        let line = tasks.lines().find(|line| line.starts_with(container)).expect("containerd knows it");
        line.split_whitespace().nth(1).expect("a process").to_owned()
    }

    /// Where the API server posts reviews of a webhook: what only an admin can read.
    #[must_use]
    #[track_caller]
    pub fn webhook_path(&self, webhook: &str) -> String {
        let found = self.get(&["mutatingwebhookconfiguration", "mirrord"]);
        let webhooks = found["webhooks"].as_array().expect("it has webhooks");
        let webhook = webhooks.iter().find(|it| it["name"] == webhook).expect("it has this one");
        webhook["clientConfig"]["service"]["path"].as_str().expect("the webhook wrote it").to_owned()
    }

    /// Stores objects: `kubectl apply`.
    #[track_caller]
    pub fn apply(&self, objects: &Value) {
        let text = objects.to_string();
        let _ =
            Run::with_input(&mut self.kubectl(&["apply", "--filename", "-"]), text.as_bytes()).succeeded();
    }

    /// Whether somebody may, by RBAC. `what` is `resource[.group][/subresource][:name]`. (`kubectl auth can-i create pods/exec`
    /// asks for pods *named* exec.)
    #[must_use]
    #[track_caller]
    pub fn may(&self, who: &Who, verb: &str, what: &str, namespace: &str) -> bool {
        let (what, name) = what.split_once(':').unwrap_or((what, ""));
        let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
        let (resource, group) = what.split_once('.').unwrap_or((what, ""));
        let mut spec = json!({"resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
            "namespace": namespace,
        }});
        match who {
            Who::Developer => {
                spec["user"] = "developer".into();
                spec["groups"] = json!(["developers", "system:authenticated"]);
            }
            Who::ServiceAccount(account) => {
                spec["user"] = format!("system:serviceaccount:mirrord:{account}").into();
                spec["groups"] = json!([
                    "system:serviceaccounts",
                    "system:serviceaccounts:mirrord",
                    "system:authenticated"
                ]);
            }
        }
        let review =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
                .to_string();
        let mut ask = self.kubectl(&["create", "--output", "json", "--filename", "-"]);
        let answer = Run::with_input(&mut ask, review.as_bytes()).succeeded();
        let answer: Value = serde_json::from_slice(&answer.stdout).expect("kubectl prints JSON when asked");
        answer["status"]["allowed"].as_bool().expect("a review is answered")
    }

    /// Runs `kubectl` as the admin; it must succeed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.kubectl(arguments)).succeeded()
    }

    /// The image that a Deployment's first container has.
    #[must_use]
    pub fn image_of(&self, deployment: &str, namespace: &str) -> String {
        let found = self.get(&["deployment", deployment, "--namespace", namespace]);
        found["spec"]["template"]["spec"]["containers"][0]["image"]
            .as_str()
            .expect("every container has one")
            .to_owned()
    }
}
