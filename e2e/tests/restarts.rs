//! Everything is killed, again and again, beneath a workload at work and a developer who uses it. The tests take parts away from
//! everybody, so they are a program of their own and take turns.
#![forbid(unsafe_code)]

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mirrord_e2e::{
    cluster::cluster,
    outage::{self, Down, Dropped},
    run::{eventually, until},
    scene::{CUT, Scene},
};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    // Who failed gave back what they took.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often each is killed.
const TIMES: usize = 3;

#[test]
fn killed_webhooks_routers_and_serving_processes_come_back_and_sessions_heal() {
    if !cluster().has_node("killing everything") {
        return;
    }
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
    scene.only_connections_failed(&CUT);
    scene.pod_was_left_alone();
    scene.service_lost_nothing();
    let _ = scene.developer.exec("deployment/app", ["true"]).succeeded();
}

#[test]
fn sessions_outlive_the_api_server_the_kubelet_and_the_nodes_network() {
    if !cluster().has_node("killing parts of Kubernetes") {
        return;
    }
    let _turn = turn();
    let scene = Scene::begin("killed-cluster");
    for _ in 0..TIMES {
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
    scene.only_connections_failed(&CUT);
    scene.pod_was_left_alone();
    scene.service_lost_nothing();
    let _ = scene.developer.exec("deployment/app", ["true"]).succeeded();
}

fn back(what: &str, url: &str) {
    until(Duration::from_secs(50), what, || outage::answers(url).then_some(()));
}

#[test]
fn a_session_deleted_while_no_control_plane_runs_is_cut_off_by_the_router() {
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
