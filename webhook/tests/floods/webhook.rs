//! A webhook in a process of its own, so that what it uses is nobody else's: this program again, told to run one "test".

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mirrord_usage::{Usage, forget_peak};
use mirrord_webhook::{
    certificates::serving::Serving,
    server::{connections::Bounds, https, routes},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{
    PATIENCE, now,
    plane::{NAME, Plane},
};

/// Set where this program is the webhook.
const ROLE: &str = "MIRRORD_FLOODED";
/// What the chart allows it, in KiB.
pub(crate) const LIMIT: u64 = 128 * 1024;

#[test]
fn it_serves_until_its_input_ends_where_a_flood_asks_for_that() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let plane = Plane::start().await;
        let (_boot, prepare) = plane.boot();
        let keys = plane.keys();
        let serving = Serving::new(plane.keyring(), "mirrord-webhook", "mirrord", now()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (certificate, key) = (STANDARD.encode(keys.authority.certificate()), &keys.path_key);
        println!("\nserving {port} {certificate} {key}");
        let routes = routes::router(plane.answerers(prepare), plane.keyring());
        let (_stop_tx, stop_rx) = watch::channel(false);
        tokio::spawn(https::serve(listener, serving.tls().unwrap(), routes, Bounds::default(), stop_rx));
        let mut input = Vec::new();
        tokio::task::spawn_blocking(move || std::io::stdin().read_to_end(&mut input)).await.unwrap().unwrap();
    });
}

/// A webhook at work; it ends with this.
pub(crate) struct Webhook {
    child: Child,
    address: SocketAddr,
    tls: TlsConnector,
    /// Where pods are reviewed.
    pub(crate) path: String,
    before: Usage,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Webhook {
    pub(crate) async fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "webhook::it_serves_until_its_input_ends_where_a_flood_asks_for_that"])
            .arg("--nocapture")
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.starts_with("serving ")).expect("it serves");
        let words: Vec<&str> = line.split(' ').collect();
        let mut roots = RootCertStore::empty();
        roots.add(STANDARD.decode(words[2]).unwrap().into()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut webhook = Self {
            child,
            address: (Ipv4Addr::LOCALHOST, words[1].parse().unwrap()).into(),
            tls: Arc::new(tls).into(),
            path: format!("/inject/{}", words[3]),
            before: Usage::default(),
        };
        // All that is built at the first request is there before a flood.
        webhook.serves().await;
        forget_peak(webhook.child.id()).unwrap();
        webhook.before = webhook.now();
        webhook
    }

    fn now(&self) -> Usage {
        Usage::of(self.child.id()).expect("alive")
    }

    /// What it used at most since the start; the time on processors is what the flood took.
    pub(crate) fn usage(&self, flood: &str) -> Usage {
        let usage = self.now();
        let cpu = usage.cpu - self.before.cpu;
        println!("{flood}: before {}; then {}", self.before, Usage { cpu, ..usage });
        usage
    }

    /// Threads before the flood.
    pub(crate) fn threads(&self) -> u64 {
        self.before.threads
    }

    /// A connection from one of this machine's addresses: of 127.0.0.0/8 there are enough for a crowd.
    pub(crate) async fn tcp(&self, client: u8) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 1, client), 0).into())?;
        socket.connect(self.address).await
    }

    pub(crate) async fn connect(&self, client: u8) -> std::io::Result<TlsStream<TcpStream>> {
        self.tls.connect(ServerName::try_from(NAME).unwrap(), self.tcp(client).await?).await
    }

    /// A review as an API server posts it is answered.
    pub(crate) async fn serves(&self) {
        let answer = tokio::time::timeout(PATIENCE, self.review()).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// It is, at last.
    pub(crate) async fn serves_in_the_end(&self) {
        let served = async { while !self.review().await.starts_with("HTTP/1.1 200") {} };
        tokio::time::timeout(PATIENCE, served).await.expect("an answer");
    }

    /// Posts a review from an address that nobody else has.
    async fn review(&self) -> String {
        let mut stream = self.connect(250).await.unwrap();
        let path = &self.path;
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }
}

/// Writes as much as is taken, and says whether all was.
pub(crate) async fn write(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> bool {
    tokio::time::timeout(PATIENCE, async {
        stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok()
    })
    .await
    .unwrap_or(false)
}

/// Reads until the other side closes; what it said.
pub(crate) async fn rest(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("it closes");
    bytes
}
