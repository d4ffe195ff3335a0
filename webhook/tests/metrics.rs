//! The metrics as Prometheus gets them, after the real servers answered reviews. One test a process, for they are the
//! process's: so what is counted is exact.

mod support;

use std::sync::Arc;

use mirrord_certs::SelfSigned;
use mirrord_protocol::boot::{Report, Requests};
use mirrord_session::{Session, SessionPod, SessionSpec, SessionStatus, session_name};
use mirrord_telemetry::exposition::{self, Family};
use mirrord_webhook::{
    certificates::serving::Serving,
    metrics,
    server::{
        connections::Bounds,
        health::{self, Health},
        https, routes,
    },
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use support::{
    PATIENCE, now,
    plane::{NAME, Plane, tls},
    twin::{Manners, Twin},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsConnector;

/// A control plane with all its listeners.
struct ControlPlane {
    plane: Plane,
    https: std::net::SocketAddr,
    health: std::net::SocketAddr,
    _stop_tx: watch::Sender<bool>,
}

impl ControlPlane {
    async fn start() -> Self {
        let plane = Plane::start().await;
        let (prepare, _boot) = plane.replica();
        let answerers = plane.answerers(prepare);
        let configuration = plane.configuration_tx.subscribe();
        let serving = Serving::new(plane.keyring(), "mirrord-webhook", "mirrord", now()).unwrap();
        let (https_listener, health_listener) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let addresses = (https_listener.local_addr().unwrap(), health_listener.local_addr().unwrap());
        let (stop_tx, stopping) = watch::channel(false);
        let health =
            Health { configuration, limit_ranges: watch::channel(true).1, stopping: stopping.clone() };
        tokio::spawn(health::serve(health_listener, health, metrics::registry()));
        let routes = routes::router(answerers, plane.keyring());
        tokio::spawn(https::serve(
            https_listener,
            serving.tls().unwrap(),
            routes,
            Bounds::default(),
            stopping,
        ));
        Self { plane, https: addresses.0, health: addresses.1, _stop_tx: stop_tx }
    }

    /// Posts as the API server does; the answer's status line.
    async fn post(&self, path: &str, body: &Value) -> String {
        let name = ServerName::try_from(NAME).unwrap();
        let stream = TcpStream::connect(self.https).await.unwrap();
        let stream = TlsConnector::from(Arc::new(tls(&self.plane.keys().authority)))
            .connect(name, stream)
            .await
            .unwrap();
        let answer = ask(stream, &format!("POST {path}"), &body.to_string()).await;
        answer.lines().next().unwrap().to_owned()
    }

    /// What Prometheus gets.
    async fn scrape(&self) -> Vec<Family> {
        let stream = TcpStream::connect(self.health).await.unwrap();
        let answer = ask(stream, "GET /metrics", "").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        exposition::parse(body).unwrap()
    }

    /// Waits until a counter has a value.
    async fn until(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
        let reached = async {
            while exposition::sum(&self.scrape().await, name, labels) != Some(value) {
                looks.tick().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        assert!(
            reached.is_ok(),
            "{name} {labels:?} is {:?}",
            exposition::sum(&self.scrape().await, name, labels)
        );
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str, body: &str) -> String {
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\nHost: it\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

fn pod_review(labels: &Value) -> Value {
    let pod = json!({
        "metadata": { "labels": labels },
        "spec": { "containers": [{ "name": "app", "image": "app" }] },
    });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE",
        "namespace": "shop", "object": pod,
    }})
}

/// A stored session of one sidecar.
fn session(twin: &Twin) -> Session {
    let key = SelfSigned::generate().unwrap().public_key();
    let mut session = Session::new(&session_name(&key), SessionSpec::default().with_public_key(&key));
    session.metadata.namespace = Some("shop".into());
    session.metadata.creation_timestamp =
        Some(serde_json::from_value(json!("2100-01-01T00:00:00Z")).unwrap());
    let pod = SessionPod {
        name: "pod".into(),
        uid: twin.uid.clone(),
        route: twin.route.to_string(),
        address: twin.address.ip().to_string(),
        port: twin.address.port(),
        gate_token: String::new(),
    };
    session.status = Some(SessionStatus {
        features: vec!["env".into()],
        container: "app".into(),
        pods: vec![pod],
        expires_at: now() + 300,
        deadline: now() + 3600,
        ..SessionStatus::default()
    });
    session
}

/// What a sidecar did, and something of a later release.
fn report() -> Report {
    let requests = |request: &str, served, refused| Requests {
        request: request.into(),
        served,
        refused,
        ..Requests::default()
    };
    Report {
        software: concat!("mirrord-agent ", env!("CARGO_PKG_VERSION")).into(),
        wakes: 1,
        sessions: 2,
        requests: vec![requests("open", 3, 1), requests("teleport", 5, 0)],
        file_bytes: 4096,
        ..Report::default()
    }
}

#[tokio::test]
async fn a_scrape_shows_what_was_answered_and_what_sidecars_did() {
    let plane = ControlPlane::start().await;
    let key = plane.plane.keys().path_key.clone();
    let inject = format!("/inject/{key}");
    for (labels, times) in [(json!({}), 2), (json!({ "mirrord.dev/inject": "disabled" }), 1)] {
        for _ in 0..times {
            assert!(plane.post(&inject, &pod_review(&labels)).await.contains("200"));
        }
    }
    assert!(plane.post("/inject/wrong", &json!({})).await.contains("404"));
    let nonsense = json!({ "request": { "uid": "u", "operation": "CREATE", "userInfo": {} } });
    assert!(plane.post(&format!("/sessions/{key}"), &nonsense).await.contains("200"));
    assert!(plane.post(&format!("/sessions/{key}"), &json!({})).await.contains("400"));

    let families = plane.scrape().await;
    let is = |name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(exposition::sum(&families, name, labels), Some(value), "{name} {labels:?}");
    };
    is("mirrord_webhook_pod_reviews_total", &[("result", "injected")], 2.0);
    is("mirrord_webhook_pod_reviews_total", &[("result", "skipped"), ("reason", "opted_out")], 1.0);
    is("mirrord_webhook_pod_reviews_total", &[("result", "failed")], 0.0);
    is("mirrord_webhook_pod_review_duration_seconds_count", &[], 3.0);
    is("mirrord_webhook_session_reviews_total", &[("verdict", "denied"), ("code", "bad_session")], 1.0);
    is("mirrord_webhook_requests_refused_total", &[("reason", "wrong_path")], 1.0);
    is("mirrord_webhook_requests_refused_total", &[("reason", "unreadable")], 1.0);
    is("mirrord_webhook_connections_opened_total", &[], 6.0);
    is("mirrord_webhook_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let expiry = exposition::sum(
        &families,
        "mirrord_webhook_certificate_expiry_timestamp_seconds",
        &[("certificate", "serving")],
    );
    assert!(expiry.unwrap() > now() as f64 + 80.0 * 86400.0, "{expiry:?}");

    plane.plane.api.know_token("token", "shop", "pod-1");
    let manners = Manners { reports: vec![report()], ..Manners::proper("token") };
    let mut twin = Twin::start(&plane.plane.keys().authority, "pod-1", manners);
    let session = session(&twin);
    plane.plane.api.store(&session);
    twin.announced().await;
    plane.until("mirrord_sidecar_sessions_total", &[], 2.0).await;
    plane.until("mirrord_webhook_sessions_live", &[], 1.0).await;
    plane.until("mirrord_webhook_sidecars_tended", &[], 1.0).await;
    let families = plane.scrape().await;
    let is = |name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(exposition::sum(&families, name, labels), Some(value), "{name} {labels:?}");
    };
    is("mirrord_sidecar_requests_total", &[("request", "open"), ("result", "served")], 3.0);
    is("mirrord_sidecar_requests_total", &[("request", "open"), ("result", "refused")], 1.0);
    is("mirrord_sidecar_requests_total", &[("request", "other")], 5.0);
    is("mirrord_sidecar_files_read_bytes_total", &[], 4096.0);
    is("mirrord_webhook_sidecars_enrolled_total", &[("release", "same")], 1.0);
    is("mirrord_webhook_boot_calls_total", &[("call", "report"), ("result", "answered")], 1.0);
    plane.plane.api.delete(&session);
    plane.until("mirrord_webhook_sessions_stored", &[], 0.0).await;
    plane.until("mirrord_webhook_boot_calls_total", &[("call", "report")], 2.0).await;
    plane.until("mirrord_webhook_sidecars_tended", &[], 0.0).await;
}
