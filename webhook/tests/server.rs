//! The HTTPS server as the API server sees it.

mod support;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, routing::post};
use mirrord_certs::Authority;
use mirrord_webhook::{certificates::serving::Serving, server::https};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use support::{PATIENCE, now};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

struct Server {
    authority: Arc<Authority>,
    address: std::net::SocketAddr,
    stop_tx: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(routes: Router) -> Self {
        let authority = Arc::new(Authority::create(now()).unwrap());
        let serving = Serving::new(authority.clone(), "mirrord-webhook", "mirrord", now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop_tx, stop_rx) = watch::channel(false);
        let task = tokio::spawn(https::serve(listener, serving.tls().unwrap(), routes, stop_rx));
        Self { authority, address, stop_tx, task }
    }

    async fn connect(&self, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await
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
    let mut stream = server.connect("mirrord-webhook.mirrord.svc").await.unwrap();
    send(&mut stream, "hello").await;
    let answer = answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    assert!(server.connect("another-webhook.mirrord.svc").await.is_err());
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let routes = Router::new().route("/sessions", post(|body: String| async { body }));
    let server = Server::start(routes.layer(DefaultBodyLimit::max(10))).await;
    let mut stream = server.connect("mirrord-webhook.mirrord.svc").await.unwrap();
    send(&mut stream, "hello, hello").await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 413"));
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
    let mut stream = server.connect("mirrord-webhook.mirrord.svc").await.unwrap();
    send(&mut stream, "").await;
    begun.notified().await;
    server.stop_tx.send_replace(true);
    let closed = async { while TcpStream::connect(server.address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("it takes new connections");
    go_on.notify_one();
    assert!(answer(&mut stream).await.ends_with("done"));
    tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap();
}
