//! Our own parts are down. These tests take them away from everybody, so they are a program of their own, which `cargo test`
//! runs after the others, and take turns.
#![forbid(unsafe_code)]

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use mirrord_e2e::{
    cluster::cluster,
    developer::Developer,
    namespace::{Namespace, USUAL},
    outage::Down,
    run::{Run, until},
};
use serde_json::{Value, json};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    // Who failed gave back what they took.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn without_the_webhook_pods_are_admitted_without_sidecars_and_sessions_live_and_can_be_deleted() {
    let _turn = turn();
    let running = Namespace::opted_in("before-outage");
    running.deploy("app", |_| ());
    running.allow("deployment.app", &USUAL);
    let developer = Developer::new(running.name()).with_lingering_proxies();
    let _ = developer.exec("deployment/app", ["true"]).succeeded();

    let down = Down::of("deployment/mirrord-webhook");
    let namespace = Namespace::opted_in("webhook-down");
    namespace.deploy("app", |_| ());
    assert!(namespace.pods()[0]["spec"]["initContainers"].is_null(), "no sidecar, but it runs");
    let told = Run::of(&mut cluster().mirrord(&["check", "-n", namespace.name()]));
    for expected in
        ["it is scaled to no replicas", "it leads to no pod that is ready", "it came back without a sidecar"]
    {
        assert!(told.text().contains(expected), "no {expected:?} in: {}", told.story());
    }
    let _ = told.failed_with(1, &["not everything works"]);

    let alive = developer.exec("deployment/app", ["cat", "/var/lib/checkout/private"]).succeeded();
    assert_eq!(alive.text(), "only for 4321\n", "a session outlives the webhook");
    let refused = Developer::new(running.name()).exec("deployment/app", ["true"]);
    let _ = refused.failed_with(69, &["webhook"]);
    cluster().run(&[
        "delete",
        "sessions.mirrord.dev",
        "--all",
        "--namespace",
        running.name(),
        "--timeout=10s",
    ]);
    drop(down);

    // What started meanwhile is named as such.
    namespace.allow("deployment.app", &USUAL);
    let restart = format!("kubectl rollout restart deployment/app -n {}", namespace.name());
    let _ = Developer::new(namespace.name()).exec("deployment/app", ["true"]).failed_with(66, &[&restart]);
}

#[test]
fn without_the_ingress_the_client_says_who_does_not_answer() {
    let _turn = turn();
    let namespace = Namespace::opted_in("ingress-down");
    namespace.deploy("app", |_| ());
    namespace.allow("deployment.app", &USUAL);
    let developer = Developer::new(namespace.name());
    let down = Down::of("deployment/mirrord-ingress");
    let _ = developer.exec("deployment/app", ["true"]).failed_with(69, &["ingress", "UDP"]);
    let told = Run::of(&mut cluster().mirrord(&["check", "-n", namespace.name()]));
    assert!(told.text().contains("nothing listens there"), "{}", told.story());
    let _ = told.failed_with(1, &["not everything works"]);
    drop(down);
    let _ = developer.exec("deployment/app", ["true"]).succeeded();
}

const WEBHOOK: &str = "app.kubernetes.io/component=webhook";

/// Pods of the webhook that stay.
fn webhooks() -> Vec<Value> {
    let pods = cluster().get(&["pods", "--namespace", "mirrord", "--selector", WEBHOOK]);
    let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    pods["items"].as_array().unwrap().iter().filter(stays).cloned().collect()
}

/// Pods that no scheduler looks at: nothing but their admission is under test.
fn create_pods(namespace: &Namespace, numbers: std::ops::Range<usize>) -> Run {
    let pod = |number| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{number}"), "namespace": namespace.name()},
            "spec": {
                "schedulerName": "nobody",
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "app", "image": "localhost/none:1",
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        })
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": numbers.map(pod).collect::<Vec<_>>()});
    Run::with_input(&mut cluster().kubectl(&["create", "--filename", "-"]), list.to_string().as_bytes())
}

/// Numbers of pods that only probe whether pods are injected begin here.
const PROBES: usize = 1000;

