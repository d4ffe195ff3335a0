//! What people are told of sessions: lines of the audit, and Events.

mod support;

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use mirrord_certs::SelfSigned;
use mirrord_session::{Creator, Session, SessionPod, SessionSpec, SessionStatus, session_name};
use serde_json::{Value, json};
use support::{
    PATIENCE, now,
    plane::Plane,
    twin::{Manners, Told, Twin},
};

/// Lines of the log, of all tests of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The log, in the chart's format.
    fn of_this_process() -> &'static Self {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            let writer = log.clone();
            let lines = tracing_subscriber::fmt().json().flatten_event(true);
            lines.with_max_level(tracing::Level::INFO).with_writer(move || writer.clone()).init();
            log
        });
        &LOG
    }

    /// Audit lines about a session.
    fn audit(&self, session: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        lines.filter(|line| line["target"] == "mirrord::audit" && line["session"] == session).collect()
    }

    /// Waits until there are so many of them.
    async fn audited(&self, session: &str, count: usize) -> Vec<Value> {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
        let enough = async {
            while self.audit(session).len() < count {
                looks.tick().await;
            }
        };
        let enough = tokio::time::timeout(PATIENCE, enough).await;
        assert!(enough.is_ok(), "{:?}", self.audit(session));
        self.audit(session)
    }
}

/// The only one of a list.
fn only(mut lines: Vec<Value>) -> Value {
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// An installation with Deployment `checkout`.
async fn plane() -> Plane {
    let plane = Plane::start().await;
    let meta = json!({ "name": "checkout", "namespace": "shop", "uid": "uid-checkout" });
    let deployment = json!({ "metadata": meta, "spec": { "selector": {}, "template": {} } });
    plane.api.put("/apis/apps/v1/namespaces/shop/deployments/checkout", deployment);
    plane
}

fn stored(name_of: &SelfSigned, twin: &Twin) -> Session {
    let key = name_of.public_key();
    let mut session = Session::new(&session_name(&key), SessionSpec::default().with_public_key(&key));
    session.metadata.namespace = Some("shop".into());
    session.metadata.uid = Some("uid-session".into());
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
        creator: Creator { username: "eve\n\u{1b}[2J".into(), uid: "7".into() },
        workload: "deployment.checkout".into(),
        features: vec!["env".into(), "files".into()],
        container: "app".into(),
        pods: vec![pod],
        expires_at: now() + 300,
        deadline: now() + 3600,
        ..SessionStatus::default()
    });
    session
}

