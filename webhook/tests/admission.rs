//! Reviews of Sessions, end to end against an API server that is played here.

mod support;

use base64::{Engine, engine::general_purpose::STANDARD};
use mirrord_certs::{Authority, SelfSigned};
use mirrord_protocol::route::RouteId;
use mirrord_session::{Creator, Session, SessionSpec, SessionStatus, session_name};
use mirrord_webhook::{
    certificates::bundle::Configuration,
    sessions::{Sessions, crowd::Crowd},
};
use serde_json::{Value, json};
use support::{api_server::ApiServer, now, plane::Plane};
use tokio::sync::watch;

struct Shop {
    plane: Plane,
    sessions: Sessions,
}

impl Shop {
    /// Deployment `checkout` with two pods, of which `old` has no sidecar; StatefulSet `database` without any.
    async fn open() -> Self {
        let plane = Plane { per_user: 2, ..Plane::start().await };
        let (_boot, prepare) = plane.boot();
        let sessions = plane.sessions(prepare);
        stock(&plane.api);
        Self { plane, sessions }
    }

    async fn review(&self, request: Value) -> Answer {
        let mut request = request;
        request["uid"] = json!("review-1");
        request["namespace"] = json!("shop");
        let body =
            json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let answer = self.sessions.review(body.to_string().as_bytes()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["response"]["uid"], "review-1");
        Answer { response: answer["response"].clone(), object: request["object"].clone() }
    }

    async fn create(&self, user: &str, session: &Session) -> Answer {
        let object = serde_json::to_value(session).unwrap();
        self.review(json!({ "operation": "CREATE", "userInfo": { "username": user }, "object": object }))
            .await
    }

    async fn update(&self, user: &str, old: &Session, new: &Session) -> Answer {
        let (old, new) = (serde_json::to_value(old).unwrap(), serde_json::to_value(new).unwrap());
        let user = json!({ "username": user });
        self.review(json!({ "operation": "UPDATE", "userInfo": user, "object": new, "oldObject": old })).await
    }
}

struct Answer {
    response: Value,
    object: Value,
}

impl Answer {
    /// The object as it is stored.
    fn admitted(self) -> Session {
        assert_eq!(self.response["allowed"], true, "{}", self.response);
        let patch = STANDARD.decode(self.response["patch"].as_str().unwrap()).unwrap();
        let mut object = self.object;
        json_patch::patch(&mut object, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap())
            .unwrap();
        serde_json::from_value(object).unwrap()
    }

    /// Code, word and message of a refusal.
    fn denied(self) -> (u64, String, String) {
        assert_eq!(self.response["allowed"], false);
        let status = &self.response["status"];
        let word = status["details"]["causes"][0]["reason"].as_str().unwrap();
        (status["code"].as_u64().unwrap(), word.into(), status["message"].as_str().unwrap().into())
    }
}

