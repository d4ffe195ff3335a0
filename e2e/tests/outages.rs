//! Our own parts are down. These tests take them away from everybody, so they are a program of their own, which `cargo test`
//! runs after the others, and take turns.
#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use mirrord_e2e::{
    cluster::cluster,
    developer::Developer,
    namespace::{Namespace, USUAL},
    outage::Down,
};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    // Who failed gave back what they took.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn without_the_webhook_pods_are_admitted_without_sidecars_and_sessions_live_and_can_be_deleted() {
    let _turn = turn();
    let running = Namespace::opted_in("before-outage");
    running.deploy("app", |_| ());
    running.allow("deployment.app", &USUAL);
    let developer = Developer::new(running.name()).with_lingering_proxies();
    let _ = developer.exec("deployment/app", ["true"]).succeeded();

    let down = Down::of("deployment/mirrord-webhook");
    let namespace = Namespace::opted_in("webhook-down");
    namespace.deploy("app", |_| ());
    assert!(namespace.pods()[0]["spec"]["initContainers"].is_null(), "no sidecar, but it runs");

    let alive = developer.exec("deployment/app", ["cat", "/var/lib/checkout/private"]).succeeded();
    assert_eq!(alive.text(), "only for 4321\n", "a session outlives the webhook");
    let refused = Developer::new(running.name()).exec("deployment/app", ["true"]);
    let _ = refused.failed_with(69, &["webhook"]);
    cluster().run(&[
        "delete",
        "sessions.mirrord.dev",
        "--all",
        "--namespace",
        running.name(),
        "--timeout=10s",
    ]);
    drop(down);

    // What started meanwhile is named as such.
    namespace.allow("deployment.app", &USUAL);
    let restart = format!("kubectl rollout restart deployment/app -n {}", namespace.name());
    let _ = Developer::new(namespace.name()).exec("deployment/app", ["true"]).failed_with(66, &[&restart]);
}

#[test]
fn without_the_ingress_the_client_says_who_does_not_answer() {
    let _turn = turn();
    let namespace = Namespace::opted_in("ingress-down");
    namespace.deploy("app", |_| ());
    namespace.allow("deployment.app", &USUAL);
    let developer = Developer::new(namespace.name());
    let down = Down::of("deployment/mirrord-ingress");
    let _ = developer.exec("deployment/app", ["true"]).failed_with(69, &["ingress", "UDP"]);
    drop(down);
    let _ = developer.exec("deployment/app", ["true"]).succeeded();
}
