//! Other users of the cluster: what they can do to a session, with it, and with its key. And what the API server says about
//! pods' tokens, which the control plane believes.

use std::{sync::Arc, time::Duration};

use mirrord_certs::SelfSigned;
use mirrord_cli::tunnel::{Patience, dial::Dialler, failure::DialError};
use mirrord_e2e::{
    cluster::cluster,
    namespace::Namespace,
    run::{Run, until},
};
use mirrord_protocol::{control::CloseCode, feature::Feature};
use mirrord_session::{SessionSpec, SessionStatus, TOKEN_AUDIENCE, session_name};
use serde_json::{Value, json};

/// What a user does.
#[track_caller]
fn act(user: &str, arguments: &[&str], input: &str) -> Run {
    let group = "--as-group=system:authenticated";
    let mut command = cluster().kubectl(&[&["--as", user, group], arguments].concat());
    Run::with_input(&mut command, input.as_bytes())
}

/// A session that somebody asks for.
struct Wish {
    key: Arc<SelfSigned>,
    namespace: String,
    target: String,
}

impl Wish {
    fn new(namespace: &Namespace, target: &str) -> Self {
        let key = Arc::new(SelfSigned::generate().unwrap());
        Self { key, namespace: namespace.name().to_owned(), target: target.to_owned() }
    }

    fn name(&self) -> String {
        session_name(&self.key.public_key())
    }

    fn object(&self) -> Value {
        let spec = SessionSpec {
            target: Some(self.target.clone()),
            features: vec!["env".to_owned()],
            ..SessionSpec::default()
        };
        json!({
            "apiVersion": "mirrord.dev/v1alpha1", "kind": "Session",
            "metadata": {"name": self.name(), "namespace": self.namespace},
            "spec": spec.with_public_key(&self.key.public_key()),
        })
    }

    fn create(&self, user: &str) -> Run {
        act(user, &["create", "--filename", "-"], &self.object().to_string())
    }

    fn stored(&self) -> Value {
        cluster().get(&["sessions.mirrord.dev", &self.name(), "--namespace", &self.namespace])
    }

    fn status(&self) -> SessionStatus {
        serde_json::from_value(self.stored()["status"].clone()).unwrap()
    }
}

/// Lets a user do these verbs on sessions, and use the application's environment.
fn let_in(namespace: &Namespace, user: &str, verbs: &[&str]) {
    let (name, kind) = (namespace.name(), "rbac.authorization.k8s.io");
    cluster().apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": user, "namespace": name},
        "rules": [
            {"apiGroups": ["mirrord.dev"], "resources": ["sessions"], "verbs": verbs},
            {"apiGroups": ["mirrord.dev"], "resources": ["workloads"], "verbs": ["env"]},
        ],
    }));
    cluster().apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": user, "namespace": name},
        "roleRef": {"apiGroup": kind, "kind": "Role", "name": user},
        "subjects": [{"apiGroup": kind, "kind": "User", "name": user}],
    }));
    // The authorizer learns of it a moment later.
    until(Duration::from_secs(10), "the user's rights", || {
        let may = act(user, &["auth", "can-i", "create", "sessions.mirrord.dev", "--namespace", name], "");
        may.status.success().then_some(())
    });
}

#[test]
fn a_session_is_its_creators_to_change_and_rbac_says_who_may_delete_it() {
    let namespace = Namespace::opted_in("owners");
    namespace.deploy("app", |_| ());
    let_in(&namespace, "ann", &["create", "get", "patch"]);
    let_in(&namespace, "bob", &["create", "get", "patch"]);
    let_in(&namespace, "carol", &["create", "delete", "get"]);
    let wish = Wish::new(&namespace, "deployment/app");
    let name = wish.name();
    let _ = wish.create("ann").succeeded();
    let patch = |user: &str, change: &Value| {
        let change = change.to_string();
        let on = ["sessions.mirrord.dev", &name, "--namespace", namespace.name()];
        act(user, &[&["patch"], &on[..], &["--type=merge", "--patch", &change]].concat(), "")
    };
    let renewal = json!({"spec": {"renewal": 7}});
    for change in
        [&renewal, &json!({"metadata": {"labels": {"a": "b"}}}), &json!({"spec": {"features": ["files"]}})]
    {
        let _ = patch("bob", change)
            .failed_with(1, &["the session belongs to user \"ann\"", "\"bob\" can't change it"]);
    }
    let before = wish.stored();
    let _ = patch("ann", &json!({"status": {"features": ["secrets"], "deadline": 9_999_999_999_u64}}))
        .succeeded();
    assert_eq!(wish.stored()["status"], before["status"], "whatever somebody writes into the status");
    let _ = patch("ann", &json!({"spec": {"features": ["env", "secrets"]}}))
        .failed_with(1, &["only spec.renewal can be changed"]);
    let _ = patch("ann", &renewal).succeeded();

    let delete = |user: &str| {
        act(user, &["delete", "sessions.mirrord.dev", &name, "--namespace", namespace.name()], "")
    };
    let _ = delete("bob").failed_with(1, &["User \"bob\" cannot delete resource \"sessions\""]);
    let _ = wish.create("bob").failed_with(1, &["already exists"]);
    let _ = delete("carol").succeeded();
    // Whoever makes it anew under the same key gives the key's holder their own rights, and nobody else's.
    let _ = wish.create("bob").succeeded();
    assert_eq!(wish.status().creator.username, "bob");
    let _ = patch("ann", &json!({"spec": {"renewal": 8}})).failed_with(1, &["belongs to user \"bob\""]);
}

