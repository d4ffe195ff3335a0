//! The real agent, booted and used over loopback as a control plane and clients use it in a pod.

mod floods;
mod hostile;
mod pod;
mod releases;
mod reports;
mod support;

use std::{fs, os::unix::fs::symlink, path::Path};

use mirrord_certs::{Authority, SelfSigned};
use mirrord_protocol::{
    boot::{Announce, Call},
    control::{CloseCode, Control, View},
    feature::Feature,
    path::RemotePath,
    reply::{Attributes, Connected, Data, Environment, FailureCode, Link, Listing, Opened, Resolved},
    request::{Connect, Family, List, Open, Read, ReadLink, Request, Resolve, Stat},
};
use mirrord_tunnel::framing;
use quinn::ConnectionError;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use self::support::{Sidecar, now, within};

fn key() -> SelfSigned {
    SelfSigned::generate().expect("generated")
}

fn path(path: impl AsRef<Path>) -> RemotePath {
    RemotePath::new(path.as_ref().as_os_str().as_encoded_bytes()).expect("absolute")
}

fn open(at: impl AsRef<Path>) -> Request {
    Request::Open(Open { path: path(at), no_follow: false, directory: false })
}

/// The application's close code of a connection that was ended.
async fn closed(connection: &quinn::Connection) -> (Option<CloseCode>, String) {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            let code = CloseCode::from_number(close.error_code.into_inner());
            (code, String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("not closed by the sidecar: {other}"),
    }
}

#[tokio::test]
async fn environment_and_files_come_in_one_round_trip_each() {
    let sidecar = Sidecar::start(&[("CURRENCY", "EUR"), ("EMPTY", "")]);
    let control_plane = sidecar.booted().await;
    let key = key();
    control_plane.announce(1, &[(&key, &[Feature::Env, Feature::Files])]).await;
    let mut session = sidecar.session(&key, &Feature::ALL).await;
    let rights = session.rights().await;
    assert_eq!((rights.features, rights.view), (vec![Feature::Env, Feature::Files], View::Twin));

    let (_, variables) = session.ask::<Environment>(Request::Environment {}).await.expect("granted");
    assert_eq!(variables, b"CURRENCY=EUR\0EMPTY=");

    let folder = tempfile::tempdir().expect("made");
    let file = folder.path().join("big");
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
    fs::write(&file, &content).expect("written");
    symlink("big", folder.path().join("link")).expect("linked");

    let (link, _) = session
        .ask::<Link>(Request::ReadLink(ReadLink { path: path(folder.path().join("link")) }))
        .await
        .expect("a link");
    assert_eq!(link.target, b"big");
    let stat = Request::Stat(Stat { path: path(&file), no_follow: true, access: 4 });
    let (attributes, _) = session.ask::<Attributes>(stat).await.expect("there");
    assert_eq!(attributes.size, 800_000);

    let (opened, mut send, mut receive) = session.open::<Opened>(open(&file)).await;
    assert!(!opened.expect("opened").end);
    for offset in [65_536, 799_999, 800_000] {
        framing::write(&mut send, &Read { offset, length: 16 }, &[]).await.expect("sent");
        let frame = within(framing::expect(&mut receive)).await.expect("answered");
        let data = frame.decode::<mirrord_protocol::reply::Reply<Data>>().expect("a reply");
        let start = usize::try_from(offset).expect("small");
        let expected = &content[start.min(800_000)..(start + 16).min(800_000)];
        assert_eq!((&frame.tail[..], data.into_result().expect("read").end), (expected, expected.len() < 16));
    }

    let list = Request::List(List { path: path(folder.path()) });
    let (listing, _) = session.ask::<Listing>(list).await.expect("listed");
    assert!(listing.entries.iter().any(|entry| entry.name == b"big" && entry.attributes.is_some()));
    let hidden = Request::List(List { path: path(sidecar.folder.path()) });
    let failure = session.ask::<Listing>(hidden).await.expect_err("the identity is the sidecar's own affair");
    assert_eq!(failure.errno, Some(libc::ENOENT));
}

#[tokio::test]
async fn what_is_no_file_of_the_pod_is_refused() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let key = key();
    control_plane.announce(1, &[(&key, &[Feature::Files])]).await;
    let mut session = sidecar.session(&key, &[Feature::Files]).await;
    session.rights().await;
    let fifo = sidecar.folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("made");
    for never in
        [Path::new("/proc/self/environ"), Path::new("/sys/kernel/notes"), Path::new("/dev/null"), &fifo]
    {
        let failure = session.ask::<Opened>(open(never)).await.expect_err("refused");
        assert!(failure.is(FailureCode::NeverServed), "{never:?}: {failure:?}");
        assert_eq!(failure.errno, Some(libc::EACCES));
        assert!(failure.message.contains("never served"), "{failure}");
    }
    let missing = session.ask::<Opened>(open("/no/such/file")).await.expect_err("missing");
    assert_eq!(missing.errno, Some(libc::ENOENT));
}

