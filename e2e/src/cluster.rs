//! The test cluster, as its admin sees it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::Value;

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

impl Cluster {
    /// The developer's kubeconfig: no rights but those that a test or the shop gives.
    #[must_use]
    pub fn developer_kubeconfig(&self) -> PathBuf {
        self.state.join("developer.kubeconfig")
    }

    /// `kubectl` as the admin.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        self.kubectl_of("admin.kubeconfig", arguments)
    }

    /// `kubectl` as the developer.
    #[must_use]
    pub fn developer_kubectl(&self, arguments: &[&str]) -> Command {
        self.kubectl_of("developer.kubeconfig", arguments)
    }

    fn kubectl_of(&self, kubeconfig: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.state.join("bin/kubectl"));
        command.arg("--kubeconfig").arg(self.state.join(kubeconfig)).args(arguments);
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

    /// Stores objects: `kubectl apply`.
    #[track_caller]
    pub fn apply(&self, objects: &Value) {
        let text = objects.to_string();
        let _ =
            Run::with_input(&mut self.kubectl(&["apply", "--filename", "-"]), text.as_bytes()).succeeded();
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
