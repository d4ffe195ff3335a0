//! The program itself, with an API server that knows only how to list and watch Sessions.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{Json, Router, body::Body, extract::RawQuery, response::IntoResponse, routing::get};
use mirrord_telemetry::exposition;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{Gate, PATIENCE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};

/// Lists no Sessions, once it may, and then tells of no changes.
async fn api_server(may_list: Arc<Notify>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sessions = async move |RawQuery(query): RawQuery| {
        if query.is_some_and(|query| query.contains("watch=true")) {
            return Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>())
                .into_response();
        }
        may_list.notified().await;
        let (version, kind) = ("mirrord.dev/v1alpha1", "SessionList");
        let list = json!({ "apiVersion": version, "kind": kind, "metadata": { "resourceVersion": "1" }, "items": [] });
        Json(list).into_response()
    };
    let app = Router::new().route("/apis/mirrord.dev/v1alpha1/sessions", get(sessions));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn kubeconfig(folder: &std::path::Path, server: &str) -> std::path::PathBuf {
    let path = folder.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": { "server": server } }],
        "users": [{ "name": "it", "user": {} }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A process that doesn't outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(arguments: &[&str], kubeconfig: &std::path::Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_mirrord-ingress"))
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Lines of its log, as they come.
    fn log(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.0.stderr.take().unwrap()).lines().map_while(Result::ok)
    }

    fn terminate(&self) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    async fn ended(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.0.wait().unwrap()).await.unwrap()
    }
}

/// What answers a request, or nothing where nobody listens.
async fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn until(port: u16, path: &str, status: &str) {
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    timeout(PATIENCE, async {
        let answered = |answer: &str| answer.lines().next().is_some_and(|line| line.contains(status));
        while ask(port, path).await.is_none_or(|answer| !answered(&answer)) {
            pause.tick().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{path} never answers {status}"));
}

#[tokio::test]
async fn it_is_ready_after_the_first_list_and_ends_well_on_sigterm() {
    let (gate, may_list) = (Gate::new(), Arc::new(Notify::new()));
    let server = api_server(Arc::clone(&may_list)).await;
    let kubeconfig = kubeconfig(gate.folder.path(), &server);
    let (any, keys) = ("127.0.0.1:0", gate.folder.path().to_str().unwrap());
    let arguments = ["--listen", any, "--health-listen", any, "--gate-keys", keys];
    let mut process = Process::start(&arguments, &kubeconfig);
    let mut log = process.log();
    let port = log.find_map(|line| Some(line.split_once("health=127.0.0.1:")?.1.trim().to_owned())).unwrap();
    let port = port.parse().unwrap();
    std::thread::spawn(move || log.for_each(drop));
    until(port, "/livez", "200").await;
    until(port, "/readyz", "503").await;
    may_list.notify_one();
    until(port, "/readyz", "200").await;
    let answer = ask(port, "/metrics").await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    let families = exposition::parse(body).unwrap();
    let metric = |name| exposition::sum(&families, name, &[]);
    assert_eq!(metric("mirrord_ingress_gate_keys"), Some(1.0));
    assert_eq!(metric("mirrord_ingress_flows"), Some(0.0));
    assert_eq!(metric("mirrord_ingress_build_info"), Some(1.0));
    process.terminate();
    until(port, "/readyz", "503").await;
    assert!(timeout(PATIENCE, process.ended()).await.unwrap().success());
}

#[tokio::test]
async fn without_a_gate_key_it_says_so_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = kubeconfig(folder.path(), "http://127.0.0.1:1");
    let keys = folder.path().join("nowhere");
    let process =
        Process::start(&["--listen", "127.0.0.1:0", "--gate-keys", keys.to_str().unwrap()], &kubeconfig);
    assert!(!timeout(PATIENCE, process.ended()).await.unwrap().success());
}

#[tokio::test]
async fn machines_can_read_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = kubeconfig(folder.path(), "http://127.0.0.1:1");
    let keys = folder.path().join("no\nwhere");
    let arguments =
        ["--listen", "127.0.0.1:0", "--gate-keys", keys.to_str().unwrap(), "--log-format", "json"];
    let mut process = Process::start(&arguments, &kubeconfig);
    let log = process.log();
    let lines: Vec<String> = tokio::task::spawn_blocking(|| log.collect()).await.unwrap();
    let last: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!((&last["level"], &last["message"]), (&json!("ERROR"), &json!("cannot start")));
    assert!(last["error"].as_str().unwrap().contains("no\nwhere"), "{last}");
}
