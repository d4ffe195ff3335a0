use mirrord_e2e::{
    cluster::cluster,
    developer::Developer,
    namespace::Namespace,
    run::Run,
    shop::{CHECKOUT, NAMESPACE},
};
use serde_json::{Value, json};

/// What `mirrord check -o json` found in a namespace, and how it ended.
fn checked(namespace: &str) -> (Vec<Value>, Run) {
    let run = Run::of(&mut cluster().mirrord(&["check", "-n", namespace, "-o", "json"]));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{}", run.story()));
    (report["findings"].as_array().unwrap().clone(), run)
}

/// The one finding that says this.
#[track_caller]
fn the(findings: &[Value], severity: &str, what: &str) -> Value {
    let mut found = findings.iter().filter(|it| it["what"].as_str().unwrap().contains(what));
    let one = found.next().unwrap_or_else(|| panic!("nothing says {what:?}: {findings:#?}")).clone();
    assert!(one["severity"] == severity && found.next().is_none(), "{findings:#?}");
    one
}

#[test]
fn where_all_is_well_it_says_so_and_ends_with_0() {
    let run = Run::of(&mut cluster().mirrord(&["check", "-n", NAMESPACE, "--probe", CHECKOUT])).succeeded();
    let text = run.text();
    for expected in [
        "has native sidecars",
        "of the shape that this program knows",
        "the chart's objects are there",
        "the API server reaches the webhook, which injects",
        "its authority is valid for",
        "pods get a sidecar: deployment/checkout, deployment/inventory",
        "and ended",
    ] {
        assert!(text.contains(expected), "no {expected:?} in: {}", run.story());
    }
    let severities: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(!severities.contains(&"error") && !severities.contains(&"warning"), "{}", run.story());
    assert!(run.stderr.contains("0 errors, 0 warnings"), "{}", run.story());
    let left = cluster().list("sessions.mirrord.dev", NAMESPACE);
    let ours = |session: &&Value| session["status"]["creator"]["username"] != "developer";
    assert_eq!(left.iter().find(ours), None, "the probe's session is gone");
}

#[test]
fn whatever_is_broken_in_a_namespace_is_named_with_the_line_that_mends_it() {
    let namespace = Namespace::plain("check");
    // Older than the label.
    namespace.deploy("app", |_| ());
    cluster().run(&["label", "namespace", namespace.name(), "mirrord.dev/inject=enabled"]);
    break_rights(&namespace);
    break_workloads(&namespace);

    let (findings, run) = checked(namespace.name());
    // What grants nothing and injects nothing still lets everything start.
    let run = run.succeeded();
    assert!(run.stderr.contains("0 errors"), "{}", run.story());
    let verb = the(&findings, "warning", "the verb \"file\" grants nothing, did you mean \"files\"?");
    let name = the(&findings, "warning", "the name \"deployment/app\" grants nothing");
    the(&findings, "warning", "there is no ClusterRole \"mirrord-users\"");
    let half = the(&findings, "warning", "may create sessions, but has no feature");
    assert_eq!(half["where"], format!("user bob -n {}", namespace.name()));
    let crowded = the(&findings, "warning", "leave no room for the sidecar");
    assert_eq!(crowded["where"], format!("deployment/crowded -n {}", namespace.name()));
    let unknown =
        "its pods get no sidecar: mirrord.dev/containers names a container that the pod does not have";
    the(&findings, "warning", unknown);
    the(&findings, "warning", "speaks of process 1");
    let old = the(&findings, "warning", "pods without a sidecar, older than the webhook or its label");

    // As an admin would: pasted one after another.
    for finding in [&verb, &name, &old] {
        let _ = Run::of(&mut cluster().pasted(finding["fix"].as_str().unwrap())).succeeded();
    }
    cluster().run(&["rollout", "status", "deployment/app", "-n", namespace.name(), "--timeout=55s"]);
    let (findings, _) = checked(namespace.name());
    for mended in [&verb, &name, &old] {
        assert!(!findings.contains(mended), "{mended} is still there: {findings:#?}");
    }
}

fn break_rights(namespace: &Namespace) {
    let metadata = |name: &str| json!({"name": name, "namespace": namespace.name()});
    cluster().apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata("typo"),
        "rules": [
            {"apiGroups": ["mirrord.dev"], "resources": ["workloads"], "verbs": ["env", "file"]},
            {"apiGroups": ["mirrord.dev"], "resources": ["workloads"], "resourceNames": ["deployment/app"], "verbs": ["env"]},
        ],
    }));
    cluster().apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata("half"),
        "rules": [{"apiGroups": ["mirrord.dev"], "resources": ["sessions"], "verbs": ["create"]}],
    }));
    for (binding, kind, role, user) in
        [("half", "Role", "half", "bob"), ("nowhere", "ClusterRole", "mirrord-users", "ann")]
    {
        cluster().apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata(binding),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }));
    }
}

/// Deployments without replicas: nothing of them has to start.
fn break_workloads(namespace: &Namespace) {
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "storage", "namespace": namespace.name()},
        "spec": {"hard": {"requests.ephemeral-storage": "70Mi"}},
    }));
    namespace.deploy("crowded", |deployment| {
        deployment["spec"]["replicas"] = 0.into();
        deployment["spec"]["template"]["spec"]["containers"][0]["resources"] =
            json!({"requests": {"ephemeral-storage": "64Mi"}});
    });
    namespace.deploy("misnamed", |deployment| {
        deployment["spec"]["replicas"] = 0.into();
        deployment["spec"]["template"]["metadata"]["annotations"] = json!({"mirrord.dev/containers": "ap"});
    });
    namespace.deploy("signalled", |deployment| {
        deployment["spec"]["replicas"] = 0.into();
        deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"] =
            json!({"preStop": {"exec": {"command": ["sh", "-c", "kill -QUIT 1"]}}});
    });
}

#[test]
fn who_may_not_read_everything_is_told_what_was_not_checked() {
    let developer = Developer::new(NAMESPACE);
    let run = Run::of(&mut developer.mirrord(["check", "-n", NAMESPACE]));
    let run =
        run.failed_with(77, &["not everything could be checked", "an admin of the cluster, who may get"]);
    let text = run.text();
    let told = "not all is checked, as you may not get customresourcedefinitions.apiextensions.k8s.io, ";
    for expected in [told, "mutatingwebhookconfigurations", "fix: run it as an admin of the cluster"] {
        assert!(text.contains(expected), "no {expected:?} in: {}", run.story());
    }
}