#[tokio::test]
async fn connections_and_names_are_the_pods() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let key = key();
    control_plane.announce(1, &[(&key, &[Feature::Outgoing])]).await;
    let mut session = sidecar.session(&key, &[Feature::Outgoing]).await;
    session.rights().await;

    let resolve =
        Resolve { name: "localhost".into(), family: Family::V4, canonical: false, configured: false };
    let (resolved, _) = session.ask::<Resolved>(Request::Resolve(resolve)).await.expect("resolved");
    assert_eq!(resolved.addresses, [std::net::IpAddr::from([127, 0, 0, 1])]);

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let (refused, ..) = session.open::<Connected>(Request::Connect(Connect { address })).await;
    let refused = refused.expect_err("loopback is guarded");
    assert!(refused.is(FailureCode::NotGranted) && refused.message.contains("loopback"), "{refused}");
    let (failure, ..) = session.open::<Environment>(Request::Environment {}).await;
    assert!(failure.expect_err("not granted").message.contains("`env`"));
}

#[tokio::test]
async fn a_connection_ends_on_each_side_by_itself() {
    let Some(own) = own_address() else { return };
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let key = key();
    control_plane.announce(1, &[(&key, &[Feature::Outgoing])]).await;
    let mut session = sidecar.session(&key, &[Feature::Outgoing]).await;
    session.rights().await;
    let listener = TcpListener::bind((own, 0)).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let (connected, mut send, mut receive) =
        session.open::<Connected>(Request::Connect(Connect { address })).await;
    assert_eq!(connected.expect("connected").peer, address);
    let (mut accepted, _) = within(listener.accept()).await.expect("accepted");
    send.write_all(b"question").await.expect("sent");
    send.finish().expect("finished");
    let mut question = String::new();
    within(accepted.read_to_string(&mut question)).await.expect("read to the end");
    assert_eq!(question, "question");
    accepted.write_all(b"answer").await.expect("still open this way");
    drop(accepted);
    assert_eq!(within(receive.read_to_end(64)).await.expect("ended"), b"answer");
    drop(listener);
    let (refused, ..) = session.open::<Connected>(Request::Connect(Connect { address })).await;
    assert_eq!(refused.expect_err("nobody listens").errno, Some(libc::ECONNREFUSED));
}

/// An address of this machine that is not loopback; traffic to it stays on the machine.
pub(crate) fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a datagram socket sends nothing: it asks the routing table.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[tokio::test]
async fn a_key_that_was_not_announced_is_turned_away() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    control_plane.announce(1, &[(&key(), &[Feature::Env])]).await;
    let session = sidecar.session(&key(), &[Feature::Env]).await;
    let (code, reason) = closed(&session.connection).await;
    assert_eq!(code, Some(CloseCode::NotAnnounced));
    assert!(reason.contains("was not announced"), "{reason}");
}

#[tokio::test]
async fn a_session_is_served_though_the_control_planes_clock_is_minutes_off() {
    for clock in [now() - 300, now() + 300] {
        let sidecar = Sidecar::start(&[]);
        let (key, control_plane) = (key(), sidecar.booted_at(clock).await);
        // Behind, it would be over already by the sidecar's clock.
        control_plane.announce_at(1, &[(&key, &[Feature::Env])], clock).await;
        let mut session = sidecar.session(&key, &[Feature::Env]).await;
        assert_eq!(session.rights().await.features, [Feature::Env]);
    }
}

#[tokio::test]
async fn a_deleted_session_ends_with_its_reason_and_stays_away() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let (key, other) = (key(), key());
    let env: &[Feature] = &[Feature::Env];
    control_plane.announce(5, &[(&key, env), (&other, env)]).await;
    let mut session = sidecar.session(&key, env).await;
    session.rights().await;
    control_plane.announce(6, &[(&other, env)]).await;
    let Control::Close(close) = session.control().await else { panic!("not closed") };
    assert_eq!(close.code, CloseCode::Deleted.number());
    assert!(close.reason.contains("was deleted"), "{}", close.reason);
    assert_eq!(closed(&session.connection).await.0, Some(CloseCode::Deleted));
    // A replica that is behind can't bring it back.
    control_plane.announce(5, &[(&key, env), (&other, env)]).await;
    let session = sidecar.session(&key, env).await;
    assert_eq!(closed(&session.connection).await.0, Some(CloseCode::NotAnnounced));
}

