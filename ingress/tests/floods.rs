//! Floods: whoever sends without end costs a bounded amount, and others are served meanwhile.
//!
//! Times on processors are printed, to be read; memory, threads, descriptors and flows are asserted, of the real program.
//! The Sessions that it lists have pods at this machine's own address, for it forwards nothing to loopback.

mod support;

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
};

use axum::{Json, Router, body::Body, extract::RawQuery, response::IntoResponse, routing::get};
use mirrord_certs::GateMaster;
use mirrord_protocol::{
    limits,
    route::{Purpose, RouteId},
};
use mirrord_telemetry::exposition;
use mirrord_usage::{Usage, forget_peak};
use serde_json::{Value, json};
use support::{DAY, Gate, PATIENCE, id, initial, long, next, now, short};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the chart allows it, in KiB.
const LIMIT: u64 = 128 * 1024;
/// Flows that there may be, and of one client.
const FLOWS: u32 = 16_384;
const OF_CLIENT: u32 = 2048;
/// Flows towards one route.
const OF_ROUTE: u32 = 1024;
/// How many routes there are: more than all flows need.
const ROUTES: u8 = 20;
const HONEST: RouteId = RouteId([0xaa; 8]);
const STRANGE: RouteId = RouteId([0xbb; 8]);
/// Packets after which a flood waits for them to be read: less than what the kernel drops at.
const BURST: u32 = 64;

fn route(number: u8) -> RouteId {
    RouteId([number; 8])
}

/// An address of this machine that is not loopback; traffic to it stays on the machine.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a datagram socket sends nothing: it asks the routing table.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// An API server that lists one Session, and tells of no changes.
async fn api_server(pods: Vec<Value>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let session = json!({
        "apiVersion": "mirrord.dev/v1alpha1", "kind": "Session", "metadata": { "name": "s-1", "namespace": "shop" },
        "spec": {}, "status": { "pods": pods, "expiresAt": now() + DAY, "deadline": now() + DAY },
    });
    let list = json!({
        "apiVersion": "mirrord.dev/v1alpha1", "kind": "SessionList", "metadata": { "resourceVersion": "1" },
        "items": [session],
    });
    let sessions = async move |RawQuery(query): RawQuery| {
        if query.is_some_and(|query| query.contains("watch=true")) {
            return Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>())
                .into_response();
        }
        Json(list).into_response()
    };
    let app = Router::new().route("/apis/mirrord.dev/v1alpha1/sessions", get(sessions));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// The program, a client that has a flow already, and its sidecar.
struct Ingress {
    child: Child,
    address: SocketAddr,
    health: SocketAddr,
    gate: Gate,
    client: UdpSocket,
    sidecar: UdpSocket,
    /// Where the flood goes, if anywhere.
    _flooded: UdpSocket,
    before: Usage,
}

impl Drop for Ingress {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ingress {
    async fn start() -> Option<Self> {
        let own = own_address()?;
        let [sidecar, flooded] = [(); 2].map(|()| UdpSocket::bind((own, 0)).unwrap());
        sidecar.set_read_timeout(Some(PATIENCE)).unwrap();
        let pod = |route: RouteId, at: &UdpSocket| {
            let port = at.local_addr().unwrap().port();
            json!({ "name": "pod", "uid": "uid", "route": route.to_string(), "address": own, "port": port })
        };
        let mut pods: Vec<Value> = (0..ROUTES).map(|number| pod(route(number), &flooded)).collect();
        pods.push(pod(HONEST, &sidecar));
        let gate = Gate::new();
        let kubeconfig = gate.folder.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": { "server": api_server(pods).await } }],
            "users": [{ "name": "it", "user": {} }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mirrord-ingress"))
            .args(["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--gate-keys"])
            .arg(gate.folder.path())
            .env("KUBECONFIG", kubeconfig)
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (listen, health) = log.find_map(|line| addresses(&line)).unwrap();
        std::thread::spawn(move || log.for_each(drop));
        let client = support::plain_socket();
        let before = Usage::default();
        let mut ingress =
            Self { child, address: listen, health, gate, client, sidecar, _flooded: flooded, before };
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(20));
        while ingress.metric("mirrord_ingress_sessions_watched", &[]).await < 1.0 {
            pause.tick().await;
        }
        ingress.forwards();
        forget_peak(ingress.child.id()).unwrap();
        ingress.before = ingress.now();
        Some(ingress)
    }

    fn now(&self) -> Usage {
        Usage::of(self.child.id()).expect("alive")
    }

    fn token(&self, route: RouteId) -> Vec<u8> {
        self.gate.token(route)
    }

    /// The client's packets reach its sidecar, and the other way.
    fn forwards(&self) {
        let packet = initial(&id(Purpose::Session, HONEST), &self.token(HONEST));
        self.client.send_to(&packet, self.address).unwrap();
        let (bytes, upstream) = next(&self.sidecar);
        assert!(bytes == packet);
        self.sidecar.send_to(b"reply", upstream).unwrap();
        assert_eq!(next(&self.client).0, b"reply");
    }

    /// Sends packets from these senders. The client's, which come behind them, are forwarded only after all are read.
    fn flood(&self, count: u32, packet: impl Fn(u32) -> Vec<u8>, sender: impl Fn(u32) -> Ipv4Addr) {
        for number in 0..count {
            // Each from a port of its own.
            let socket = UdpSocket::bind((sender(number), 0)).unwrap();
            socket.send_to(&packet(number), self.address).unwrap();
            if number % BURST == BURST - 1 {
                self.forwards();
            }
        }
        self.forwards();
    }

