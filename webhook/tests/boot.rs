//! The boot channel, end to end: a stored Session reaches its sidecar, and no other thing does.

mod support;

use std::sync::Arc;

use mirrord_certs::{GateMaster, SelfSigned, key_hash};
use mirrord_protocol::feature::Feature;
use mirrord_recorded::{Release, releases};
use mirrord_session::{Session, SessionPod, SessionSpec, SessionStatus, session_name};
use mirrord_webhook::{
    certificates::{bundle::Configuration, keys::Keys},
    sessions::sidecars::Serving,
};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use support::{
    PATIENCE, now,
    plane::Plane,
    recorded::Recorded,
    twin::{Manners, Told, Twin},
};

/// A sidecar of a pod, with a token that is bound to it.
fn twin(plane: &Plane, uid: &str) -> Twin {
    plane.api.know_token(&format!("token-of-{uid}"), "shop", uid);
    twin_with_token(plane, uid, &format!("token-of-{uid}"))
}

fn twin_with_token(plane: &Plane, uid: &str, token: &str) -> Twin {
    Twin::start(&plane.keys().authority, uid, Manners::proper(token))
}

fn session(twins: &[&Twin]) -> Session {
    let key = SelfSigned::generate().unwrap().public_key();
    let mut session = Session::new(&session_name(&key), SessionSpec::default().with_public_key(&key));
    session.metadata.namespace = Some("shop".into());
    session.metadata.uid = Some("session-uid".into());
    session.metadata.creation_timestamp =
        Some(serde_json::from_value(json!("2100-01-01T00:00:00Z")).unwrap());
    let pods = twins.iter().map(|twin| SessionPod {
        name: format!("pod-{}", twin.uid),
        uid: twin.uid.clone(),
        route: twin.route.to_string(),
        address: twin.address.ip().to_string(),
        port: twin.address.port(),
        gate_token: String::new(),
    });
    session.status = Some(SessionStatus {
        features: vec!["env".into(), "files".into()],
        container: "app".into(),
        pods: pods.collect(),
        expires_at: now() + 300,
        deadline: now() + 3600,
        ..SessionStatus::default()
    });
    session
}

#[tokio::test]
async fn a_stored_session_reaches_its_sidecar_and_its_deletion_too() {
    let plane = Plane::start().await;
    let _replica = plane.replica();
    let mut twin = twin(&plane, "pod-1");
    let session = session(&[&twin]);
    plane.api.store(&session);

    assert!(matches!(twin.told().await, Told::Enroll));
    let Told::Install(install) = twin.told().await else { panic!("an announcement before its installation") };
    assert_eq!(install.reset_key, plane.keys().authority.reset_key(twin.route));
    assert_eq!(install.gate_keys[0].as_ref(), plane.keys().gate.current.route_key(twin.route).as_bytes());
    assert!(key_hash(&CertificateDer::from(install.chain[0].to_vec())).is_some());

    let announce = twin.announced().await;
    assert_eq!((announce.revision, announce.sessions.len()), (1, 1));
    assert_eq!(announce.sessions[0].features, [Feature::Env, Feature::Files]);
    assert_eq!(announce.sessions[0].expires_at, session.status.as_ref().unwrap().expires_at);

    plane.api.delete(&session);
    let announce = twin.announced().await;
    assert_eq!((announce.revision, announce.sessions.len()), (2, 0));
    assert!(matches!(twin.told().await, Told::HungUp), "a dormant sidecar has no connection");
}

#[tokio::test]
async fn all_pods_of_a_session_are_told_and_other_sessions_stay() {
    let plane = Plane::start().await;
    let _replica = plane.replica();
    let (mut one, mut other) = (twin(&plane, "pod-1"), twin(&plane, "pod-2"));
    let both = session(&[&one, &other]);
    plane.api.store(&both);
    assert_eq!(one.announced().await.sessions.len(), 1);
    assert_eq!(other.announced().await.sessions.len(), 1);
    plane.api.store(&session(&[&other]));
    assert_eq!(other.announced().await.sessions.len(), 2);
    plane.api.delete(&both);
    assert_eq!(one.announced().await.sessions.len(), 0);
    assert_eq!(other.announced().await.sessions.len(), 1);
}

#[tokio::test]
async fn a_sidecar_that_lost_everything_is_told_again() {
    let plane = Plane::start().await;
    let _replica = plane.replica();
    let mut twin = twin(&plane, "pod-1");
    plane.api.store(&session(&[&twin]));
    assert_eq!(twin.announced().await.sessions.len(), 1);
    twin.cut();
    assert_eq!(twin.announced().await.sessions.len(), 1);
}

#[tokio::test]
async fn a_woken_sidecar_is_ready_but_knows_of_no_session_before_one_is_stored() {
    let plane = Plane::start().await;
    let (prepare, ..) = plane.replica();
    let mut twin = twin(&plane, "pod-1");
    let pod = Serving {
        name: "pod".into(),
        uid: twin.uid.clone(),
        route: twin.route,
        address: twin.address.ip().to_string(),
        port: twin.address.port(),
    };
    prepare.wake("shop", &pod);
    assert!(matches!(twin.told().await, Told::Enroll));
    assert!(matches!(twin.told().await, Told::Install(_)));
    plane.api.store(&session(&[&twin]));
    let Told::Announce(announce) = twin.told().await else { panic!("it was dialled again") };
    assert_eq!(announce.sessions.len(), 1);
}

