//! A small API server: objects by path, rights, tokens, and a log of Sessions that is listed and watched.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex, Once},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use kube::{Client, Config};
use mirrord_session::Session;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::PATIENCE;

const SESSIONS: &str = "/apis/mirrord.dev/v1alpha1/sessions";

/// The state that tests write.
pub(crate) struct ApiServer {
    objects: Mutex<HashMap<String, Value>>,
    grants: Mutex<HashSet<(String, String, String)>>,
    tokens: Mutex<HashMap<String, (String, String)>>,
    log: watch::Sender<Log>,
    events: watch::Sender<Vec<Value>>,
}

/// All that happened to Sessions; entry n has resource version n + 1.
#[derive(Default)]
struct Log {
    events: Vec<Value>,
    stored: HashMap<String, Value>,
}

impl ApiServer {
    /// Starts one.
    pub(crate) async fn start() -> (Arc<Self>, Client) {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let server = Arc::new(Self {
            objects: Mutex::default(),
            grants: Mutex::default(),
            tokens: Mutex::default(),
            log: watch::channel(Log::default()).0,
            events: watch::Sender::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let config = Config::new(format!("http://{address}").parse().unwrap());
        (server, Client::try_from(config).unwrap())
    }

    /// Puts an object or a list where it will be looked for.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    /// Allows a user a verb on a workload.
    pub(crate) fn grant(&self, user: &str, verb: &str, workload: &str) {
        self.grants.lock().unwrap().insert((user.into(), verb.into(), workload.into()));
    }

    /// Makes a token known, bound to a pod.
    pub(crate) fn know_token(&self, token: &str, namespace: &str, pod_uid: &str) {
        self.tokens.lock().unwrap().insert(token.into(), (namespace.into(), pod_uid.into()));
    }

    /// Stores a Session, as after its admission.
    pub(crate) fn store(&self, session: &Session) {
        self.record("ADDED", session);
    }

    /// Deletes a stored Session.
    pub(crate) fn delete(&self, session: &Session) {
        self.record("DELETED", session);
    }

    /// Names of the Sessions that are there.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.log.borrow().stored.keys().cloned().collect()
    }

    /// Waits until so many Events were written, and gives all there are by then.
    pub(crate) async fn events(&self, count: usize) -> Vec<Value> {
        let mut events = self.events.subscribe();
        let enough = tokio::time::timeout(PATIENCE, events.wait_for(|events| events.len() >= count)).await;
        enough.unwrap_or_else(|_| panic!("no {count} Events: {:?}", self.events.borrow())).unwrap().clone()
    }

    /// Takes an Event, unless there is one of its name.
    fn take_event(&self, event: Value) -> Response {
        let is_new = self.events.send_if_modified(|events| {
            let is_new = events.iter().all(|there| there["metadata"]["name"] != event["metadata"]["name"]);
            if is_new {
                events.push(event.clone());
            }
            is_new
        });
        if is_new { Json(event).into_response() } else { refusal(StatusCode::CONFLICT, "AlreadyExists", "") }
    }

    fn record(&self, kind: &str, session: &Session) {
        self.log.send_modify(|log| {
            let mut object = serde_json::to_value(session).unwrap();
            object["metadata"]["resourceVersion"] = json!((log.events.len() + 1).to_string());
            let name = session.metadata.name.clone().unwrap();
            match kind {
                "DELETED" => log.stored.remove(&name),
                _ => log.stored.insert(name, object.clone()),
            };
            log.events.push(json!({ "type": kind, "object": object }));
        });
    }

    fn list(&self) -> Value {
        let log = self.log.borrow();
        let items: Vec<&Value> = log.stored.values().collect();
        json!({
            "apiVersion": "mirrord.dev/v1alpha1", "kind": "SessionList", "items": items,
            "metadata": { "resourceVersion": log.events.len().to_string() },
        })
    }

    fn watch(&self, from: usize) -> Body {
        let seen = (self.log.subscribe(), from);
        Body::from_stream(futures::stream::unfold(seen, |(mut log, from)| async move {
            let new: Vec<Value> =
                log.wait_for(|log| log.events.len() > from).await.ok()?.events[from..].to_vec();
            let lines: String = new.iter().map(|event| format!("{event}\n")).collect();
            Some((Ok::<_, Infallible>(lines), (log, from + new.len())))
        }))
    }

    fn delete_request(&self, path: &str) -> Response {
        let name = path.rsplit('/').next().unwrap_or_default();
        let stored = self.log.borrow().stored.get(name).cloned();
        match stored {
            Some(session) => {
                self.delete(&serde_json::from_value(session.clone()).unwrap());
                Json(session).into_response()
            }
            None => not_found(path),
        }
    }

    fn access_review(&self, mut review: Value) -> Value {
        let text =
            |pointer: &str| review.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let asked = (
            text("/spec/user"),
            text("/spec/resourceAttributes/verb"),
            text("/spec/resourceAttributes/name"),
        );
        let allowed = self.grants.lock().unwrap().contains(&asked);
        review["status"] = json!({ "allowed": allowed });
        review
    }

    fn token_review(&self, mut review: Value) -> Value {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let status = match self.tokens.lock().unwrap().get(token) {
            None => json!({ "authenticated": false, "error": "unknown token" }),
            Some((namespace, uid)) => json!({
                "authenticated": true, "audiences": review["spec"]["audiences"],
                "user": {
                    "username": format!("system:serviceaccount:{namespace}:default"),
                    "extra": { "authentication.kubernetes.io/pod-uid": [uid] },
                },
            }),
        };
        review["status"] = status;
        review
    }
}

async fn answer(State(server): State<Arc<ApiServer>>, method: Method, uri: Uri, body: String) -> Response {
    let path = uri.path();
    let query: HashMap<&str, &str> =
        uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let sent = || serde_json::from_str::<Value>(&body).unwrap();
    match (method, path) {
        (Method::GET, SESSIONS) if query.get("watch") == Some(&"true") => {
            Body::into_response(server.watch(query["resourceVersion"].parse().unwrap()))
        }
        (Method::GET, SESSIONS) => Json(server.list()).into_response(),
        (Method::DELETE, path) => server.delete_request(path),
        (Method::POST, path) if path.ends_with("/subjectaccessreviews") => {
            Json(server.access_review(sent())).into_response()
        }
        (Method::POST, path) if path.ends_with("/tokenreviews") => {
            Json(server.token_review(sent())).into_response()
        }
        (Method::POST, path) if path.starts_with("/apis/events.k8s.io/v1/") => server.take_event(sent()),
        (_, path) => match server.objects.lock().unwrap().get(path) {
            Some(object) => Json(object.clone()).into_response(),
            None => not_found(path),
        },
    }
}

fn not_found(path: &str) -> Response {
    refusal(StatusCode::NOT_FOUND, "NotFound", path)
}

fn refusal(code: StatusCode, reason: &str, what: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16(),
        "message": format!("{what}: {reason}"),
    });
    (code, Json(status)).into_response()
}