#[test]
fn rights_in_one_namespace_open_nothing_in_another() {
    let (mine, theirs) = (Namespace::opted_in("mine"), Namespace::opted_in("theirs"));
    theirs.deploy("app", |_| ());
    cluster().run(&[
        "create",
        "rolebinding",
        "admin",
        "--clusterrole=admin",
        "--user=mallory",
        "--namespace",
        mine.name(),
    ]);
    let_in(&mine, "mallory", &["create", "get"]);
    let _ = Wish::new(&theirs, "deployment/app")
        .create("mallory")
        .failed_with(1, &["User \"mallory\" cannot create resource \"sessions\"", theirs.name()]);
    let pod = theirs.pods()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    for target in ["deployment/app".to_owned(), format!("pod/{pod}")] {
        let _ = Wish::new(&mine, &target)
            .create("mallory")
            .failed_with(1, &[&format!("there is no {target} in namespace \"{}\"", mine.name())]);
    }
}

#[test]
fn a_user_who_makes_sessions_without_end_gets_a_bounded_number_and_others_are_served() {
    let namespace = Namespace::opted_in("crowded");
    namespace.deploy("app", |_| ());
    let_in(&namespace, "crowd", &["create", "get"]);
    let_in(&namespace, "ann", &["create", "get"]);
    let wishes: Vec<Wish> = (0..80).map(|_| Wish::new(&namespace, "deployment/app")).collect();
    let items: Vec<Value> = wishes.iter().map(Wish::object).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let refused = act("crowd", &["create", "--filename", "-"], &list);
    let _ = refused.failed_with(1, &["user \"crowd\" has", "and may have 64", "kubectl delete session"]);
    let stored = namespace.sessions().len();
    // What is quicker than the watch of the replica that is asked gets through, and is not announced.
    assert!((64..80).contains(&stored), "{stored}");
    let served = Wish::new(&namespace, "deployment/app");
    let _ = served.create("ann").succeeded();
    dial(&served.key, &served.status()).unwrap();
}

/// Dials with a key what a status says.
fn dial(key: &Arc<SelfSigned>, status: &SessionStatus) -> Result<(), DialError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let patience = Patience { dial: Duration::from_secs(8), ..Patience::default() };
    let dialler = Dialler::new(key.clone(), vec![Feature::Env], patience);
    runtime.block_on(dialler.dial(status)).map(drop)
}

#[test]
fn a_sessions_key_opens_no_other_pod_and_no_other_container() {
    let namespace = Namespace::opted_in("keys");
    namespace.deploy("one", |_| ());
    namespace.deploy("two", |deployment| {
        let template = &mut deployment["spec"]["template"];
        template["metadata"]["annotations"] = json!({"mirrord.dev/containers": "app,log"});
        let mut log = template["spec"]["containers"][0].clone();
        log["name"] = "log".into();
        template["spec"]["containers"].as_array_mut().unwrap().push(log);
    });
    let_in(&namespace, "ann", &["create", "get"]);
    let targets = ["deployment/one", "deployment/two/container/app", "deployment/two/container/log"];
    let wishes = targets.map(|target| Wish::new(&namespace, target));
    for wish in &wishes {
        let _ = wish.create("ann").succeeded();
        dial(&wish.key, &wish.status()).unwrap();
    }
    let [one, app, log] = &wishes;
    for (key, other) in [(one, app), (app, one), (app, log), (log, app)] {
        // With all that a session of that pod is given: only the key is another's.
        match dial(&key.key, &other.status()) {
            Err(DialError::Refused { code, .. }) => {
                assert_eq!(CloseCode::from_number(code), Some(CloseCode::NotAnnounced));
            }
            other => panic!("{other:?}"),
        }
    }
    // And with a gate token of its own session, nothing of it arrives at all.
    let mut status = app.status();
    status.pods[0].gate_token = one.status().pods[0].gate_token.clone();
    let silent = dial(&app.key, &status).unwrap_err();
    assert!(matches!(silent, DialError::Silent { .. }), "{silent}");
}

#[test]
fn a_token_is_good_for_its_audience_and_its_pod_and_only_while_that_is_there() {
    let namespace = Namespace::plain("tokens");
    namespace.deploy("app", |_| ());
    let pod = namespace.pods().remove(0);
    let name = pod["metadata"]["name"].as_str().unwrap();
    let token = |audience: &str| {
        let bound = format!("--bound-object-name={name}");
        let create = ["create", "token", "default", "--namespace", namespace.name(), "--audience", audience];
        let run = cluster().run(&[&create[..], &["--bound-object-kind=Pod", &bound]].concat());
        run.text().trim().to_owned()
    };
    // As the control plane asks.
    let review = |token: &str| -> Value {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        });
        let mut ask = cluster().kubectl(&["create", "--output", "json", "--filename", "-"]);
        let answer = Run::with_input(&mut ask, review.to_string().as_bytes()).succeeded();
        serde_json::from_slice::<Value>(&answer.stdout).unwrap()["status"].clone()
    };
    let ours = token(TOKEN_AUDIENCE);
    let status = review(&ours);
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["audiences"], json!([TOKEN_AUDIENCE]));
    let bound = &status["user"]["extra"]["authentication.kubernetes.io/pod-uid"];
    assert_eq!(bound, &json!([pod["metadata"]["uid"]]));
    assert_eq!(status["user"]["username"], format!("system:serviceaccount:{}:default", namespace.name()));

    let others = review(&token("vault"));
    assert_ne!(others["authenticated"], true, "{others}");
    cluster().run(&["delete", "pod", name, "--namespace", namespace.name()]);
    until(Duration::from_secs(30), "the deleted pod's token to be refused", || {
        (review(&ours)["authenticated"] != true).then_some(())
    });
}
