//! What admins decide about a workload's pods, and what developers then read about it: whose view a session has, and
//! which pods have no sidecar.

use std::time::Duration;

use mirrord_e2e::{
    cluster::cluster,
    developer::Developer,
    namespace::{Namespace, USUAL},
    run::{Run, until},
};
use serde_json::{Value, json};

/// Only the running program has this variable: its entrypoint exports it.
const EXPORTED: &str = "CHECKOUT_STARTED_BY";
/// How a session says that it doesn't see the running program.
const OWN_VIEW: &str = "environment and files are those that the container starts with";
/// Runs the image's entrypoint, which exports a variable and becomes the program.
const ENTRYPOINT: [&str; 1] = ["/srv/checkout/entrypoint.sh"];
/// The same program, that shields its memory first (PR_SET_DUMPABLE is 4).
const SHIELDED: &str = "import ctypes, signal; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); signal.pause()";

fn targets(namespace: &Namespace) -> Vec<Value> {
    let developer = Developer::new(namespace.name());
    let mut ls = developer.mirrord(["ls", "-n", namespace.name(), "-o", "json"]);
    serde_json::from_slice(&Run::of(&mut ls).succeeded().stdout).unwrap()
}

fn stateful_set(name: &str, namespace: &Namespace, mode: &str) {
    namespace.store(name, |it| {
        it["kind"] = "StatefulSet".into();
        it["spec"]["template"]["metadata"]["annotations"] = json!({"mirrord.dev/process-namespace": mode});
        it["spec"]["template"]["spec"]["containers"][0]["command"] = json!(ENTRYPOINT);
    });
}

#[test]
fn the_annotation_decides_whether_sessions_see_the_running_program_and_sessions_say_so() {
    let namespace = Namespace::opted_in("processes");
    namespace.allow_all(&USUAL);
    let deployment = |name: &str, mode: &str, command: Value| {
        namespace.store(name, |it| {
            it["spec"]["template"]["metadata"]["annotations"] =
                json!({"mirrord.dev/process-namespace": mode});
            it["spec"]["template"]["spec"]["containers"][0]["command"] = command;
        });
    };
    deployment("auto", "auto", json!(ENTRYPOINT));
    deployment("isolated", "isolated", json!(ENTRYPOINT));
    deployment("shielded", "auto", json!(["python3", "-c", SHIELDED]));
    stateful_set("db", &namespace, "auto");
    stateful_set("shared", &namespace, "shared");
    namespace.rolled_out(&["deployment/auto", "deployment/isolated", "deployment/shielded"]);
    namespace.rolled_out(&["statefulset/db", "statefulset/shared"]);

    let developer = Developer::new(namespace.name());
    for live in ["deployment/auto", "statefulset/shared"] {
        let said = developer.exec(live, ["printenv", EXPORTED]).succeeded();
        assert_eq!(said.text(), "entrypoint of 4321\n");
        assert!(!said.stderr.contains(OWN_VIEW), "{}", said.story());
    }
    for (own, change) in [
        ("deployment/isolated", "annotation mirrord.dev/process-namespace: shared changes that"),
        ("statefulset/db", "annotation mirrord.dev/process-namespace: shared changes that"),
        ("deployment/shielded", "the program shields its memory"),
    ] {
        let script = format!("echo $GREETING; printenv {EXPORTED}; cat /var/lib/checkout/private");
        let said = developer.exec(own, ["sh", "-c", &script]).succeeded();
        assert_eq!(said.text(), "from the pod\nonly for 4321\n", "{}", said.story());
        assert!(said.stderr.contains(OWN_VIEW) && said.stderr.contains(change), "{}", said.story());
    }

    let seen: Vec<(String, String)> = targets(&namespace)
        .iter()
        .map(|it| (it["target"].as_str().unwrap().into(), it["processNamespace"].as_str().unwrap().into()))
        .collect();
    let expected = [
        ("deployment/auto", "shared"),
        ("deployment/isolated", "isolated"),
        ("deployment/shielded", "shared"),
        ("statefulset/db", "isolated"),
        ("statefulset/shared", "shared"),
    ];
    assert_eq!(seen, expected.map(|(target, processes)| (target.to_owned(), processes.to_owned())));
}

/// Whether a pod of a workload would get a sidecar now.
fn injects(namespace: &Namespace, workload: &str) -> bool {
    let mut pod = cluster().get(&[workload, "--namespace", namespace.name()])["spec"]["template"].take();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "probe".into();
    pod["metadata"]["namespace"] = namespace.name().into();
    let mut create =
        cluster().kubectl(&["create", "--dry-run=server", "--output", "json", "--filename", "-"]);
    let answer = Run::with_input(&mut create, pod.to_string().as_bytes()).succeeded();
    let pod: Value = serde_json::from_slice(&answer.stdout).unwrap();
    !pod["spec"]["initContainers"].is_null()
}

#[test]
fn replicas_older_than_the_webhook_are_named_with_the_line_that_mends_it() {
    let namespace = Namespace::plain("partial");
    namespace.allow("deployment.app", &USUAL);
    namespace.deploy("app", |_| ());
    let old = namespace.pods()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    cluster().run(&["label", "namespace", namespace.name(), "mirrord.dev/inject=enabled"]);
    until(Duration::from_secs(20), "the API server to know the label", || {
        injects(&namespace, "deployment/app").then_some(())
    });
    cluster().run(&["scale", "deployment/app", "--namespace", namespace.name(), "--replicas=2"]);
    namespace.rolled_out(&["deployment/app"]);

    let restart = format!("kubectl rollout restart deployment/app -n {}", namespace.name());
    let sentence =
        format!("1 of 2 pods of deployment/app have no sidecar ({old}); to give them one: {restart}\n");
    let developer = Developer::new(namespace.name());
    let said = developer.exec("deployment/app", ["printenv", "GREETING"]).succeeded();
    assert_eq!(said.text(), "from the pod\n", "the other one serves");
    assert!(said.stderr.contains(&sentence), "{}", said.story());
    let listed = Run::of(&mut developer.mirrord(["ls", "-n", namespace.name()])).succeeded();
    assert!(listed.stderr.contains(&sentence), "{}", listed.story());
    let target = targets(&namespace).remove(0);
    assert_eq!((&target["pods"], &target["injected"]), (&json!(2), &json!(1)));
    assert_eq!(target["withoutSidecar"], json!([old]));

    let words: Vec<&str> = restart.split(' ').skip(1).collect();
    cluster().run(&words);
    namespace.rolled_out(&["deployment/app"]);
    until(Duration::from_secs(20), "the old pod to be gone", || {
        let target = targets(&namespace).remove(0);
        (target["pods"] == 2 && target["injected"] == 2).then_some(())
    });
    let said = developer.exec("deployment/app", ["true"]).succeeded();
    assert!(!said.stderr.contains("no sidecar"), "{}", said.story());
}
