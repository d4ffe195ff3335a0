//! Whoever means harm: false control planes, clients who go for what is guarded, and an application that swaps files under a
//! session's hands.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mirrord_certs::{Authority, Identity, SelfSigned, verify};
use mirrord_protocol::{
    boot::{Call, Install},
    feature::Feature,
    reply::{Connected, Environment, FailureCode, Opened, Resolved},
    request::{Connect, Family, Request, Resolve},
    route::Purpose,
};
use mirrord_tunnel::setup;
use quinn::ConnectionError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use serde_bytes::ByteBuf;

use crate::{
    key, open,
    pod::{behind, session},
    support::{Sidecar, dial, now, within},
};

/// Has no certificate to show.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn of_a_sidecar(sidecar: &Sidecar) -> Identity {
    let key = key();
    let csr = key.signing_request().expect("signed");
    let leaf = sidecar.authority.sidecar(&csr, sidecar.route, now(), 3600).expect("issued");
    Identity { chain: vec![leaf], key: key.private_key(), not_after: now() + 3600 }
}

fn of_a_client(key: &SelfSigned) -> Identity {
    Identity { chain: vec![key.certificate().clone()], key: key.private_key(), not_after: now() + 3600 }
}

#[tokio::test]
async fn nobody_but_its_control_plane_gets_through_to_the_boot_channel() {
    let sidecar = Sidecar::start(&[]);
    let stranger = Authority::create(now()).expect("created");
    let serving = sidecar.authority.serving(&["mirrord-webhook.mirrord.svc".into()], now()).expect("issued");
    let callers = [
        ("another installation's control plane", stranger.control_plane(now()).expect("issued")),
        ("a sidecar of the same installation", of_a_sidecar(&sidecar)),
        ("the webhook's serving certificate", serving),
        ("a client's key", of_a_client(&key())),
    ];
    let boot = |identity: &Identity| verify::boot_client(identity).expect("configured");
    let mut callers: Vec<_> = callers.iter().map(|(who, identity)| (*who, boot(identity))).collect();
    let mut nobody = boot(&of_a_client(&key()));
    nobody.client_auth_cert_resolver = Arc::new(Nobody);
    callers.push(("nobody", nobody));
    for (who, tls) in callers {
        let config = setup::client(tls, Purpose::Boot, sidecar.route, None).expect("configured");
        // TLS 1.3 lets a client finish before the server has judged its certificate.
        let refused = match dial(config, sidecar.address, "sidecar").await {
            Err(error) => error,
            Ok((_endpoint, connection)) => within(connection.closed()).await,
        };
        let ConnectionError::ConnectionClosed(close) = refused else { panic!("{who}: {refused}") };
        // A TLS alert: 0x100 and its number (RFC 9001 §4.8).
        assert!((0x100..0x200).contains(&u64::from(close.error_code)), "{who}: {close}");
    }
    sidecar.booted().await;
}

#[tokio::test]
async fn what_is_installed_must_be_for_its_own_key_and_whole() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.call(&sidecar.authority).await.expect("connected");
    let others = of_a_sidecar(&sidecar).chain.remove(0);
    let (enrolled, _) = control_plane.enroll().await.expect("enrolled");
    let own = sidecar.authority.sidecar(&enrolled.csr, sidecar.route, now(), 3600).expect("issued");
    let install = |leaf: Option<&[u8]>, reset_key: usize, gate_keys: &[usize]| Install {
        chain: leaf.map(|leaf| ByteBuf::from(leaf.to_vec())).into_iter().collect(),
        reset_key: vec![1; reset_key],
        gate_keys: gate_keys.iter().map(|length| ByteBuf::from(vec![2; *length])).collect(),
    };
    for (install, why) in [
        (install(Some(&others), 32, &[32]), "of another key"),
        (install(None, 32, &[32]), "chain is empty"),
        (install(Some(&own), 31, &[32]), "reset key"),
        (install(Some(&own), 32, &[]), "gate keys"),
        (install(Some(&own), 32, &[32, 16]), "gate keys"),
    ] {
        let failure = control_plane.say(Call::Install(install)).await.expect_err(why);
        assert!(failure.is(FailureCode::Malformed) && failure.message.contains(why), "{failure}");
    }
    control_plane.say(Call::Install(install(Some(&own), 32, &[32]))).await.expect("installed");
}