fn stock(api: &ApiServer) {
    let owner = |kind: &str, name: &str| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true }]);
    let meta = |name: &str, owners: Value| json!({ "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "ownerReferences": owners });
    let selector = |app: &str| json!({ "selector": { "matchLabels": { "app": app } }, "template": {}, "serviceName": "" });
    let (checkout, database) = (meta("checkout", json!([])), meta("database", json!([])));
    let replica_set = meta("checkout-1", owner("Deployment", "checkout"));
    let apps = "/apis/apps/v1/namespaces/shop";
    let list = |items: Value| json!({ "metadata": {}, "items": items });
    api.put(
        &format!("{apps}/deployments/checkout"),
        json!({ "metadata": checkout, "spec": selector("checkout") }),
    );
    api.put(&format!("{apps}/deployments"), list(json!([{ "metadata": checkout }])));
    api.put(
        &format!("{apps}/statefulsets/database"),
        json!({ "metadata": database, "spec": selector("database") }),
    );
    api.put(&format!("{apps}/statefulsets"), list(json!([{ "metadata": database }])));
    api.put(&format!("{apps}/daemonsets"), list(json!([])));
    api.put(&format!("{apps}/replicasets"), list(json!([{ "metadata": replica_set }])));
    api.put(
        &format!("{apps}/replicasets/checkout-1"),
        json!({ "metadata": replica_set, "spec": { "selector": {} } }),
    );
    api.put("/apis/batch/v1/namespaces/shop/jobs", list(json!([])));
    api.put(
        "/api/v1/namespaces/shop",
        json!({ "metadata": { "name": "shop", "labels": { "mirrord.dev/inject": "enabled" } } }),
    );
    let pods = [
        pod(meta("new", owner("ReplicaSet", "checkout-1")), true),
        pod(meta("old", owner("ReplicaSet", "checkout-1")), false),
        pod(meta("database-0", owner("StatefulSet", "database")), false),
    ];
    api.put("/api/v1/namespaces/shop/pods/new", pods[0].clone());
    api.put("/api/v1/namespaces/shop/pods", list(json!(pods)));
}

fn pod(mut metadata: Value, injected: bool) -> Value {
    let mut init = json!([]);
    if injected {
        let status = json!({
            "version": 1, "process_namespace": "isolated",
            "containers": [{ "name": "app", "sidecar": "mirrord", "port": 4801 }],
        });
        metadata["annotations"] = json!({ "mirrord.dev/status": status.to_string() });
        let command = ["agent", "serve", "--container", "app", "--port", "4801"];
        init = json!([{ "name": "mirrord", "restartPolicy": "Always", "command": command }]);
    }
    let started = json!([{
        "name": "mirrord", "started": true, "state": { "running": {} },
        "image": "", "imageID": "", "ready": true, "restartCount": 0,
    }]);
    json!({
        "metadata": metadata,
        "spec": { "containers": [{ "name": "app" }], "initContainers": init },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "initContainerStatuses": started },
    })
}

fn session(target: &str, features: &[&str], optional: &[&str]) -> Session {
    let key = SelfSigned::generate().unwrap().public_key();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let spec = SessionSpec {
        target: Some(target.into()),
        features: words(features),
        optional_features: words(optional),
        ..SessionSpec::default()
    };
    Session::new(&session_name(&key), spec.with_public_key(&key))
}

#[tokio::test]
async fn one_post_gives_the_client_all_it_needs() {
    let shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    shop.plane.api.grant("developer", "outgoing", "deployment.checkout");
    let asked = session("deploy/checkout", &["env"], &["files", "outgoing"]);
    let stored = shop.create("developer", &asked).await.admitted();
    assert_eq!((&stored.metadata, &stored.spec), (&asked.metadata, &asked.spec), "only the status is ours");
    let status = stored.status.unwrap();
    assert_eq!(status.creator.username, "developer");
    assert_eq!(status.workload, "deployment.checkout");
    assert_eq!(status.features, ["env", "outgoing"], "what is optional is left out where it isn't granted");
    assert_eq!(status.container, "app");
    assert_eq!(status.without_sidecar, ["old"]);
    assert_eq!(
        (status.ingress.as_str(), status.certificate_authorities.as_str()),
        ("203.0.113.7:443", shop.plane.keys().authority.certificate_pem())
    );
    assert!(status.expires_at > now() + 290 && status.deadline > now() + 590);
    let [pod] = status.pods.as_slice() else { panic!("{:?}", status.pods) };
    let route = RouteId::of("uid-new", "app");
    assert_eq!((pod.name.as_str(), pod.port, pod.route.as_str()), ("new", 4801, route.to_string().as_str()));
    shop.plane
        .keys()
        .gate
        .current
        .verify(&pod.gate_token_bytes().unwrap(), route, status.expires_at)
        .unwrap();
}

