//! The test cluster, as its admin sees it: the one of this checkout, or with `MIRRORD_E2E_CLUSTER=external` the one that
//! `KUBECONFIG` leads to. Of a foreign cluster nothing is known but its API server.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::run::Run;

/// The test cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The folder with kubeconfigs, and programs where the cluster is ours.
    state: PathBuf,
    admin: PathBuf,
    external: bool,
}

/// The test cluster; panics when it isn't up.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| match env::var("MIRRORD_E2E_CLUSTER").as_deref() {
        Ok("external") => external(),
        Ok("") | Err(_) => own(),
        Ok(other) => panic!("MIRRORD_E2E_CLUSTER can't be {other:?}: only external"),
    });
    &CLUSTER
}

fn own() -> Cluster {
    let state = checkout().join("target/cluster");
    let cluster = Cluster { admin: state.join("admin.kubeconfig"), state, external: false };
    assert!(
        cluster.admin.exists(),
        "no test cluster is up: `make test` brings it up and deploys to it (as root)"
    );
    cluster
}

fn external() -> Cluster {
    let kubeconfig = env::var_os("KUBECONFIG").filter(|path| !path.is_empty());
    let admin =
        PathBuf::from(kubeconfig.expect("KUBECONFIG names an admin's kubeconfig of the external cluster"));
    let state = checkout().join("target/external");
    let cluster = Cluster { admin, state, external: true };
    assert!(
        cluster.developer_kubeconfig().exists(),
        "nothing is deployed to the external cluster: `make deploy` does it"
    );
    cluster
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
        self.program("kubectl", arguments)
    }

    /// `helm` as the admin.
    #[must_use]
    pub fn helm(&self, arguments: &[&str]) -> Command {
        self.program("helm", arguments)
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = match self.external {
            true => Command::new(name),
            false => Command::new(self.state.join("bin").join(name)),
        };
        command.arg("--kubeconfig").arg(&self.admin).args(arguments);
        command
    }

    /// The admin's kubeconfig.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// `mirrord` as the admin.
    #[must_use]
    pub fn mirrord(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(mirrord());
        command.args(arguments).arg("--kubeconfig").arg(&self.admin);
        command
    }

    /// A command line as somebody would paste it who is the admin.
    #[must_use]
    pub fn pasted(&self, line: &str) -> Command {
        let path = env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .env("KUBECONFIG", &self.admin)
            .env("PATH", format!("{}:{path}", self.state.join("bin").display()));
        command
    }

    /// Whether its node can be entered. A test that needs that ends where it can't, and this says so (past the test
    /// harness, which keeps what tests print to itself).
    #[must_use]
    pub fn has_node(&self, what_for: &str) -> bool {
        if self.external {
            let _ = writeln!(
                std::io::stderr().lock(),
                "skipped on an external cluster: {what_for} needs its node"
            );
        }
        !self.external
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
        assert!(!self.external, "the node of an external cluster can't be entered: ask `has_node` before");
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
