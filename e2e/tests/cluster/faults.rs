use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use mirrord_e2e::{
    cluster::cluster,
    developer::Developer,
    namespace::{Namespace, USUAL},
    outage::{self, Dropped},
    run::until,
    scene::{CUT, Scene, injection_status, pod},
};
use serde_json::Value;

/// Opens a remote file over and over, and says when that fails first.
const READER: &str = "
import sys
print('reading', flush=True)
while True:
    try:
        open('/var/lib/checkout/private').read()
    except OSError as error:
        sys.exit(f'lost: {error}')
";

fn reading(developer: &Developer) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = developer.exec_command("deployment/app", ["python3", "-c", READER]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    stdout.read_line(&mut said).unwrap();
    assert_eq!(said, "reading\n");
    (child, stdout)
}

fn app(name: &str) -> Namespace {
    let namespace = Namespace::opted_in(name);
    namespace.deploy("app", |_| ());
    namespace.allow("deployment.app", &USUAL);
    namespace
}

#[test]
fn a_deleted_session_ends_within_seconds_and_the_command_is_told_why() {
    let namespace = app("deleted");
    let developer = Developer::new(namespace.name()).with_lingering_proxies();
    let (mut child, _stdout) = reading(&developer);
    let began = Instant::now();
    cluster().run(&["delete", "sessions.mirrord.dev", "--all", "--namespace", namespace.name()]);
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(told.contains("session ended") && told.contains("deleted"), "{told}");
}

#[test]
fn a_killed_sidecar_comes_back_under_the_same_session_and_the_application_never_notices() {
    if !cluster().has_node("killing a sidecar") {
        return;
    }
    let namespace = app("killed-sidecar");
    let developer = Developer::new(namespace.name()).with_lingering_proxies();
    let (mut child, _stdout) = reading(&developer);
    let before = namespace.pods().remove(0);
    let id = container_id(&before);
    let _ = cluster().on_node(&["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", &id]);
    let after = until(Duration::from_secs(30), "the sidecar to be started again", || {
        let pod = namespace.pods().remove(0);
        let twin = sidecar(&pod);
        (twin["restartCount"] == 1 && twin["started"] == true).then_some(pod)
    });
    assert_eq!(before["status"]["containerStatuses"], after["status"]["containerStatuses"]);
    let session = namespace.sessions();
    developer.sees_the_pods_file("deployment/app");
    let name = |sessions: &[Value]| {
        sessions.iter().map(|session| session["metadata"]["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(name(&namespace.sessions()), name(&session), "no second session");
    assert_eq!(child.try_wait().unwrap().map(|status| status.to_string()), None, "the program runs on");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_crash_of_the_serving_process_is_mended_inside_the_container_and_the_pod_stays_ready() {
    if !cluster().has_node("killing a process of a sidecar") {
        return;
    }
    let namespace = app("crashed-worker");
    let developer = Developer::new(namespace.name()).with_lingering_proxies();
    let (mut child, _stdout) = reading(&developer);
    let before = namespace.pods().remove(0);
    let main = cluster().main_process(&container_id(&before));
    let workers = cluster().on_node(&["cat", &format!("/proc/{main}/task/{main}/children")]).text();
    let worker = workers.split_whitespace().next().expect("a session is served by a child").to_owned();
    let _ = cluster().on_node(&["kill", "-KILL", &worker]).succeeded();
    developer.sees_the_pods_file("deployment/app");
    assert_eq!(child.try_wait().unwrap().map(|status| status.to_string()), None, "the program runs on");
    assert_eq!(namespace.pods().remove(0)["status"], before["status"], "kubelet saw nothing");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_replaced_pod_is_followed_by_the_session() {
    let namespace = app("replaced");
    let developer = Developer::new(namespace.name()).with_lingering_proxies();
    let _ = developer.exec("deployment/app", ["true"]).succeeded();
    cluster().run(&["delete", "pod", "--all", "--namespace", namespace.name()]);
    cluster().run(&["rollout", "status", "deployment/app", "--namespace", namespace.name(), "--timeout=55s"]);
    developer.sees_the_pods_file("deployment/app");
}

#[test]
fn a_sidecar_whose_main_process_is_killed_serves_again_and_the_application_never_notices() {
    if !cluster().has_node("killing a sidecar") {
        return;
    }
    let scene = Scene::begin("killed-sidecars");
    for times in 1..=3 {
        until(Duration::from_secs(20), "a sidecar that has run for a while", || {
            outage::is_settled(&scene.sidecar_status(&pod(&scene.namespace))).then_some(())
        });
        let main = cluster().main_process(&scene.sidecar());
        let _ = cluster().on_node(&["kill", "-KILL", &main]);
        until(Duration::from_secs(30), "the sidecar to be started again", || {
            let status = scene.sidecar_status(&pod(&scene.namespace));
            (status["restartCount"] == times && status["started"] == true).then_some(())
        });
        scene.program.goes_on();
    }
    // So says a Service while its only pod isn't ready.
    scene.only_connections_failed(&[&CUT[..], &["Connection refused"]].concat());
    scene.application_was_left_alone();
    scene.application_lost_nothing();
}

/// Addresses of the control plane's pods.
fn control_plane() -> Vec<String> {
    let address = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    outage::pods_of("webhook").iter().filter_map(address).collect()
}

#[test]
fn a_session_deleted_while_its_sidecar_could_not_be_told_ends_once_it_can() {
    if !cluster().has_node("cutting sidecars off") {
        return;
    }
    let scene = Scene::begin("deleted-unheard");
    let (address, port) = scene.sidecar_door();
    let unheard = Dropped::datagrams(&control_plane(), &address, port);
    cluster().run(&["delete", "sessions.mirrord.dev", "--all", "--namespace", scene.namespace.name()]);
    // The router has heard of it, and lets nothing more through: the client asks the API server, and knows.
    let end = scene.program.end(Duration::from_secs(40));
    assert!(end.contains("there is no such session"), "{end}");
    assert!(!scene.sidecar_log().contains("was deleted"), "the sidecar can't know");
    drop(unheard);
    until(Duration::from_secs(20), "the sidecar to end the session", || {
        scene.sidecar_log().contains("was deleted").then_some(())
    });
    scene.pod_was_left_alone();
}

/// The sidecar's, as containerd knows it.
fn container_id(pod: &Value) -> String {
    sidecar(pod)["containerID"].as_str().unwrap().trim_start_matches("containerd://").to_owned()
}

fn sidecar(pod: &Value) -> Value {
    let statuses = pod["status"]["initContainerStatuses"].as_array().unwrap();
    let name = &injection_status(pod)["containers"][0]["sidecar"];
    statuses.iter().find(|status| status["name"] == *name).unwrap().clone()
}
