//! `make bench`: what mirrord costs, in round trips where they can be counted, else in time and bytes.
//!
//! Round trips are counted by distance: the cluster is put behind relays, and what a step takes longer when the cluster is
//! far away, divided by how far, is its round trips. Times of the machine fall out of the difference.
#![forbid(unsafe_code)]

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    developer::Developer,
    measure::{Against, Report, median, milliseconds},
    namespace::Namespace,
    relay::{self, Distance},
    run::Run,
    shop::{CHECKOUT, NAMESPACE, shop},
};
use serde_json::Value;

const FAR: Duration = Duration::from_millis(60);

fn main() {
    let _ = shop();
    if !cluster().has_node("measuring sidecars and moving the cluster away") {
        return;
    }
    let mut report = Report::default();
    sizes(&mut report);
    dormant(&mut report);
    admission(&mut report);
    pod_start(&mut report);
    near(&mut report);
    far(&mut report);
    let results = checkout().join("target/bench/results.json");
    report.write(&results).expect("target/bench can be written");
    println!("\nwritten to {}", results.display());
}

fn sizes(report: &mut Report) {
    for (name, program, limit) in [
        ("image_sidecar_agent_bytes", "sidecar-agent/mirrord-agent", Against::Limit(3.0e6)),
        ("image_webhook_bytes", "webhook/mirrord-webhook", Against::Nothing),
        ("image_ingress_bytes", "ingress/mirrord-ingress", Against::Nothing),
    ] {
        let size = |path: &str| {
            fs::metadata(checkout().join("target/dist").join(path)).map_or(f64::NAN, |it| it.len() as f64)
        };
        // The image is this one file (FROM scratch).
        report.add(name, size(&format!("images/{program}")), "bytes", limit);
    }
    let layer = fs::metadata(checkout().join("target/dist/libmirrord_layer_preload.so"));
    report.add("layer_bytes", layer.map_or(f64::NAN, |it| it.len() as f64), "bytes", Against::Limit(3.0e5));
}

/// A sidecar that never had a session: of `inventory`, which nobody may use.
fn dormant(report: &mut Report) {
    cluster().run(&["rollout", "restart", "deployment/inventory", "--namespace", NAMESPACE]);
    cluster().run(&["rollout", "status", "deployment/inventory", "--namespace", NAMESPACE, "--timeout=55s"]);
    let pods = cluster().list("pods", NAMESPACE);
    let pod = pods.iter().find(|pod| {
        pod["metadata"]["labels"]["app"] == "inventory" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let twin = pod.expect("inventory runs")["status"]["initContainerStatuses"]
        .as_array()
        .expect("it is injected")
        .clone();
    let running =
        twin.iter().find(|status| status["state"]["running"].is_object()).expect("its sidecar runs");
    let id =
        running["containerID"].as_str().unwrap_or_default().trim_start_matches("containerd://").to_owned();
    let pid = cluster().main_process(&id);
    let rollup = cluster().on_node(&["cat", &format!("/proc/{pid}/smaps_rollup")]).text();
    let kibibytes = |field: &str| -> f64 {
        let line = rollup.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
    };
    let threads = cluster().on_node(&["ls", &format!("/proc/{pid}/task")]).text().lines().count();
    report.add("dormant_sidecar_rss_kib", kibibytes("Rss:"), "kib", Against::Limit(1536.0));
    report.add("dormant_sidecar_anonymous_kib", kibibytes("Anonymous:"), "kib", Against::Limit(250.0));
    report.add("dormant_sidecar_threads", threads as f64, "threads", Against::Limit(1.0));
}

/// Reviews on one kept-alive connection from inside the cluster; an empty request is the floor.
fn admission(report: &mut Report) {
    let script = r#"
import http.client, json, ssl, statistics, sys, time
review = sys.stdin.read()
connection = http.client.HTTPSConnection("mirrord-webhook.mirrord.svc", context=ssl._create_unverified_context())
def p50(method, path, body):
    times = []
    for _ in range(1500):
        began = time.perf_counter()
        connection.request(method, path, body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6
p50("POST", "/inject", review)
print(json.dumps([p50("POST", "/inject", review), p50("GET", "/nothing", None)]))
"#;
    let pod =
        fs::read_to_string(checkout().join("webhook/tests/goldens/deployment.pod.json")).unwrap_or_default();
    let review = serde_json::json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": "CREATE", "namespace": NAMESPACE,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": serde_json::from_str::<Value>(&pod).unwrap_or_default(),
        },
    });
    let script = script.replace("/inject", &cluster().webhook_path("inject.mirrord.dev"));
    let mut python = cluster().kubectl(&[
        "exec", "-i", "-n", NAMESPACE, CHECKOUT, "-c", "checkout", "--", "python3", "-c", &script,
    ]);
    let answer = Run::with_input(&mut python, review.to_string().as_bytes()).succeeded();
    let [decided, floor]: [f64; 2] =
        serde_json::from_slice(&answer.stdout).expect("the script prints two numbers");
    report.add("admission_p50_us", decided, "us", Against::Baseline("empty request", floor));
}

fn pod_start(report: &mut Report) {
    let started = |namespace: &Namespace, round: usize| {
        let began = Instant::now();
        namespace.deploy(&format!("app-{round}"), |_| ());
        milliseconds(began.elapsed())
    };
    let (with, without) = (Namespace::opted_in("bench-with"), Namespace::plain("bench-without"));
    let pairs: Vec<(f64, f64)> =
        (0..5).map(|round| (started(&with, round), started(&without, round))).collect();
    let with = median(pairs.iter().map(|pair| pair.0).collect());
    let without = median(pairs.iter().map(|pair| pair.1).collect());
    report.add("pod_start_injected_ms", with, "ms", Against::Baseline("not injected", without));
    report.add("pod_start_added_ms", with - without, "ms", Against::Nothing);
}

