//! Takes parts away from everybody, and gives them back.

use std::{
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    cluster::{checkout, cluster},
    run::{Run, until},
};

/// Kills a program of the node, such as `kube-apiserver`, and starts it again (`e2e/cluster/restart.sh`).
#[track_caller]
pub fn restart(program: &str) {
    let _ = Run::of(Command::new(checkout().join("e2e/cluster/restart.sh")).arg(program)).succeeded();
}

/// Whether a program of the node answers at this address, as it is seen from the node.
#[must_use]
pub fn answers(url: &str) -> bool {
    let mut ask = Command::new(checkout().join("e2e/cluster/enter.sh"));
    Run::of(ask.args(["curl", "--fail", "--silent", "--show-error", "--insecure", "--max-time", "5", url]))
        .status
        .success()
}

/// Our pods of a component: `webhook`, `ingress`.
#[must_use]
#[track_caller]
pub fn pods_of(component: &str) -> Vec<Value> {
    let selector = format!("app.kubernetes.io/component={component}");
    let found = cluster().get(&["pods", "--namespace", "mirrord", "--selector", &selector]);
    found["items"].as_array().cloned().unwrap_or_default()
}

/// Kills the processes of a component's pods, all at once, and waits until each runs again and is ready.
#[track_caller]
pub fn kill(component: &str) {
    until(Duration::from_secs(20), "containers that have run for a while", || {
        let settled = |pod: &Value| is_settled(&pod["status"]["containerStatuses"][0]);
        pods_of(component).iter().all(settled).then_some(())
    });
    let before = pods_of(component);
    let ids: Vec<&str> = before
        .iter()
        .filter_map(|pod| pod["status"]["containerStatuses"][0]["containerID"].as_str())
        .map(|id| id.trim_start_matches("containerd://"))
        .collect();
    assert!(!ids.is_empty(), "{component} has no pods");
    for id in &ids {
        let _ = cluster().on_node(&["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id]);
    }
    until(Duration::from_secs(50), &format!("{component} to be back"), || {
        let back = |pod: &Value| {
            let status = &pod["status"]["containerStatuses"][0];
            let id = status["containerID"].as_str().unwrap_or_default();
            status["ready"] == true && !ids.contains(&id.trim_start_matches("containerd://"))
        };
        pods_of(component).iter().all(back).then_some(())
    });
}

/// A part without replicas; they come back when it is dropped.
#[derive(Debug)]
pub struct Down {
    deployment: &'static str,
    replicas: String,
}

impl Down {
    /// Takes a Deployment's pods away: `deployment/mirrord-webhook`.
    #[must_use]
    #[track_caller]
    pub fn of(deployment: &'static str) -> Self {
        let found = cluster().get(&[deployment, "--namespace", "mirrord"]);
        let replicas = found["spec"]["replicas"].to_string();
        scale(deployment, "0");
        let name = deployment.rsplit('/').next().unwrap_or_default().trim_start_matches("mirrord-");
        let label = format!("app.kubernetes.io/component={name}");
        cluster().run(&[
            "wait",
            "--for=delete",
            "pod",
            "--namespace",
            "mirrord",
            "--selector",
            &label,
            "--timeout=55s",
        ]);
        Self { deployment, replicas }
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        scale(self.deployment, &self.replicas);
        cluster().run(&["rollout", "status", self.deployment, "--namespace", "mirrord", "--timeout=55s"]);
        until_asked();
    }
}

/// Waits until the API server reaches the webhook: Services, NetworkPolicies and the API server itself, which has to read
/// caBundle anew, hear of ready pods a moment later.
#[track_caller]
pub fn until_asked() {
    until(Duration::from_secs(30), "the webhook to be asked again", || is_asked().then_some(()));
}

fn is_asked() -> bool {
    let session = json!({
        "apiVersion": "mirrord.dev/v1alpha1", "kind": "Session",
        "metadata": {"name": "s-targets", "namespace": "default"}, "spec": {},
    });
    let mut dry = cluster().kubectl(&["create", "--dry-run=server", "--filename", "-"]);
    Run::with_input(&mut dry, session.to_string().as_bytes()).status.success()
}

fn scale(deployment: &str, replicas: &str) {
    cluster().run(&["scale", deployment, "--namespace", "mirrord", &format!("--replicas={replicas}")]);
}

/// Whether a container has run so long that kubelet starts it again at once: twice the longest pause, which is a second
/// (node.sh). One that ends earlier is looked at again only ten seconds later.
#[must_use]
pub fn is_settled(status: &Value) -> bool {
    let started = status["state"]["running"]["startedAt"].as_str().unwrap_or_default();
    let mut date = Command::new("date");
    let since = Run::of(date.args(["--date", started, "+%s"])).text();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    !started.is_empty() && since.trim().parse().is_ok_and(|since: u64| now > since + 3)
}

/// Packets that the node drops, of the node's own network namespace; they pass again when it is dropped.
#[derive(Debug)]
pub struct Dropped;

impl Dropped {
    /// Everything between the host and the node, as if the cable were cut. What goes on inside the node goes on.
    #[must_use]
    pub fn uplink() -> Self {
        Self::by(&[("prerouting", "iifname uplink"), ("postrouting", "oifname uplink")])
    }

    /// Datagrams to a UDP port of a pod from these addresses.
    #[must_use]
    pub fn datagrams(from: &[String], to: &str, port: u16) -> Self {
        let these = format!("ip saddr {{ {} }} ip daddr {to} udp dport {port}", from.join(", "));
        Self::by(&[("forward", &these)])
    }

    /// All that a pod says from a UDP port.
    #[must_use]
    pub fn words(from: &str, port: u16) -> Self {
        Self::by(&[("forward", &format!("ip saddr {from} udp sport {port}"))])
    }

    fn by(rules: &[(&str, &str)]) -> Self {
        let chain = |(hook, these): &(&str, &str)| {
            format!("chain {hook} {{ type filter hook {hook} priority 400; {these} drop; }}")
        };
        let chains: Vec<String> = rules.iter().map(chain).collect();
        let _ = cluster().on_node(&["nft", &format!("table inet outage {{\n{}\n}}", chains.join("\n"))]);
        Self
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = cluster().on_node(&["nft", "delete table inet outage"]);
    }
}