#[tokio::test]
async fn of_two_replicas_one_tells_of_a_sessions_start_and_end() {
    let log = Log::of_this_process();
    let plane = plane().await;
    plane.api.know_token("token", "shop", "pod-1");
    let mut twin = Twin::start(&plane.keys().authority, "pod-1", Manners::proper("token"));
    // Of what is there before they look, nobody tells; once both have told the sidecar of it, both look.
    plane.api.store(&stored(&SelfSigned::generate().unwrap(), &twin));
    let _replicas = (plane.replica(), plane.replica());
    for _ in 0..2 {
        assert_eq!(twin.announced().await.sessions.len(), 1);
    }

    let session = stored(&SelfSigned::generate().unwrap(), &twin);
    let name = session.metadata.name.clone().unwrap();
    plane.api.store(&session);
    let events = plane.api.events(2).await;
    let about = |events: &[Value], kind: &str| -> Value {
        let of = |event: &&Value| {
            event["regarding"]["kind"] == kind && event["note"].as_str().unwrap().contains(&name)
        };
        events.iter().rfind(of).cloned().unwrap_or_else(|| panic!("none on {kind}: {events:?}"))
    };
    let on_workload = about(&events, "Deployment");
    assert_eq!(on_workload["reason"], "SessionStarted");
    assert_eq!(on_workload["regarding"]["uid"], "uid-checkout");
    assert_eq!(on_workload["regarding"]["apiVersion"], "apps/v1");
    assert_eq!(on_workload["related"]["kind"], "Session");
    assert_eq!(on_workload["metadata"]["namespace"], "shop");
    let note = format!(r#""eve\n\u{{1b}}[2J" started session {name} in container "app": env, files"#);
    assert_eq!(on_workload["note"], note, "nothing from outside moves a terminal's cursor");
    assert_eq!(about(&events, "Session")["regarding"]["uid"], "uid-session");

    plane.api.delete(&session);
    let events = plane.api.events(3).await;
    assert_eq!(events.len(), 3, "one replica's each: {events:?}");
    let ended = about(&events, "Deployment");
    assert_eq!(ended["reason"], "SessionEnded");
    assert!(ended["note"].as_str().unwrap().ends_with("ended: it was deleted"), "{ended}");
    let line = only(log.audited(&name, 1).await);
    assert_eq!(line["message"], "session ended");
    assert_eq!(line["user"], "eve\n\u{1b}[2J");
    assert_eq!((&line["workload"], &line["pods"]), (&json!("deployment.checkout"), &json!(1)));
    assert_eq!(line["reason"], "it was deleted");
}

#[tokio::test]
async fn each_decision_is_one_line_that_nobody_outside_can_forge() {
    let log = Log::of_this_process();
    let plane = plane().await;
    let sessions = plane.sessions(plane.replica().0);
    let key = SelfSigned::generate().unwrap().public_key();
    let spec = SessionSpec {
        target: Some("deployment/none".into()),
        features: vec!["env".into()],
        ..SessionSpec::default()
    };
    let session = Session::new(&session_name(&key), spec.with_public_key(&key));
    let name = session.metadata.name.clone().unwrap();
    let user = "eve\n{\"target\":\"mirrord::audit\",\"verdict\":\"granted\"}";
    let review = |dry_run: bool| {
        let user = json!({ "username": user, "uid": "7", "groups": ["a", "b"] });
        let request = json!({
            "uid": "u-1", "operation": "CREATE", "namespace": "shop", "userInfo": user, "dryRun": dry_run,
            "object": session,
        });
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
            .to_string()
    };
    sessions.review(review(true).as_bytes()).await.unwrap();
    sessions.review(review(false).as_bytes()).await.unwrap();
    let line = only(log.audit(&name));
    let expected = [
        ("message", json!("session refused")),
        ("verdict", json!("refused")),
        ("user", json!(user)),
        ("uid", json!("7")),
        ("groups", json!(2)),
        ("namespace", json!("shop")),
        ("code", json!("not_found")),
        ("features", json!("")),
        ("pods", json!(0)),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert!(line["reason"].as_str().unwrap().contains("deployment/none"), "{line}");
}

#[tokio::test]
async fn a_sidecar_of_the_first_release_is_never_asked_what_it_did() {
    let plane = plane().await;
    plane.api.know_token("token", "shop", "pod-1");
    let manners = Manners { version: 0, ..Manners::proper("token") };
    let mut twin = Twin::start(&plane.keys().authority, "pod-1", manners);
    let _replica = plane.replica();
    let session = stored(&SelfSigned::generate().unwrap(), &twin);
    plane.api.store(&session);
    assert_eq!(twin.announced().await.sessions.len(), 1);
    plane.api.delete(&session);
    assert_eq!(twin.announced().await.sessions.len(), 0);
    let told = twin.told().await;
    assert!(matches!(told, Told::HungUp), "{told:?}");
}

#[tokio::test]
async fn a_pod_whose_sidecar_stays_away_gets_one_event_that_says_why() {
    let plane = plane().await;
    plane.api.know_token("token", "shop", "another-pod");
    let twin = Twin::start(&plane.keys().authority, "pod-1", Manners::proper("token"));
    let _replicas = (plane.replica(), plane.replica());
    plane.api.store(&stored(&SelfSigned::generate().unwrap(), &twin));
    let unreachable = |events: &[Value]| -> Vec<Value> {
        events.iter().filter(|event| event["reason"] == "SidecarUnreachable").cloned().collect()
    };
    let mut count = 1;
    let found = loop {
        let events = plane.api.events(count).await;
        if let [event] = unreachable(&events).as_slice() {
            break event.clone();
        }
        count = events.len() + 1;
    };
    assert_eq!((&found["type"], &found["regarding"]["kind"]), (&json!("Warning"), &json!("Pod")));
    assert_eq!(found["regarding"]["uid"], "pod-1");
    assert!(found["note"].as_str().unwrap().contains("bound to pod"), "{found}");
}
