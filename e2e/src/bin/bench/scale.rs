//! Many pods and many sessions: what they cost the control plane and the router.
//!
//! The pods are objects that no scheduler takes; the sidecars of those that get a session are real agents, started on the
//! host from the very command lines that the webhook wrote, with real tokens bound to their pods. Then the pods' status is
//! written as a kubelet would.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    measure::{Against, Report, milliseconds},
    namespace::Namespace,
    run::{Run, until},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, Usage};

const PODS: usize = 2000;
const SESSIONS: usize = 200;
/// What `kubectl` does in one go, within the time that a command may take.
const BATCH: usize = 250;
/// How many sessions one user makes: fewer than the share that each has.
const SHARE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure(report: &mut Report) {
    let parts = ["webhook", "ingress"].map(Part::new);
    let idle = usage(&parts);
    let namespace = Namespace::opted_in("bench-scale");

    let began = Instant::now();
    create((0..PODS).map(|number| pod(number, namespace.name())), BATCH);
    let created = milliseconds(began.elapsed());
    let after_pods = usage(&parts);
    let pods = namespace.pods();
    let injected = pods.iter().filter(|pod| command(pod).is_some()).count();
    assert_eq!(injected, PODS, "every pod is injected");

    let _way = Way::open();
    let twins: Vec<Twin> = pods.iter().take(SESSIONS).map(|pod| Twin::start(pod, namespace.name())).collect();
    let before = usage(&parts);
    create(twins.iter().map(|twin| session(&twin.pod, namespace.name())), SHARE);
    until(PATIENCE, "all sidecars to be told of their sessions", || {
        twins.iter().all(Twin::is_told).then_some(())
    });
    let with_sessions = usage(&parts);

    cluster().run(&[
        "delete",
        "sessions.mirrord.dev",
        "--all",
        "--namespace",
        namespace.name(),
        "--wait=false",
    ]);
    until(PATIENCE, "all sidecars to rest again", || twins.iter().all(Twin::rests).then_some(()));
    let after = usage(&parts);

    report.add("scale_2000_pods_created_ms", created, "ms", Against::Nothing);
    for (index, part) in parts.iter().enumerate() {
        let name = |what: &str| format!("scale_{}_{what}", part.name);
        let [idle, after_pods, before, with_sessions, after] =
            [&idle, &after_pods, &before, &with_sessions, &after].map(|usages| usages[index]);
        let base = || Against::Baseline("idle", idle.memory_kib);
        report.add(&name("2000_pods_memory_kib"), after_pods.memory_kib, "kib", base());
        report.add(&name("2000_pods_cpu_s"), after_pods.cpu_s - idle.cpu_s, "s", Against::Nothing);
        report.add(&name("200_sessions_memory_kib"), with_sessions.memory_kib, "kib", base());
        report.add(&name("200_sessions_cpu_s"), with_sessions.cpu_s - before.cpu_s, "s", Against::Nothing);
        report.add(&name("after_memory_kib"), after.memory_kib, "kib", base());
    }
}

/// A Deployment of ours, with the processes of its replicas.
struct Part {
    name: &'static str,
    replicas: Vec<Process>,
}

impl Part {
    fn new(name: &'static str) -> Self {
        let pods = cluster().list("pods", "mirrord");
        let ours = pods.iter().filter(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == name);
        let replicas = ours.filter_map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["state"]["running"].is_object().then(|| Process::of_container(status))
        });
        Self { name, replicas: replicas.collect() }
    }
}

/// Of each part: all replicas together.
fn usage(parts: &[Part; 2]) -> [Usage; 2] {
    parts.each_ref().map(|part| part.replicas.iter().map(Process::usage).sum())
}

/// Creates objects in batches, each as a user of its own with all rights.
fn create(objects: impl Iterator<Item = Value>, batch: usize) {
    let objects: Vec<Value> = objects.collect();
    thread::scope(|scope| {
        for (number, batch) in objects.chunks(batch).enumerate() {
            scope.spawn(move || {
                let list = json!({ "apiVersion": "v1", "kind": "List", "items": batch });
                let user = format!("--as=bench-{number}");
                let all_rights = "--as-group=system:masters";
                let mut create = cluster().kubectl(&["create", &user, all_rights, "--filename", "-"]);
                let _ = Run::with_input(&mut create, list.to_string().as_bytes()).succeeded();
            });
        }
    });
}