#[tokio::test]
async fn a_guarded_address_is_refused_in_every_form_and_behind_every_name() {
    let sidecar = Sidecar::start(&[]);
    let session = session(&sidecar, &key(), &Feature::ALL).await;
    let mut addresses: Vec<SocketAddr> = [
        "127.0.0.1:80",
        "0.0.0.0:80",
        "[::1]:80",
        "[::]:80",
        "[::ffff:127.0.0.1]:80",
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "[64:ff9b::a9fe:a9fe]:80",
        "[fe80::1]:80",
        "[fd00:ec2::254]:80",
        "168.63.129.16:80",
    ]
    .map(|text| text.parse().expect(text))
    .into();
    // Whatever a name stands for is only known once it is resolved; and there are odd ways to write numbers.
    for name in ["localhost", "127.1", "0x7f000001", "2130706433", "169.254.169.254"] {
        let resolve = Resolve { name: name.into(), family: Family::Any, canonical: false, configured: false };
        let (resolved, _) = session.ask::<Resolved>(Request::Resolve(resolve)).await.expect(name);
        assert!(!resolved.addresses.is_empty(), "{name}");
        addresses.extend(resolved.addresses.into_iter().map(|address| SocketAddr::new(address, 80)));
    }
    for address in addresses {
        let (connected, ..) = session.open::<Connected>(Request::Connect(Connect { address })).await;
        let refused = connected.expect_err("guarded");
        assert!(refused.is(FailureCode::NotGranted), "{address}: {refused}");
        assert!(refused.message.contains("never reached from a pod"), "{address}: {refused}");
    }
}

#[tokio::test]
async fn a_link_that_is_swapped_under_a_sessions_hands_never_shows_a_secret() {
    let folder = tempfile::tempdir().expect("made");
    let script =
        r#"cd "$0"; mkdir secret; mount -t tmpfs none secret; echo hush >secret/key; echo plain >plain"#;
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    symlink("plain", &one).expect("linked");
    symlink("secret/key", &other).expect("linked");
    let mount = folder.path().join("secret");
    let arguments = ["--secret-mount", mount.to_str().expect("UTF-8")];
    let sidecar = Sidecar::start_behind(&behind(script, &folder), &arguments, &[]);
    let files = session(&sidecar, &key(), &[Feature::Files]).await;
    let over = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (over, one) = (Arc::clone(&over), one.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).expect("exchanged");
            }
        })
    };
    let mut seen = BTreeSet::new();
    let mut looks = 0;
    while looks < 200 || (seen.len() < 2 && looks < 20_000) {
        let answer = files.ask::<Opened>(open(&one)).await;
        seen.insert(answer.map(|(_, bytes)| bytes).map_err(|failure| failure.message));
        looks += 1;
    }
    over.store(true, Ordering::Relaxed);
    swapping.join().expect("ended");
    let refused = "it lies on a mounted Secret or token: the session was not granted `secrets`";
    assert_eq!(seen, BTreeSet::from([Ok(b"plain\n".to_vec()), Err(refused.to_owned())]));
}

#[tokio::test]
async fn its_log_tells_who_came_and_no_secret() {
    let sidecar = Sidecar::start(&[("PASSWORD", "hunter2")]);
    let file = tempfile::NamedTempFile::new().expect("made");
    fs::write(file.path(), "c0nt3nt").expect("written");
    let files = session(&sidecar, &key(), &[Feature::Env, Feature::Files]).await;
    files.ask::<Environment>(Request::Environment {}).await.expect("granted");
    files.ask::<Opened>(open(file.path())).await.expect("granted");
    let log = sidecar.log();
    assert!(log.contains("session begins") && log.contains("creator=\"ada\""), "{log}");
    for secret in ["hunter2", "c0nt3nt", "the token"] {
        assert!(!log.contains(secret), "{log}");
    }
}