    async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut stream = TcpStream::connect(self.health).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let families = exposition::parse(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        exposition::sum(&families, name, labels).unwrap_or_default()
    }

    async fn flows(&self) -> f64 {
        self.metric("mirrord_ingress_flows", &[]).await
    }

    async fn dropped(&self, reason: &str) -> f64 {
        self.metric("mirrord_ingress_datagrams_dropped_total", &[("reason", reason)]).await
    }

    /// What it used at most since the start; the time on processors is what the flood took.
    fn usage(&self, flood: &str) -> Usage {
        let usage = self.now();
        let cpu = usage.cpu - self.before.cpu;
        println!("{flood}: before {}; then {}", self.before, Usage { cpu, ..usage });
        usage
    }
}

/// Where it listens, as its log says.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let of = |name: &str| line.split_once(name)?.1.split_whitespace().next()?.parse().ok();
    Some((of("listen=")?, of("health=")?))
}

fn one(_number: u32) -> Ipv4Addr {
    Ipv4Addr::LOCALHOST
}

#[tokio::test]
async fn packets_that_open_nothing_cost_nothing() {
    let Some(ingress) = Ingress::start().await else { return };
    let known = id(Purpose::Session, route(0));
    let forged = GateMaster::generate().unwrap().issue(route(0), now() + DAY);
    let packets = [
        ("no-token", initial(&known, b"")),
        ("token-forged", initial(&known, &forged)),
        ("token-of-other-route", initial(&known, &ingress.token(route(1)))),
        ("unknown-route", initial(&id(Purpose::Session, STRANGE), b"")),
        ("unknown-route", short(&id(Purpose::Session, STRANGE), 60)),
        ("boot", initial(&id(Purpose::Boot, route(0)), &ingress.token(route(0)))),
        ("no-flow", long(0, &known)),
        ("not-quic", vec![0x40]),
    ];
    let of = |number: u32| packets[number as usize % packets.len()].1.clone();
    ingress.flood(12_000, of, one);
    assert_eq!(ingress.flows().await, 1.0, "the client's own");
    for (reason, _) in &packets {
        assert!(ingress.dropped(reason).await >= 1_500.0, "{reason}");
    }
    let usage = ingress.usage("12,000 packets that open nothing");
    assert!(usage.peak <= ingress.before.resident + 1024, "{usage}");
    assert!(usage.descriptors <= ingress.before.descriptors + 2, "{usage}");
    assert_eq!(usage.threads, ingress.before.threads);
}

#[tokio::test]
async fn clients_that_are_quicker_than_the_watch_are_kept_in_a_bounded_number() {
    let Some(ingress) = Ingress::start().await else { return };
    let early = initial(&id(Purpose::Session, STRANGE), &ingress.token(STRANGE));
    ingress.flood(10_000, |_| early.clone(), one);
    let usage = ingress.usage("10,000 Initials with a good token of a route that nobody knows");
    assert_eq!(ingress.flows().await, 1.0);
    assert!(usage.peak <= ingress.before.resident + 1024, "{usage}");
}

#[tokio::test]
async fn migrations_that_nobody_made_open_a_routes_share() {
    let Some(ingress) = Ingress::start().await else { return };
    let lost = short(&id(Purpose::Session, route(0)), 60);
    ingress.flood(10_000, |_| lost.clone(), one);
    assert_eq!(ingress.flows().await, 1.0 + limits::SESSIONS as f64);
    let usage = ingress.usage("10,000 short headers to a known route from as many ports");
    assert!(usage.peak <= ingress.before.resident + 4096, "{usage}");
    assert!(usage.descriptors <= ingress.before.descriptors + limits::SESSIONS as u64 + 2, "{usage}");
}

#[tokio::test]
async fn tokens_from_many_ports_open_bounded_numbers_of_flows_and_those_that_stand_go_on() {
    let Some(ingress) = Ingress::start().await else { return };
    let packets: Vec<_> = (0..ROUTES)
        .map(|number| initial(&id(Purpose::Session, route(number)), &ingress.token(route(number))))
        .collect();
    // One client, one route: the route's share. One client, all routes: the client's. All of both: all there are.
    ingress.flood(OF_ROUTE + 500, |_| packets[0].clone(), one);
    assert_eq!(ingress.flows().await, 1.0 + f64::from(OF_ROUTE));
    let any = |number: u32| packets[number as usize % packets.len()].clone();
    ingress.flood(OF_CLIENT, any, one);
    assert_eq!(ingress.flows().await, f64::from(OF_CLIENT));
    ingress.forwards();
    let crowd = |number: u32| Ipv4Addr::new(127, 0, 1, u8::try_from(number % 10).unwrap());
    ingress.flood(FLOWS + 2000, any, crowd);
    let usage = ingress.usage("20,000 Initials with good tokens from as many ports");
    let flows = ingress.flows().await;
    assert!(flows <= f64::from(FLOWS) && ingress.dropped("full").await >= 1.0, "{flows}");
    assert!(usage.peak <= LIMIT / 2, "{usage}");
    assert!(usage.descriptors <= u64::from(FLOWS) + 64, "{usage}");
    assert_eq!(usage.threads, ingress.before.threads);
}
