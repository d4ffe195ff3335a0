//! The sample shop (`e2e/shop`).

use std::{process::Command, sync::LazyLock};

use serde_json::Value;

use crate::{
    cluster::{Cluster, checkout, cluster},
    run::Run,
    snapshot::Snapshot,
};

/// The shop's namespace.
pub const NAMESPACE: &str = "shop";

/// The workload that the developer may use.
pub const CHECKOUT: &str = "deployment/checkout";

/// The deployed shop.
#[derive(Debug)]
pub struct Shop {
    cluster: &'static Cluster,
}

/// The deployed shop; panics when it isn't there.
pub fn shop() -> &'static Shop {
    static SHOP: LazyLock<Shop> = LazyLock::new(|| {
        let found = Run::of(&mut cluster().kubectl(&["get", "--namespace", NAMESPACE, CHECKOUT]));
        assert!(
            found.status.success(),
            "the shop isn't deployed: `make demo` and `make test` deploy it\n{}",
            found.story()
        );
        Shop { cluster: cluster() }
    });
    &SHOP
}

impl Shop {
    /// Runs a command in the application's container of `checkout`, as an admin may.
    #[must_use]
    pub fn inside(&self, command: &[&str]) -> Run {
        Run::of(self.inside_command().args(command))
    }

    fn inside_command(&self) -> Command {
        self.cluster.kubectl(&["exec", "--namespace", NAMESPACE, CHECKOUT, "--container", "checkout", "--"])
    }

    /// How everything in the namespace is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(NAMESPACE)
    }

    /// The shop's Sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<Value> {
        self.cluster.list("sessions.mirrord.dev", NAMESPACE)
    }

    /// Lets the developer read mounted Secrets too, for as long as the guard lives.
    #[must_use]
    pub fn grant_secrets(&self) -> SecretsGranted {
        let file = checkout().join("e2e/shop/secrets.yaml").to_string_lossy().into_owned();
        self.cluster.run(&["apply", "--filename", &file]);
        SecretsGranted { cluster: self.cluster, file }
    }
}

/// Takes the right back when dropped.
#[derive(Debug)]
pub struct SecretsGranted {
    cluster: &'static Cluster,
    file: String,
}

impl Drop for SecretsGranted {
    fn drop(&mut self) {
        let _ =
            Run::of(&mut self.cluster.kubectl(&["delete", "--ignore-not-found", "--filename", &self.file]));
    }
}