#[tokio::test]
async fn strangers_at_a_pods_address_get_no_certificate_and_hear_of_no_session() {
    let plane = Plane::start().await;
    let _replica = plane.replica();
    plane.api.know_token("token-of-another-pod", "shop", "another-pod");
    plane.api.know_token("token-of-pod-3", "shop", "pod-3");
    let relaying = Manners { foreign_request: true, ..Manners::proper("token-of-pod-3") };
    let mut strangers = [
        twin_with_token(&plane, "pod-1", "token-of-another-pod"),
        twin_with_token(&plane, "pod-2", "made up"),
        Twin::start(&plane.keys().authority, "pod-3", relaying),
        twin_with_token(&plane, "pod-4", ""),
    ];
    let [one, two, three, four] = &strangers;
    plane.api.store(&session(&[one, two, three, four]));
    for stranger in &mut strangers {
        // Asked twice, so the first answer has been judged.
        for _ in 0..2 {
            while !matches!(stranger.told().await, Told::Enroll) {}
        }
        let told = stranger.told_so_far();
        assert!(!told.iter().any(|told| matches!(told, Told::Install(_) | Told::Announce(_))), "{told:?}");
    }
}

#[tokio::test]
async fn replicas_tell_the_same_and_one_is_enough() {
    let plane = Plane::start().await;
    let (_first, second) = (plane.replica(), plane.replica());
    let mut twin = twin(&plane, "pod-1");
    let session = session(&[&twin]);
    plane.api.store(&session);
    let (one, other) = (twin.announced().await, twin.announced().await);
    assert_eq!(one, other);
    second.1.abort();
    let _ = second.1.await;
    plane.api.delete(&session);
    assert_eq!(twin.announced().await.sessions.len(), 0);
}

#[tokio::test]
async fn sessions_that_are_over_are_deleted_and_never_told() {
    let plane = Plane::start().await;
    let mut twin = twin(&plane, "pod-1");
    let mut over = session(&[&twin]);
    over.status.as_mut().unwrap().deadline = now();
    plane.api.store(&over);
    let _replica = plane.replica();
    let gone = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
        while !plane.api.stored().is_empty() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert!(twin.told_so_far().is_empty());
}

#[tokio::test]
async fn sessions_that_were_stored_without_our_admission_are_never_told() {
    let plane = Plane::start().await;
    let _replica = plane.replica();
    let (mut twin, mut proper) = (twin(&plane, "pod-1"), twin(&plane, "pod-2"));
    let mut forged = session(&[&twin]);
    forged.metadata.creation_timestamp = Some(serde_json::from_value(json!("2001-01-01T00:00:00Z")).unwrap());
    plane.configuration_tx.send_replace(Configuration::default());
    plane.api.store(&forged);
    plane.configuration_tx.send_replace(Configuration { agrees: true, created: Some(now()) });
    plane.api.store(&session(&[&proper]));
    assert_eq!(proper.announced().await.sessions.len(), 1);
    assert!(twin.told_so_far().is_empty());
}

#[tokio::test]
async fn new_keys_reach_sidecars_that_are_awake_at_once() {
    let plane = Plane::start().await;
    let _replica = plane.replica();
    let mut twin = twin(&plane, "pod-1");
    plane.api.store(&session(&[&twin]));
    assert_eq!(twin.announced().await.sessions.len(), 1);

    let old = plane.keys();
    let mut new = Keys::new(old.authority.succeed(now()).unwrap(), old.gate.current.clone());
    new.gate.next = GateMaster::generate();
    plane.keys_tx.send_replace(Arc::new(new));
    let install = loop {
        if let Told::Install(install) = twin.told().await {
            break install;
        }
    };
    let new = plane.keys();
    let keys: Vec<&[u8]> = install.gate_keys.iter().map(|key| key.as_ref()).collect();
    let expected: Vec<_> = new.gate.of_route(twin.route).map(|key| *key.as_bytes()).collect();
    assert_eq!((keys, expected.len()), (expected.iter().map(|key| &key[..]).collect(), 2));
    let chain: Vec<_> = install.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    assert_eq!(chain.len(), 2, "whoever trusts the old authority has to be shown why the new one is as good");
    assert_eq!(chain, new.authority.chain(&chain[0]));
    assert_eq!(twin.announced().await.sessions.len(), 1, "and its sessions stay");
}

/// A session is made and deleted, and a recorded sidecar told of both.
async fn told_of_a_session(release: &Release, is_later: bool) {
    let plane = Plane::start().await;
    let _replica = plane.replica();
    let mut twin = Recorded::start(&plane.keys().authority, "pod-1", release, is_later);
    plane.api.know_token(&twin.token, "shop", "pod-1");
    let mut session = session(&[]);
    session.status.as_mut().unwrap().pods = vec![twin.pod.clone()];
    plane.api.store(&session);
    for expected in ["enroll", "install", "announce"] {
        assert_eq!(twin.hears().await, expected, "{}", release.name());
    }
    plane.api.delete(&session);
    // Which of the recorded empty sets is answered makes no difference.
    let gone = twin.hears().await;
    assert!(gone.starts_with("announce ") && !gone.contains("installed"), "{gone}");
}

#[tokio::test]
async fn sidecars_of_every_supported_release_are_told_of_their_sessions() {
    for release in releases() {
        told_of_a_session(&release, false).await;
    }
}

#[tokio::test]
async fn a_sidecar_of_a_later_release_is_told_as_far_as_it_is_known() {
    told_of_a_session(&releases().pop().unwrap(), true).await;
}