fn pod(number: usize, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("pod-{number}"), "namespace": namespace, "labels": { "app": "scale" } },
        "spec": {
            "schedulerName": "nobody",
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "app", "image": "nowhere/app:1",
                "env": [{ "name": "GREETING", "value": "hello" }],
                "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}

/// Of a key that nobody holds: it is announced, and never used.
fn session(pod: &str, namespace: &str) -> Value {
    let mut key = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00................................";
    for (byte, letter) in key[12..].iter_mut().zip(pod.bytes()) {
        *byte = letter;
    }
    let spec = mirrord_session::SessionSpec {
        target: Some(format!("pod/{pod}")),
        features: vec!["env".to_owned()],
        ..Default::default()
    };
    json!({
        "apiVersion": "mirrord.dev/v1alpha1", "kind": "Session",
        "metadata": { "name": mirrord_session::session_name(&key), "namespace": namespace },
        "spec": spec.with_public_key(&key),
    })
}

/// The sidecar's command line, where there is one.
fn command(pod: &Value) -> Option<Vec<String>> {
    let containers = pod["spec"]["initContainers"].as_array()?;
    let twin = containers.iter().find(|container| container["restartPolicy"] == "Always")?;
    serde_json::from_value(twin["command"].clone()).ok()
}

/// The control plane's way to the host, which is no pod: the chart's NetworkPolicies cut it.
struct Way;

impl Way {
    const NAME: &'static str = "bench-scale";

    fn open() -> Self {
        let host = format!("{}/32", cluster().addresses()["HOST_ADDRESS"]);
        cluster().apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": Self::NAME, "namespace": "mirrord" },
            "spec": {
                "podSelector": { "matchLabels": { "app.kubernetes.io/component": "webhook" } },
                "policyTypes": ["Egress"],
                "egress": [{ "to": [{ "ipBlock": { "cidr": host } }] }],
            },
        }));
        Self
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        cluster().run(&["delete", "networkpolicy", Self::NAME, "--namespace", "mirrord"]);
    }
}

/// The agent of a pod that runs nowhere, on the host.
struct Twin {
    pod: String,
    agent: Child,
    folder: TempDir,
}

impl Twin {
    fn start(pod: &Value, namespace: &str) -> Self {
        let text = |field: &str| pod["metadata"][field].as_str().expect("the API server sets it").to_owned();
        let (name, uid) = (text("name"), text("uid"));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let token = cluster().run(&[
            "create",
            "token",
            "default",
            "--namespace",
            namespace,
            "--audience",
            "mirrord.dev",
            "--bound-object-kind",
            "Pod",
            "--bound-object-name",
            &name,
        ]);
        for (file, content) in [
            ("token", token.text()),
            ("uid", uid),
            ("name", name.clone()),
            ("namespace", namespace.to_owned()),
        ] {
            fs::write(folder.path().join(file), content).expect("the folder can be written");
        }
        let mut words = command(pod).expect("it is injected");
        let identity = words.iter().position(|word| word == "--identity").expect("the agent needs it");
        words[identity + 1] = folder.path().display().to_string();
        words.retain(|word| word != "--namespace-shared");
        let log = fs::File::create(folder.path().join("log")).expect("the folder can be written");
        let agent = Command::new(checkout().join("target/dist/images/sidecar-agent/mirrord-agent"))
            .args(&words[1..])
            .args(["--linger-seconds", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("`make build` made the agent");
        let twin = Self { pod: name, agent, folder };
        twin.pretend_to_run(namespace);
        twin
    }

    /// As a kubelet would say it; the address is the host's.
    fn pretend_to_run(&self, namespace: &str) {
        let address = &cluster().addresses()["HOST_ADDRESS"];
        let running = json!({
            "name": "mirrord", "started": true, "ready": true, "restartCount": 0, "image": "", "imageID": "",
            "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
        });
        let status = json!({ "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "initContainerStatuses": [running],
        }});
        cluster().run(&[
            "patch",
            "pod",
            &self.pod,
            "--namespace",
            namespace,
            "--subresource",
            "status",
            "--type",
            "merge",
            "--patch",
            &status.to_string(),
        ]);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn is_told(&self) -> bool {
        let one = |line: &str| line.contains("sessions=1") || line.contains("\"sessions\":1");
        self.log().lines().any(|line| line.contains("announced") && one(line))
    }

    /// Dormant for the second time.
    fn rests(&self) -> bool {
        self.log().lines().filter(|line| line.contains("dormant")).count() > 1
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}