/// How many have a sidecar, of how many, without probes.
fn injected(namespace: &Namespace) -> (usize, usize) {
    let is_probe = |pod: &Value| {
        let number =
            pod["metadata"]["name"].as_str().and_then(|name| name.strip_prefix("pod-")?.parse().ok());
        number.is_some_and(|number: usize| number >= PROBES)
    };
    let pods: Vec<Value> = namespace.pods().into_iter().filter(|pod| !is_probe(pod)).collect();
    let with = pods.iter().filter(|pod| !pod["spec"]["initContainers"].is_null()).count();
    (with, pods.len())
}

/// The numbers on the node of the webhook's processes.
fn processes() -> Vec<String> {
    let process = |pod: &Value| {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
        cluster().main_process(id.trim_start_matches("containerd://"))
    };
    webhooks().iter().map(process).collect()
}

fn signal(signal: &str, processes: &[String]) {
    let mut command = vec!["kill", signal];
    command.extend(processes.iter().map(String::as_str));
    let _ = cluster().on_node(&command);
}

/// Waits until all replicas of the webhook are ready.
fn serving() {
    let is_ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
    };
    until(Duration::from_secs(55), "the webhook's replicas", || {
        let pods = webhooks();
        (pods.len() >= 2 && pods.iter().all(is_ready)).then_some(())
    });
}

/// Waits until pods get their sidecar again: what kube-proxy knows of the webhook is a moment old.
fn injects_again(namespace: &Namespace) {
    // Names that no earlier call has used.
    let mut number = PROBES + namespace.pods().len();
    until(Duration::from_secs(20), "pods to be injected again", || {
        number += 1;
        let _ = create_pods(namespace, number..number + 1).succeeded();
        let pod = cluster().get(&["pod", &format!("pod-{number}"), "--namespace", namespace.name()]);
        (!pod["spec"]["initContainers"].is_null()).then_some(())
    });
}

/// Waits for the webhook to serve, whatever became of it.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        serving();
    }
}

#[test]
fn while_all_webhooks_are_killed_over_and_over_200_pods_are_created_and_none_is_denied() {
    const ROUNDS: usize = 4;
    const PODS: usize = 50;
    let _turn = turn();
    let namespace = &Namespace::opted_in("kill-loop");
    let _restored = Restored;
    for round in 0..ROUNDS {
        injects_again(namespace);
        let processes = &processes();
        let batch = thread::scope(|scope| {
            // In the middle of it.
            let first = format!("pod/pod-{}", round * PODS);
            let killer = scope.spawn(move || {
                let get = ["get", &first, "--namespace", namespace.name()];
                until(Duration::from_secs(20), "the first pod", || {
                    Run::of(&mut cluster().kubectl(&get)).status.success().then_some(())
                });
                signal("-KILL", processes);
            });
            let batch = create_pods(namespace, round * PODS..(round + 1) * PODS);
            killer.join().unwrap();
            batch
        });
        let _ = batch.succeeded();
        // New ones, for the kubelet restarts a container that ends often ever later.
        let delete = [
            "delete",
            "pods",
            "--namespace",
            "mirrord",
            "--selector",
            WEBHOOK,
            "--force",
            "--grace-period=0",
        ];
        cluster().run(&delete);
        serving();
    }
    let (with, all) = injected(namespace);
    println!("{with} of {all} pods have a sidecar");
    assert_eq!(all, ROUNDS * PODS);
    assert!(0 < with && with < all, "{with} of {all}: the kills came in the middle");
    injects_again(namespace);
}

/// Webhooks that stand still; they go on when it is dropped.
struct Stopped(Vec<String>);

impl Stopped {
    fn webhooks() -> Self {
        let stopped = Self(processes());
        signal("-STOP", &stopped.0);
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

#[test]
fn a_webhook_that_hangs_delays_a_pod_by_its_time_limit_and_never_denies_it() {
    let _turn = turn();
    let namespace = Namespace::opted_in("hanging");
    let restored = Restored;
    let stopped = Stopped::webhooks();
    let created = create_pods(&namespace, 0..1).succeeded();
    drop(stopped);
    assert_eq!(injected(&namespace), (0, 1), "admitted as it came");
    // The chart says 5 s: for one call, not for one after the other.
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&created.took), "{:?}", created.took);
    drop(restored);
    injects_again(&namespace);
}
