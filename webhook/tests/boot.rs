//! The boot channel, end to end: a stored Session reaches its sidecar, and no other thing does.

mod support;

use std::sync::Arc;

use kube::Client;
use mirrord_certs::{Authority, GateMaster, SelfSigned, key_hash};
use mirrord_protocol::feature::Feature;
use mirrord_recorded::{Release, releases};
use mirrord_session::{Session, SessionPod, SessionSpec, SessionStatus, session_name};
use mirrord_webhook::{
    boot::{Boot, Bounds, Prepare, channel, enroll::Enroller},
    certificates::bundle::Configuration,
    sessions::sidecars::Serving,
};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use support::{
    PATIENCE,
    api_server::ApiServer,
    now,
    recorded::Recorded,
    twin::{Manners, Told, Twin},
};
use tokio::sync::watch;

struct Installation {
    api: Arc<ApiServer>,
    client: Client,
    authority: Arc<Authority>,
    gate: GateMaster,
}

impl Installation {
    async fn start() -> Self {
        let (api, client) = ApiServer::start().await;
        let authority = Arc::new(Authority::create(now()).unwrap());
        Self { api, client, authority, gate: GateMaster::generate().unwrap() }
    }

    /// A replica of the control plane.
    fn replica(&self) -> (Prepare, watch::Sender<Configuration>, tokio::task::JoinHandle<()>) {
        let configuration = Configuration { agrees: true, created: Some(now() - 3600) };
        let (configuration_tx, configuration) = watch::channel(configuration);
        let enroller = Enroller {
            client: self.client.clone(),
            authority: self.authority.clone(),
            gate: self.gate.clone(),
        };
        let bounds = Bounds { grace: 600, per_user: 64 };
        let (boot, prepare) = Boot::new(enroller, channel::endpoint().unwrap(), configuration, bounds);
        (prepare, configuration_tx, tokio::spawn(boot.run()))
    }

    /// A sidecar of a pod, with a token that is bound to it.
    fn twin(&self, uid: &str) -> Twin {
        self.api.know_token(&format!("token-of-{uid}"), "shop", uid);
        self.twin_with_token(uid, &format!("token-of-{uid}"))
    }

    fn twin_with_token(&self, uid: &str, token: &str) -> Twin {
        Twin::start(&self.authority, uid, Manners::proper(token))
    }
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
    let installation = Installation::start().await;
    let _replica = installation.replica();
    let mut twin = installation.twin("pod-1");
    let session = session(&[&twin]);
    installation.api.store(&session);

    assert!(matches!(twin.told().await, Told::Enroll));
    let Told::Install(install) = twin.told().await else { panic!("an announcement before its installation") };
    assert_eq!(install.reset_key, installation.authority.reset_key(twin.route));
    assert_eq!(install.gate_keys[0].as_ref(), installation.gate.route_key(twin.route).as_bytes());
    assert!(key_hash(&CertificateDer::from(install.chain[0].to_vec())).is_some());

    let announce = twin.announced().await;
    assert_eq!((announce.revision, announce.sessions.len()), (1, 1));
    assert_eq!(announce.sessions[0].features, [Feature::Env, Feature::Files]);
    assert_eq!(announce.sessions[0].expires_at, session.status.as_ref().unwrap().expires_at);

    installation.api.delete(&session);
    let announce = twin.announced().await;
    assert_eq!((announce.revision, announce.sessions.len()), (2, 0));
    assert!(matches!(twin.told().await, Told::HungUp), "a dormant sidecar has no connection");
}

#[tokio::test]
async fn all_pods_of_a_session_are_told_and_other_sessions_stay() {
    let installation = Installation::start().await;
    let _replica = installation.replica();
    let (mut one, mut other) = (installation.twin("pod-1"), installation.twin("pod-2"));
    let both = session(&[&one, &other]);
    installation.api.store(&both);
    assert_eq!(one.announced().await.sessions.len(), 1);
    assert_eq!(other.announced().await.sessions.len(), 1);
    installation.api.store(&session(&[&other]));
    assert_eq!(other.announced().await.sessions.len(), 2);
    installation.api.delete(&both);
    assert_eq!(one.announced().await.sessions.len(), 0);
    assert_eq!(other.announced().await.sessions.len(), 1);
}

