//! Round trips, by distance: the same with the cluster near and far.

use std::{fs, net::SocketAddr, time::Duration};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    developer::Developer,
    measure::{Against, Report, median, milliseconds},
    relay::{self, Distance},
    run::Run,
    shop::{CHECKOUT, NAMESPACE},
};

const FAR: Duration = Duration::from_millis(60);

pub(crate) fn measure(report: &mut Report) {
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
