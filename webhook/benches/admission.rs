//! Admission of pods as the API server asks for it: HTTP/2 over TLS, connections kept alive, against the real server on
//! loopback. `cargo bench -p mirrord-webhook` prints a JSON array of rows as `make bench` collects them.
//!
//! The server has one thread on one core, the client another on the other, so that a core's rate can be told: reviews per
//! second of the server's *processor time*, which what else the machine does can't spoil.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mirrord_certs::Authority;
use mirrord_usage::Usage;
use mirrord_webhook::{
    certificates::{keys::Keys, serving::Serving},
    server::{
        connections::Bounds,
        https,
        routes::{self, INJECT},
    },
};
use rustix::{
    process::Pid,
    thread::{CpuSet, gettid, sched_setaffinity},
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use support::{
    now,
    plane::{NAME, Plane, tls},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{Semaphore, watch},
};

const POD: &str = include_str!("../tests/goldens/deployment.pod.json");
/// Reviews one after another, for the median.
const ALONE: usize = 20_000;
/// Reviews in all, and at once, for the rate.
const CROWD: usize = 100_000;
const AT_ONCE: usize = 64;

fn main() {
    let (server_core, client_core) = (1 % cores(), 0);
    let (started_tx, started) = mpsc::channel();
    let (stop_tx, stop) = watch::channel(false);
    let server = std::thread::Builder::new().name("server".to_owned()).spawn(move || {
        pin(server_core);
        runtime().block_on(serve(started_tx, stop));
    });
    let server = server.unwrap();
    pin(client_core);
    let Started { address, keys, thread } = started.recv().unwrap();
    let server_time = || processor_time(thread);
    let runtime = runtime();
    let client = runtime.block_on(connect(address, &keys.authority));
    let rows =
        measure(&runtime, &Asker { client, path: format!("{INJECT}/{}", keys.path_key) }, &server_time);
    println!("{:#}", Value::Array(rows));
    stop_tx.send_replace(true);
    drop(runtime);
    server.join().unwrap();
}

fn measure(runtime: &Runtime, asker: &Asker, server_time: &dyn Fn() -> Duration) -> Vec<Value> {
    let _warm = runtime.block_on(alone(asker, ALONE / 10));
    let times = runtime.block_on(alone(asker, ALONE));
    let percentile =
        |part: usize| times[(times.len() * part / 1000).min(times.len() - 1)].as_secs_f64() * 1e6;

    let _warm = runtime.block_on(crowd(asker, CROWD / 10));
    let (memory, used) = (resident(), server_time());
    let elapsed = runtime.block_on(crowd(asker, CROWD));
    let used = server_time() - used;
    let rate = |time: Duration| CROWD as f64 / time.as_secs_f64();
    let figure = |name: &str, value: f64, unit: &str| json!({ "name": name, "value": value, "unit": unit });
    let mut rows = vec![
        figure("pod_admission_p50_us", percentile(500), "us"),
        figure("pod_admission_p99_us", percentile(990), "us"),
        figure("pod_admissions_per_core_second", rate(used), "1/s"),
        figure("pod_admissions_per_second", rate(elapsed), "1/s"),
        figure("pod_admission_growth_kib", resident().saturating_sub(memory) as f64, "kib"),
    ];
    rows[0]["limit"] = json!(150);
    rows[1]["limit"] = json!(1000);
    rows[2]["at_least"] = json!(25_000);
    rows
}

/// What the client has to know of the server.
struct Started {
    address: std::net::SocketAddr,
    keys: Arc<Keys>,
    thread: Pid,
}

async fn serve(started_tx: mpsc::Sender<Started>, stop: watch::Receiver<bool>) {
    let plane = Plane::start().await;
    let (_boot, prepare) = plane.boot();
    let serving = Serving::new(plane.keyring(), "mirrord-webhook", "mirrord", now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = routes::router(plane.answerers(prepare), plane.keyring());
    started_tx.send(Started { address, keys: plane.keys(), thread: gettid() }).unwrap();
    https::serve(listener, serving.tls().unwrap(), routes, Bounds::default(), stop).await;
}

async fn connect(address: std::net::SocketAddr, authority: &Authority) -> SendRequest<Full<Bytes>> {
    let mut tls = tls(authority);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// One after another; their times, sorted.
async fn alone(asker: &Asker, count: usize) -> Vec<Duration> {
    let body = review();
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        asker.clone().ask(body.clone()).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times
}

/// Many at once; how long all took.
async fn crowd(asker: &Asker, count: usize) -> Duration {
    let (body, places) = (review(), Arc::new(Semaphore::new(AT_ONCE)));
    let began = Instant::now();
    for _ in 0..count {
        let place = places.clone().acquire_owned().await.unwrap();
        let (asker, body) = (asker.clone(), body.clone());
        tokio::spawn(async move {
            asker.ask(body).await;
            drop(place);
        });
    }
    let _all = places.acquire_many(AT_ONCE as u32).await.unwrap();
    began.elapsed()
}

/// Who asks, on one connection; and where.
#[derive(Clone)]
struct Asker {
    client: SendRequest<Full<Bytes>>,
    path: String,
}

impl Asker {
    async fn ask(mut self, body: Bytes) {
        let request = hyper::Request::post(format!("https://{NAME}{}", self.path))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .unwrap();
        self.client.ready().await.unwrap();
        let answer = self.client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

fn review() -> Bytes {
    let pod: Value = serde_json::from_str(POD).unwrap();
    let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "namespace": "shop", "operation": "CREATE",
            "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller", "groups": [] },
            "object": pod, "oldObject": null, "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    });
    serde_json::to_vec(&review).unwrap().into()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None::<Pid>, &cores).unwrap();
}

/// Of a thread of this process: the first field of schedstat, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn processor_time(thread: Pid) -> Duration {
    let path = format!("/proc/self/task/{}/schedstat", thread.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Of this process, in KiB.
fn resident() -> u64 {
    Usage::of(std::process::id()).unwrap().resident
}