#[tokio::test]
async fn a_sidecar_that_lost_everything_is_told_again() {
    let installation = Installation::start().await;
    let _replica = installation.replica();
    let mut twin = installation.twin("pod-1");
    installation.api.store(&session(&[&twin]));
    assert_eq!(twin.announced().await.sessions.len(), 1);
    twin.cut();
    assert_eq!(twin.announced().await.sessions.len(), 1);
}

#[tokio::test]
async fn a_woken_sidecar_is_ready_but_knows_of_no_session_before_one_is_stored() {
    let installation = Installation::start().await;
    let (prepare, ..) = installation.replica();
    let mut twin = installation.twin("pod-1");
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
    installation.api.store(&session(&[&twin]));
    let Told::Announce(announce) = twin.told().await else { panic!("it was dialled again") };
    assert_eq!(announce.sessions.len(), 1);
}

#[tokio::test]
async fn strangers_at_a_pods_address_get_no_certificate_and_hear_of_no_session() {
    let installation = Installation::start().await;
    let _replica = installation.replica();
    installation.api.know_token("token-of-another-pod", "shop", "another-pod");
    installation.api.know_token("token-of-pod-3", "shop", "pod-3");
    let relaying = Manners { foreign_request: true, ..Manners::proper("token-of-pod-3") };
    let mut strangers = [
        installation.twin_with_token("pod-1", "token-of-another-pod"),
        installation.twin_with_token("pod-2", "made up"),
        Twin::start(&installation.authority, "pod-3", relaying),
        installation.twin_with_token("pod-4", ""),
    ];
    let [one, two, three, four] = &strangers;
    installation.api.store(&session(&[one, two, three, four]));
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
    let installation = Installation::start().await;
    let (_first, second) = (installation.replica(), installation.replica());
    let mut twin = installation.twin("pod-1");
    let session = session(&[&twin]);
    installation.api.store(&session);
    let (one, other) = (twin.announced().await, twin.announced().await);
    assert_eq!(one, other);
    second.2.abort();
    let _ = second.2.await;
    installation.api.delete(&session);
    assert_eq!(twin.announced().await.sessions.len(), 0);
}

#[tokio::test]
async fn sessions_that_are_over_are_deleted_and_never_told() {
    let installation = Installation::start().await;
    let mut twin = installation.twin("pod-1");
    let mut over = session(&[&twin]);
    over.status.as_mut().unwrap().deadline = now();
    installation.api.store(&over);
    let _replica = installation.replica();
    let gone = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
        while !installation.api.stored().is_empty() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert!(twin.told_so_far().is_empty());
}

#[tokio::test]
async fn sessions_that_were_stored_without_our_admission_are_never_told() {
    let installation = Installation::start().await;
    let (_prepare, configuration_tx, _task) = installation.replica();
    let (mut twin, mut proper) = (installation.twin("pod-1"), installation.twin("pod-2"));
    let mut forged = session(&[&twin]);
    forged.metadata.creation_timestamp = Some(serde_json::from_value(json!("2001-01-01T00:00:00Z")).unwrap());
    configuration_tx.send_replace(Configuration::default());
    installation.api.store(&forged);
    configuration_tx.send_replace(Configuration { agrees: true, created: Some(now()) });
    installation.api.store(&session(&[&proper]));
    assert_eq!(proper.announced().await.sessions.len(), 1);
    assert!(twin.told_so_far().is_empty());
}

/// A session is made and deleted, and a recorded sidecar told of both.
async fn told_of_a_session(release: &Release, is_later: bool) {
    let installation = Installation::start().await;
    let _replica = installation.replica();
    let mut twin = Recorded::start(&installation.authority, "pod-1", release, is_later);
    installation.api.know_token(&twin.token, "shop", "pod-1");
    let mut session = session(&[]);
    session.status.as_mut().unwrap().pods = vec![twin.pod.clone()];
    installation.api.store(&session);
    for expected in ["enroll", "install", "announce"] {
        assert_eq!(twin.hears().await, expected, "{}", release.name());
    }
    installation.api.delete(&session);
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
