//! What a sidecar tells of itself by the boot channel.

use mirrord_protocol::{
    VERSION,
    control::{Obstacle, View},
    feature::Feature,
    reply::{Connected, Environment, FailureCode, Opened},
    request::{Connect, Request},
};

use crate::{key, open, support::Sidecar};

#[tokio::test]
async fn what_was_done_is_told_once_to_whoever_asks_first() {
    let sidecar = Sidecar::start(&[("GREETING", "hello")]);
    let control_plane = sidecar.booted().await;
    assert_eq!(control_plane.enroll().await.expect("enrolled").0.version, VERSION);
    let key = key();
    control_plane.announce(1, &[(&key, &[Feature::Env, Feature::Outgoing])]).await;
    let mut session = sidecar.session(&key, &[Feature::Env, Feature::Outgoing]).await;
    session.rights().await;
    session.ask::<Environment>(Request::Environment {}).await.expect("granted");
    let denied = session.ask::<Opened>(open("/etc/hostname")).await.expect_err("not granted");
    assert!(denied.is(FailureCode::NotGranted), "{denied}");
    let connect = Connect { address: "127.0.0.1:1".parse().expect("an address") };
    session.ask::<Connected>(Request::Connect(connect)).await.expect_err("guarded");

    let report = control_plane.report().await;
    assert!(report.software.starts_with("mirrord-agent "), "{report:?}");
    assert_eq!((report.view, report.obstacle), (View::Twin, Some(Obstacle::Isolated)));
    assert_eq!((report.wakes, report.sessions, report.guarded, report.connections), (1, 1, 1, 0));
    let counts = |request: &str| {
        let requests = report.requests.iter().find(|requests| requests.request == request);
        requests.map(|requests| (requests.served, requests.refused, requests.failed))
    };
    assert_eq!(counts("environment"), Some((1, 0, 0)));
    assert_eq!(counts("open"), Some((0, 1, 0)));
    assert_eq!(counts("stat"), None);
    let other_replica = sidecar.call(&sidecar.authority).await.expect("connected");
    let again = other_replica.report().await;
    assert_eq!((again.wakes, again.sessions, again.requests.len()), (0, 0, 0), "{again:?}");
}

#[tokio::test]
async fn a_boot_call_of_a_later_release_is_unsupported_and_the_connection_stays() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let failure = control_plane.call_by_name("dance").await.expect_err("unknown");
    assert!(failure.is(FailureCode::Unsupported), "{failure:?}");
    assert!(failure.message.contains("\"dance\""), "{failure}");
    control_plane.enroll().await.expect("still there");
}
