//! The HTTPS server as the API server sees it.

mod support;

use std::sync::Arc;

use axum::{Router, routing::post};
use mirrord_certs::Authority;
use mirrord_webhook::{
    certificates::{
        keys::{Keyring, Keys},
        serving::Serving,
    },
    self_test::{self, TestError},
    server::{connections::Bounds, https},
};
use rustls::{RootCertStore, pki_types::ServerName};
use support::{
    PATIENCE, now,
    plane::{NAME, keys, tls},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const BOUNDS: Bounds = Bounds { total: 16, client: 8 };

struct Server {
    keys: Arc<Keys>,
    address: std::net::SocketAddr,
    stop_tx: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(routes: Router) -> Self {
        let keys = Arc::new(keys());
        let (_, keys_rx) = watch::channel(keys.clone());
        let serving = Serving::new(Keyring::new(keys_rx), "mirrord-webhook", "mirrord", now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop_tx, stop_rx) = watch::channel(false);
        let task = tokio::spawn(https::serve(listener, serving.tls().unwrap(), routes, BOUNDS, stop_rx));
        Self { keys, address, stop_tx, task }
    }

    async fn connect(&self, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_from([127, 0, 0, 1], name).await
    }

    async fn connect_from(&self, from: [u8; 4], name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(self.address).await?;
        TlsConnector::from(Arc::new(tls(&self.keys.authority)))
            .connect(ServerName::try_from(name).unwrap(), stream)
            .await
    }
}

async fn send(stream: &mut TlsStream<TcpStream>, body: &str) {
    let length = body.len();
    let request = format!(
        "POST /sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn the_certificate_is_for_the_services_name_and_no_other() {
    let server = Server::start(Router::new().route("/sessions", post(|body: String| async { body }))).await;
    let mut stream = server.connect(NAME).await.unwrap();
    send(&mut stream, "hello").await;
    let answer = answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    assert!(server.connect("another-webhook.mirrord.svc").await.is_err());
}

#[tokio::test]
async fn a_crowd_of_connections_keeps_nobody_else_out() {
    let server = Server::start(Router::new().route("/sessions", post(|body: String| async { body }))).await;
    let mut early = server.connect_from([127, 0, 0, 2], NAME).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..3 * BOUNDS.total {
        // Half of them don't even begin TLS.
        crowd.push(TcpStream::connect(server.address).await.unwrap());
        crowd.push(server.connect(NAME).await.unwrap().into_inner().0);
    }
    send(&mut early, "early").await;
    assert!(answer(&mut early).await.ends_with("early"));
    let mut late = server.connect_from([127, 0, 0, 3], NAME).await.unwrap();
    send(&mut late, "late").await;
    assert!(answer(&mut late).await.ends_with("late"));
    // Who came first was closed for who came later.
    let mut byte = [0];
    let closed = tokio::time::timeout(PATIENCE, crowd[0].read(&mut byte)).await.expect("it is still open");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn a_review_under_way_is_answered_though_the_process_stops() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes_on) = (begun.clone(), go_on.clone());
    let slow = post(move || async move {
        begins.notify_one();
        goes_on.notified().await;
        "done"
    });
    let server = Server::start(Router::new().route("/sessions", slow)).await;
    let mut stream = server.connect(NAME).await.unwrap();
    send(&mut stream, "").await;
    begun.notified().await;
    server.stop_tx.send_replace(true);
    let closed = async { while TcpStream::connect(server.address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("it takes new connections");
    go_on.notify_one();
    assert!(answer(&mut stream).await.ends_with("done"));
    tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap();
}

fn trusting(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    roots
}

#[tokio::test]
async fn the_self_test_passes_by_the_services_authority_and_name_only() {
    let server = Server::start(Router::new()).await;
    let address = server.address.to_string();
    self_test::ask(&address, NAME, trusting(&server.keys.authority)).await.unwrap();
    let other = Authority::create(now()).unwrap();
    let error = self_test::ask(&address, NAME, trusting(&other)).await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    let elsewhere =
        self_test::ask(&address, "x.mirrord.svc", trusting(&server.keys.authority)).await.unwrap_err();
    assert!(elsewhere.to_string().contains("not valid for name"), "{elsewhere}");
}

#[tokio::test]
async fn the_self_test_tells_another_server_from_the_webhook() {
    let server = Server::start(Router::new().fallback(|| async { "welcome" })).await;
    let asked = self_test::ask(&server.address.to_string(), NAME, trusting(&server.keys.authority)).await;
    assert!(matches!(asked, Err(TestError::Stranger { answer, .. }) if answer.starts_with("HTTP/1.1 200")));
}

#[tokio::test]
async fn the_self_test_hears_that_nothing_listens_where_the_ingress_should() {
    let listening = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = listening.local_addr().unwrap().to_string();
    self_test::knock(&address).await.unwrap();
    drop(listening);
    let error = self_test::knock(&address).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}
