//! Everything is killed, again and again, beneath a workload at work and a developer who uses it. The tests take parts away from
//! everybody, so they are a program of their own and take turns.
#![forbid(unsafe_code)]

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mirrord_e2e::{
    cluster::cluster,
    outage::{self, Down, Dropped},
    run::{eventually, until},
    scene::{Scene, pod},
};
use serde_json::Value;

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    // Who failed gave back what they took.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often each is killed.
const TIMES: usize = 5;
/// Of what takes seconds to come back.
const FEW: usize = 3;

/// What a connection says that stood when it was cut; a file is asked for again.
const CUT: [&str; 2] = ["Connection reset by peer", "Software caused connection abort"];
/// What a Service says while its only pod isn't ready.
const REFUSED: &str = "Connection refused";

#[track_caller]
fn only_connections_failed(scene: &Scene, cut: &[&str]) {
    scene.program.saw_nothing_wrong();
    for failure in scene.program.failures() {
        let told = failure.starts_with("connection failed") && cut.iter().any(|word| failure.contains(word));
        assert!(told, "{failure}");
    }
}

#[test]
fn killed_webhooks_routers_and_serving_processes_come_back_and_sessions_heal() {
    let _turn = turn();
    let scene = Scene::begin("killed-parts");
    let main = cluster().main_process(&scene.sidecar());
    let children = format!("/proc/{main}/task/{main}/children");
    let worker =
        || cluster().on_node(&["cat", &children]).text().split_whitespace().next().map(str::to_owned);
    for _ in 0..TIMES {
        let failures = scene.program.failures();
        outage::kill("webhook");
        scene.program.goes_on();
        assert_eq!(scene.program.failures(), failures, "a session that stands needs no webhook");

        outage::kill("ingress");
        scene.program.goes_on();

        let serving = until(Duration::from_secs(20), "a process that serves", worker);
        let _ = cluster().on_node(&["kill", "-KILL", &serving]);
        scene.program.goes_on();
        assert_ne!(worker(), Some(serving));
    }
    only_connections_failed(&scene, &CUT);
    scene.pod_was_left_alone();
    scene.service_lost_nothing();
    let _ = scene.developer.exec("deployment/app", ["true"]).succeeded();
}

#[test]
fn a_sidecar_whose_main_process_is_killed_serves_again_and_the_application_never_notices() {
    let _turn = turn();
    let scene = Scene::begin("killed-sidecars");
    for times in 1..=FEW {
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
    only_connections_failed(&scene, &[&CUT[..], &[REFUSED]].concat());
    scene.application_was_left_alone();
    scene.application_lost_nothing();
}

#[test]
fn sessions_outlive_the_api_server_the_kubelet_and_the_nodes_network() {
    let _turn = turn();
    let scene = Scene::begin("killed-cluster");
    for _ in 0..FEW {
        outage::restart("kube-apiserver");
        scene.program.goes_on();
        back("the API server", "https://127.0.0.1:6443/readyz");
    }
    for _ in 0..TIMES {
        outage::restart("kubelet");
        scene.program.goes_on();
        back("the kubelet", "http://127.0.0.1:10248/healthz");
    }
    assert_eq!(scene.program.failures(), [""; 0], "a session that stands needs neither");
    let cable = Dropped::uplink();
    // Nothing but time is to be waited for: so long the network is away.
    let _ = eventually(Duration::from_secs(20), || false);
    drop(cable);
    scene.program.goes_on();
    only_connections_failed(&scene, &CUT);
    scene.pod_was_left_alone();
    scene.service_lost_nothing();
    let _ = scene.developer.exec("deployment/app", ["true"]).succeeded();
}

fn back(what: &str, url: &str) {
    until(Duration::from_secs(50), what, || outage::answers(url).then_some(()));
}

/// Addresses of the control plane's pods.
fn control_plane() -> Vec<String> {
    let address = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
    outage::pods_of("webhook").iter().filter_map(address).collect()
}

#[test]
fn a_session_deleted_while_its_sidecar_could_not_be_told_ends_once_it_can() {
    let _turn = turn();
    let scene = Scene::begin("deleted-unheard");
    let pod = pod(&scene.namespace);
    let status: Value =
        serde_json::from_str(pod["metadata"]["annotations"]["mirrord.dev/status"].as_str().unwrap()).unwrap();
    let port = u16::try_from(status["containers"][0]["port"].as_u64().unwrap()).unwrap();
    let unheard = Dropped::datagrams(&control_plane(), pod["status"]["podIP"].as_str().unwrap(), port);
    cluster().run(&["delete", "sessions.mirrord.dev", "--all", "--namespace", scene.namespace.name()]);
    // The router has heard of it, and lets nothing more through: the client asks the API server, and knows.
    let end = scene.program.end(Duration::from_secs(40));
    assert!(end.contains("there is no such session"), "{end}");
    assert!(!scene.sidecar_log().contains("was deleted"), "the sidecar can't know");
    drop(unheard);
    let began = Instant::now();
    until(Duration::from_secs(20), "the sidecar to end the session", || {
        scene.sidecar_log().contains("was deleted").then_some(())
    });
    println!("the sidecar ended it {:?} after it could be told", began.elapsed());
    scene.pod_was_left_alone();
}

#[test]
fn a_session_deleted_while_no_control_plane_runs_is_cut_off_by_the_router_and_forgotten_at_the_next_announcement()
 {
    let _turn = turn();
    let scene = Scene::begin("deleted-unseen");
    let down = Down::of("deployment/mirrord-webhook");
    cluster().run(&["delete", "sessions.mirrord.dev", "--all", "--namespace", scene.namespace.name()]);
    let end = scene.program.end(Duration::from_secs(40));
    assert!(end.contains("there is no such session"), "{end}");
    assert!(!scene.sidecar_log().contains("was deleted"), "nobody could tell the sidecar");
    drop(down);
    // Each announcement is the full set. (Without one the sidecar forgets the session when it expires.)
    let _ = scene.developer.exec("deployment/app", ["true"]).succeeded();
    until(Duration::from_secs(20), "the sidecar to end the session", || {
        scene.sidecar_log().contains("was deleted").then_some(())
    });
    scene.pod_was_left_alone();
}