#[tokio::test]
async fn where_all_sidecars_trust_an_authority_that_is_gone_the_restart_is_named_and_nobody_waits() {
    let shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    let gone = Authority::create(now()).unwrap();
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-1", "uid": "uid-checkout-1", "controller": true }]);
    let mut older = pod(
        json!({ "name": "older", "namespace": "shop", "uid": "uid-older", "ownerReferences": owner }),
        true,
    );
    let command = older["spec"]["initContainers"][0]["command"].as_array_mut().unwrap();
    command.extend([json!("--ca"), json!(STANDARD.encode(gone.certificate()))]);
    let pods = |pods: Value| {
        shop.plane.api.put("/api/v1/namespaces/shop/pods", json!({ "metadata": {}, "items": pods }));
    };
    pods(json!([older]));
    let (code, word, message) =
        shop.create("developer", &session("deployment/checkout", &["env"], &[])).await.denied();
    assert_eq!((code, word.as_str()), (422, "no_sidecar"));
    assert!(message.contains("trust another certificate authority"), "{message}");
    assert!(message.contains("kubectl rollout restart deployment/checkout -n shop"), "{message}");

    // Beside others they are named as those are that have no sidecar.
    let newer = json!({ "name": "newer", "namespace": "shop", "uid": "uid-newer", "ownerReferences": owner });
    pods(json!([older, pod(newer, true)]));
    let stored = shop.create("developer", &session("deployment/checkout", &["env"], &[])).await.admitted();
    let status = stored.status.unwrap();
    assert_eq!((status.pods.len(), status.without_sidecar.as_slice()), (1, ["older".to_owned()].as_slice()));
    assert_eq!((status.injected, status.running), (1, 2));
}

#[tokio::test]
async fn whatever_the_client_writes_into_the_status_is_overwritten() {
    let shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    let mut asked = session("deployment/checkout", &["env"], &[]);
    asked.status = Some(SessionStatus {
        features: vec!["secrets".into()],
        deadline: u64::MAX,
        ..SessionStatus::default()
    });
    let status = shop.create("developer", &asked).await.admitted().status.unwrap();
    assert_eq!(status.features, ["env"]);
    assert!(status.deadline <= now() + 600);
}

#[tokio::test]
async fn rights_count_on_the_workload_whatever_its_pods_are_called() {
    let shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "pod.new");
    shop.plane.api.grant("developer", "env", "replicaset.checkout-1");
    for target in ["pod/new", "replicaset/checkout-1", "deployment/checkout"] {
        let (code, word, message) = shop.create("developer", &session(target, &["env"], &[])).await.denied();
        assert_eq!((code, word.as_str()), (403, "not_granted"), "{target}");
        assert!(message.contains("\"deployment.checkout\""), "{message}");
    }
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    for target in ["pod/new", "replicaset/checkout-1", "deployment/checkout"] {
        let stored = shop.create("developer", &session(target, &["env"], &[])).await.admitted();
        assert_eq!(stored.status.unwrap().workload, "deployment.checkout");
    }
}

#[tokio::test]
async fn a_missing_right_is_named_with_the_rule_that_gives_it() {
    let shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    let asked = session("deployment/checkout", &["env", "files"], &[]);
    let (_, _, message) = shop.create("developer", &asked).await.denied();
    for part in
        ["\"developer\"", "\"files\"", "workloads.mirrord.dev", "namespace \"shop\"", "verbs: [\"files\"]"]
    {
        assert!(message.contains(part), "{part} is missing: {message}");
    }
    let optional = session("deployment/checkout", &[], &["files"]);
    assert_eq!(
        shop.create("developer", &optional).await.denied().0,
        403,
        "a session without features is no use"
    );
}

#[tokio::test]
async fn workloads_without_sidecar_and_without_existence_are_told_apart() {
    let shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "statefulset.database");
    let (code, word, message) =
        shop.create("developer", &session("sts/database", &["env"], &[])).await.denied();
    assert_eq!((code, word.as_str()), (422, "no_sidecar"));
    assert!(message.contains("kubectl rollout restart statefulset/database -n shop"), "{message}");
    let (code, word, message) =
        shop.create("developer", &session("sts/databse", &["env"], &[])).await.denied();
    assert_eq!((code, word.as_str()), (404, "not_found"));
    assert!(message.contains("did you mean statefulset/database?"), "{message}");
    let (.., message) = shop.create("stranger", &session("sts/databse", &["env"], &[])).await.denied();
    assert!(!message.contains("did you mean"), "names are for who has a right on them: {message}");
}