fn near(report: &mut Report) {
    let cold = (0..5).map(|_| {
        let developer = Developer::new(NAMESPACE).with_lingering_proxies();
        milliseconds(developer.exec(CHECKOUT, ["true"]).succeeded().took)
    });
    report.add("exec_cold_ms", median(cold.collect()), "ms", Against::Nothing);

    let developer = Developer::new(NAMESPACE).with_lingering_proxies();
    let _ = developer.exec(CHECKOUT, ["true"]).succeeded();
    let warm = (0..30).map(|_| milliseconds(developer.exec(CHECKOUT, ["true"]).succeeded().took));
    let warm = median(warm.collect());
    let alone = (0..30).map(|_| milliseconds(Run::of(&mut developer.command("true")).succeeded().took));
    report.add("exec_warm_ms", warm, "ms", Against::Baseline("the command alone", median(alone.collect())));
}

/// Round trips: the same with the cluster near and far.
fn far(report: &mut Report) {
    let cluster_at = FarCluster::new();
    let cold = |developer: &Developer| milliseconds(developer.exec(CHECKOUT, ["true"]).succeeded().took);
    let trips = |near: f64, far: f64| (far - near) / milliseconds(FAR);

    let times = |developer: fn(&FarCluster) -> Developer| {
        median((0..5).map(|_| cold(&developer(&cluster_at))).collect())
    };
    cluster_at.distance.set(Duration::ZERO);
    let near = times(FarCluster::developer);
    cluster_at.distance.set(FAR);
    // The relay answers the TCP handshake at once: one more.
    report.add(
        "exec_cold_round_trips",
        trips(near, times(FarCluster::developer)) + 1.0,
        "round_trips",
        Against::Limit(5.0),
    );

    let developer = cluster_at.developer();
    let _ = developer.exec(CHECKOUT, ["true"]).succeeded();
    let warm = || median((0..9).map(|_| cold(&developer)).collect());
    let far = warm();
    cluster_at.distance.set(Duration::ZERO);
    report.add("exec_warm_round_trips", trips(warm(), far), "round_trips", Against::Limit(1.0));
    file_reads(report, &cluster_at, &developer);
}

/// What a program waits for the attributes of a small file, and for open, read to the end and close of it.
fn file_reads(report: &mut Report, cluster_at: &FarCluster, developer: &Developer) {
    let script = r"
import json, os, time
def read():
    with open('/srv/checkout/entrypoint.sh') as file: file.read()
def took(action):
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3
took(read)
print(json.dumps([took(lambda: os.stat('/srv/checkout/entrypoint.sh')), took(read)]))
";
    let read = || -> [f64; 2] {
        let answer = developer.exec(CHECKOUT, ["python3", "-c", script]).succeeded();
        serde_json::from_slice(&answer.stdout).expect("the script prints two numbers")
    };
    let near = read();
    cluster_at.distance.set(FAR);
    let far = read();
    let trips = |which: usize| (far[which] - near[which]) / milliseconds(FAR);
    report.add("small_file_stat_round_trips", trips(0), "round_trips", Against::Limit(1.0));
    report.add("small_file_read_round_trips", trips(1), "round_trips", Against::Limit(1.0));
}

/// The cluster behind relays: the API server by a kubeconfig, the ingress by the address that sessions name.
struct FarCluster {
    distance: Distance,
    api: SocketAddr,
}

impl FarCluster {
    fn new() -> Self {
        let distance = Distance::default();
        let addresses = cluster().addresses();
        let any = |address: &str| -> SocketAddr { format!("{address}:0").parse().expect("an address") };
        let server = format!("{}:6443", addresses["NODE_ADDRESS"]).parse().expect("an address");
        let api = relay::tcp(any("127.0.0.1"), server, &distance).expect("a relay");
        let service = cluster().get(&["service", "mirrord-ingress", "--namespace", "mirrord"]);
        let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"]
            .as_str()
            .expect("a load balancer's address");
        let ingress =
            relay::udp(any("127.0.0.1"), format!("{ip}:443").parse().expect("an address"), &distance)
                .expect("a relay");
        let _ = helm_upgrade(&format!("ingress.address={ingress}")).succeeded();
        Self { distance, api }
    }

    fn developer(&self) -> Developer {
        let developer = Developer::new(NAMESPACE).with_lingering_proxies();
        let near =
            fs::read_to_string(cluster().developer_kubeconfig()).expect("the developer has a kubeconfig");
        let line = |line: &str| match line.split_once("server:") {
            Some((indent, _)) => format!("{indent}server: https://{}\n", self.api),
            None => format!("{line}\n"),
        };
        let path = developer.home().join("far.kubeconfig");
        fs::write(&path, near.lines().map(line).collect::<String>()).expect("their home can be written");
        developer.with_kubeconfig(&path)
    }
}

impl Drop for FarCluster {
    fn drop(&mut self) {
        let restored = helm_upgrade("ingress.address=");
        if !restored.status.success() {
            eprintln!(
                "the ingress's address still leads to the benchmark: `make deploy` mends that\n{}",
                restored.story()
            );
        }
    }
}

fn helm_upgrade(value: &str) -> Run {
    let mut helm = cluster().helm(&[
        "upgrade",
        "mirrord",
        "charts/mirrord",
        "--namespace",
        "mirrord",
        "--reuse-values",
        "--wait",
        "--set",
        value,
    ]);
    Run::of(helm.current_dir(checkout()))
}
