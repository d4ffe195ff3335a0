//! An API server shows webhooks no certificate, so any pod can post a review of its own making. It gets an answer, and
//! nothing else: sidecars serve only what the control plane read back from the API server's store.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use mirrord_certs::SelfSigned;
use mirrord_cli::tunnel::{Patience, dial::Dialler, failure::DialError};
use mirrord_e2e::{
    cluster::cluster,
    namespace::Namespace,
    run::{Run, until},
    shop::NAMESPACE,
};
use mirrord_protocol::feature::Feature;
use mirrord_session::{SessionSpec, SessionStatus, session_name};
use serde_json::{Value, json};

struct Forger {
    key: Arc<SelfSigned>,
}

impl Forger {
    fn new() -> Self {
        Self { key: Arc::new(SelfSigned::generate().unwrap()) }
    }

    fn session(&self) -> Value {
        let public_key = &self.key.public_key();
        let spec = SessionSpec {
            target: Some("deployment/checkout".to_owned()),
            features: vec!["env".to_owned(), "secrets".to_owned()],
            ..SessionSpec::default()
        };
        json!({
            "apiVersion": "mirrord.dev/v1alpha1", "kind": "Session",
            "metadata": {"name": session_name(public_key), "namespace": NAMESPACE},
            "spec": spec.with_public_key(public_key),
        })
    }

    /// The review that the API server would send if `admin` created the session.
    fn review(&self) -> Value {
        let kind = json!({"group": "mirrord.dev", "version": "v1alpha1", "kind": "Session"});
        let resource = json!({"group": "mirrord.dev", "version": "v1alpha1", "resource": "sessions"});
        let session = self.session();
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "0c1b5f0e-6f57-4c11-9e9b-1f0a6a0f7d11",
                "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
                "name": session["metadata"]["name"], "namespace": NAMESPACE, "operation": "CREATE",
                "userInfo": {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]},
                "object": session, "oldObject": null, "dryRun": false,
                "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
            },
        })
    }

    async fn dial(&self, status: &SessionStatus) -> Result<Vec<String>, DialError> {
        let dialler =
            Dialler::new(self.key.clone(), vec![Feature::Env, Feature::Secrets], Patience::default());
        dialler.dial(status).await.map(|tunnel| vec![format!("{tunnel:?}")])
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// The status that an admission answer's patch puts into the session.
fn status_in(answer: &str) -> SessionStatus {
    let answer: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let patch = STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    let status = patch.as_array().unwrap().iter().find(|change| change["path"] == "/status").unwrap();
    serde_json::from_value(status["value"].clone()).unwrap()
}

#[test]
fn a_forged_review_is_not_answered_and_if_it_were_it_would_open_nothing() {
    let attackers = Namespace::plain("attackers");
    attackers.deploy("attacker", |_| ());
    let forger = Forger::new();
    let posted = |path: &str| {
        let post = [
            "exec",
            "-i",
            "--namespace",
            attackers.name(),
            "deployment/attacker",
            "--",
            "curl",
            "-sSk",
            // curl 7.88 takes an answer that comes before it has sent all for an error of HTTP/2.
            "--http1.1",
            "-H",
        ];
        let url = format!("https://mirrord-webhook.mirrord.svc{path}");
        let rest =
            ["Content-Type: application/json", "--write-out", "%{http_code}", "--data-binary", "@-", &url];
        let mut curl = cluster().kubectl(&[&post[..], &rest].concat());
        Run::with_input(&mut curl, forger.review().to_string().as_bytes()).succeeded().text()
    };
    let key = "0123456789abcdef0123456789abcdef";
    for guess in ["/sessions", "/inject", &format!("/sessions/{key}"), &format!("/inject/{key}")] {
        assert_eq!(posted(guess), "404", "{guess}");
    }
    // An admin's credentials would tell the path.
    let answer = posted(&cluster().webhook_path("sessions.mirrord.dev"));
    let status = status_in(answer.strip_suffix("200").expect("answered"));
    assert!(!status.pods.is_empty(), "the attacker knows the pods and their gate tokens");

    let refused = runtime().block_on(forger.dial(&status)).unwrap_err();
    assert!(matches!(refused, DialError::Refused { .. } | DialError::Silent { .. }), "{refused}");
    let name = forger.session()["metadata"]["name"].clone();
    let stored = cluster().list("sessions.mirrord.dev", NAMESPACE);
    assert!(stored.iter().all(|session| session["metadata"]["name"] != name), "nothing was stored");
}

/// The control of the test above, and more: with the key announced the very same dialling works; with another key, which
/// nobody announced, all else being what a granted session has, it doesn't.
#[test]
fn only_the_announced_key_is_served() {
    let (announced, other) = (Forger::new(), Forger::new());
    cluster().apply(&announced.session());
    let name = announced.session()["metadata"]["name"].as_str().unwrap().to_owned();
    let stored = cluster().get(&["sessions.mirrord.dev", &name, "--namespace", NAMESPACE]);
    let status: SessionStatus = serde_json::from_value(stored["status"].clone()).unwrap();

    let runtime = runtime();
    runtime.block_on(announced.dial(&status)).unwrap();
    let refused = runtime.block_on(other.dial(&status)).unwrap_err();
    assert!(matches!(refused, DialError::Refused { .. }), "{refused}");

    cluster().run(&["delete", "sessions.mirrord.dev", &name, "--namespace", NAMESPACE]);
    until(std::time::Duration::from_secs(10), "the deleted session's key to be refused", || {
        runtime.block_on(announced.dial(&status)).is_err().then_some(())
    });
}

#[test]
fn a_key_under_another_keys_name_is_refused_by_the_api_server() {
    let (one, other) = (Forger::new(), Forger::new());
    let mut session = one.session();
    session["metadata"]["name"] = other.session()["metadata"]["name"].clone();
    let mut create = cluster().kubectl(&["create", "--filename", "-"]);
    let refused = Run::with_input(&mut create, session.to_string().as_bytes());
    let _ = refused.failed_with(1, &["name", "key"]);
}