#[tokio::test]
async fn rights_that_shrink_count_at_the_next_request() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let key = key();
    control_plane.announce(1, &[(&key, &[Feature::Env, Feature::Files])]).await;
    let mut session = sidecar.session(&key, &[Feature::Env, Feature::Files]).await;
    session.rights().await;
    session.ask::<Environment>(Request::Environment {}).await.expect("granted");
    control_plane.announce(2, &[(&key, &[Feature::Files])]).await;
    assert_eq!(session.rights().await.features, [Feature::Files]);
    let failure = session.ask::<Environment>(Request::Environment {}).await.expect_err("taken away");
    assert!(failure.is(FailureCode::NotGranted), "{failure:?}");
}

#[tokio::test]
async fn only_the_control_plane_of_its_authority_may_boot_it() {
    let sidecar = Sidecar::start(&[]);
    let stranger = Authority::create(now()).expect("created");
    // TLS 1.3 lets a client finish before the server has judged its certificate: the first word fails then.
    if let Ok(control_plane) = sidecar.call(&stranger).await {
        let call = Call::Announce(Announce { revision: 1, sessions: Vec::new(), now: 0 });
        let said = tokio::spawn(async move { control_plane.say(call).await });
        assert!(within(said).await.is_err(), "the connection is lost");
    }
    sidecar.booted().await;
}

#[tokio::test]
async fn packets_without_a_gate_token_are_not_answered() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let key = key();
    control_plane.announce(1, &[(&key, &[Feature::Env])]).await;
    let forged = mirrord_certs::GateKey::new(&[6; 32]).expect("32 octets").issue(sidecar.route, now() + 60);
    tokio::select! {
        dialled = sidecar.dial(&key, forged) => panic!("answered: {:?}", dialled.map(drop)),
        () = async {
            // While a whole session of somebody with a token comes and goes, several times over.
            for _ in 0..3 {
                let mut session = sidecar.session(&key, &[Feature::Env]).await;
                session.rights().await;
                session.ask::<Environment>(Request::Environment {}).await.expect("granted");
            }
        } => {}
    }
}

#[tokio::test]
async fn a_dormant_agent_is_one_thread_and_is_so_again_after_the_last_session() {
    let sidecar = Sidecar::start(&[]);
    let stray = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    for _ in 0..100 {
        stray.send_to(b"not for you", sidecar.address).expect("sent");
    }
    assert_eq!(sidecar.threads(), 1);
    let control_plane = sidecar.booted().await;
    let key = key();
    control_plane.announce(1, &[(&key, &[Feature::Files])]).await;
    let mut session = sidecar.session(&key, &[Feature::Files]).await;
    session.rights().await;
    session.ask::<Opened>(open("/etc/hostname")).await.expect("read");
    assert!(sidecar.threads() > 1, "files are read on other threads");
    control_plane.announce(2, &[]).await;
    closed(&session.connection).await;
    drop((session, control_plane));
    within(async {
        while sidecar.threads() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let control_plane = sidecar.booted().await;
    assert!(control_plane.enroll().await.expect("awake again").0.installed);
}

#[tokio::test]
async fn a_killed_worker_is_replaced_its_peers_learn_and_old_announcements_stay_old() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let key = key();
    let env: &[Feature] = &[Feature::Env];
    control_plane.announce(7, &[(&key, env)]).await;
    let mut session = sidecar.session(&key, env).await;
    session.rights().await;
    let killed = sidecar.worker();
    sidecar.kill_worker();
    within(async {
        while sidecar.worker() == killed || sidecar.worker().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Whatever is said to the old one is answered by a reset of the new one (RFC 9000 §10.3).
    let (mut send, _) = session.connection.open_bi().await.expect("not known yet");
    framing::write(&mut send, &Request::Environment {}, &[]).await.expect("sent");
    assert_eq!(within(session.connection.closed()).await, ConnectionError::Reset);

    let control_plane = sidecar.booted().await;
    control_plane.announce(6, &[(&key, env)]).await;
    let session = sidecar.session(&key, env).await;
    assert_eq!(closed(&session.connection).await.0, Some(CloseCode::NotAnnounced));
    control_plane.announce(7, &[(&key, env)]).await;
    sidecar.session(&key, env).await.rights().await;
}