#[tokio::test]
async fn what_would_not_be_trusted_later_is_not_promised_now() {
    let mut shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    let configuration = Configuration { agrees: true, created: Some(now()) };
    shop.sessions.configuration = watch::channel(configuration).1;
    let asked = session("deployment/checkout", &["env"], &[]);
    assert_eq!(shop.create("developer", &asked).await.denied().1, "unavailable");
}

#[tokio::test]
async fn a_user_with_enough_sessions_gets_no_further_one_but_keeps_and_renews_those() {
    let mut shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    shop.plane.api.grant("neighbour", "env", "deployment.checkout");
    let asked = session("deployment/checkout", &["env"], &[]);
    let old = shop.create("developer", &asked).await.admitted();
    let mut crowd = Crowd::default();
    for _ in 0..2 {
        crowd.join("shop", &Creator { username: "developer".into(), uid: String::new() });
    }
    shop.sessions.crowd = watch::channel(crowd).1;
    let another = session("deployment/checkout", &["env"], &[]);
    let (code, word, message) = shop.create("developer", &another).await.denied();
    assert_eq!((code, word.as_str()), (403, "too_many"));
    assert!(
        message.contains("\"developer\" has 2 sessions in namespace \"shop\", and may have 2"),
        "{message}"
    );
    shop.create("neighbour", &another).await.admitted();
    let mut new = old.clone();
    new.spec.renewal = Some(1);
    shop.update("developer", &old, &new).await.admitted();
}

#[tokio::test]
async fn a_renewal_is_checked_again_and_extends_up_to_the_deadline() {
    let shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    let mut old = shop.create("developer", &session("deployment/checkout", &["env"], &[])).await.admitted();
    let status = old.status.as_mut().unwrap();
    assert_eq!(status.renewal, Some(0), "clients know by it that later numbers will be answered");
    (status.expires_at, status.deadline) = (now() - 10, now() + 100);
    let mut new = old.clone();
    new.spec.renewal = Some(1);
    let renewed = shop.update("developer", &old, &new).await.admitted().status.unwrap();
    assert_eq!(renewed.expires_at, renewed.deadline);
    assert_eq!(renewed.renewal, Some(1), "which one was looked at");
    assert_eq!(renewed.deadline, old.status.as_ref().unwrap().deadline, "no renewal moves the deadline");
    assert_eq!(shop.update("neighbour", &old, &new).await.denied().1, "not_granted");
    let other = Shop::open().await;
    assert_eq!(
        other.update("developer", &old, &new).await.denied().1,
        "not_granted",
        "rights were taken away"
    );
}

#[tokio::test]
async fn a_dry_run_without_target_lists_what_the_caller_may_use() {
    let shop = Shop::open().await;
    shop.plane.api.grant("developer", "env", "deployment.checkout");
    shop.plane.api.grant("admin", "files", "");
    let list = |user: &str| {
        let object = serde_json::to_value(Session::new("list", SessionSpec::default())).unwrap();
        shop.review(json!({ "operation": "CREATE", "dryRun": true, "userInfo": { "username": user }, "object": object }))
    };
    let targets = list("developer").await.admitted().status.unwrap().targets;
    let [target] = targets.as_slice() else { panic!("{targets:?}") };
    assert_eq!((target.target.as_str(), target.pods, target.injected), ("deployment/checkout", 2, 1));
    assert_eq!((&target.containers, &target.features), (&vec!["app".to_owned()], &vec!["env".to_owned()]));
    let targets = list("admin").await.admitted().status.unwrap().targets;
    let names: Vec<_> = targets.iter().map(|target| target.target.as_str()).collect();
    assert_eq!(names, ["deployment/checkout", "statefulset/database"]);
    assert!(list("stranger").await.admitted().status.unwrap().targets.is_empty());

    let session = session("deployment/checkout", &["env"], &[]);
    let stored = SessionSpec { target: None, ..session.spec.clone() };
    let without = Session { spec: stored, ..session };
    assert_eq!(shop.create("developer", &without).await.denied().1, "bad_session", "only a dry run lists");
}
