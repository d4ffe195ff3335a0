//! Floods by who has a session, or a key that nobody announced.

use std::{fs, path::Path, sync::Arc, task::Poll};

use mirrord_certs::{SelfSigned, verify};
use mirrord_protocol::{
    control::CloseCode,
    feature::Feature,
    frame::PREFIX_BYTES,
    limits::{HELLOS_WAITING, READ_BYTES},
    reply::{Environment, Listing, Opened},
    request::{List, Read, Request},
    route::Purpose,
};
use mirrord_tunnel::{
    framing,
    setup::{self, Windows},
};
use quinn::{Connection, SendStream};
use tokio::task::JoinSet;

use super::{Flood, LIMIT};
use crate::{
    closed, key, open, path,
    support::{ControlPlane, Session, Sidecar, within},
};

/// Streams that a session may have at last, the one that it is told its rights on among them.
const STREAMS: usize = 1024;

/// A sidecar with two sessions: one for mischief, and one that is to be served.
async fn two_sessions(sidecar: &Sidecar) -> ((SelfSigned, Session), Session, ControlPlane) {
    let (one, other, control_plane) = (key(), key(), sidecar.booted().await);
    let features = [Feature::Env, Feature::Files];
    control_plane.announce(1, &[(&one, &features), (&other, &features)]).await;
    let (mut mischief, mut honest) =
        (sidecar.session(&one, &features).await, sidecar.session(&other, &features).await);
    mischief.rights().await;
    honest.rights().await;
    ((one, mischief), honest, control_plane)
}

async fn is_served(session: &Session) {
    session.ask::<Environment>(Request::Environment {}).await.expect("granted");
    session.ask::<Opened>(open("/etc/hostname")).await.expect("granted");
}

#[tokio::test]
async fn of_hellos_before_their_announcement_a_few_wait_and_the_announced_get_through() {
    let sidecar = Sidecar::start(&[]);
    let (_mischief, honest, control_plane) = two_sessions(&sidecar).await;
    let flood = Flood::begin(&sidecar, "awake, 300 sessions that nobody announced");
    let (stranger, mut ends, mut waited) = (key(), JoinSet::new(), 0);
    for number in 0..300 {
        let (endpoint, connection) = sidecar.dial(&stranger, sidecar.token()).await.expect("connected");
        ends.spawn(async move {
            let _endpoint = endpoint;
            closed(&connection).await.0
        });
        if number % 50 == 0 {
            is_served(&honest).await;
        }
    }
    let mut busy = 0;
    while let Some(code) = ends.join_next().await {
        match code.expect("closed") {
            Some(CloseCode::Busy) => busy += 1,
            Some(CloseCode::NotAnnounced) => waited += 1,
            other => panic!("{other:?}"),
        }
    }
    // Each waits for two seconds, so there may be several turns of them.
    assert!(busy > 0 && waited >= HELLOS_WAITING, "{busy} {waited}");
    let usage = flood.usage();
    assert!(usage.peak <= LIMIT / 2 && usage.threads <= 12, "{usage}");
    let late = key();
    control_plane.announce(2, &[(&late, &[Feature::Env])]).await;
    sidecar.session(&late, &[Feature::Env]).await.rights().await;
}

#[tokio::test]
async fn streams_that_never_say_what_they_want_are_bounded_and_cost_little() {
    let sidecar = Sidecar::start(&[]);
    let ((_, mischief), honest, _control_plane) = two_sessions(&sidecar).await;
    let flood = Flood::begin(&sidecar, "awake, streams that never send their request");
    let mut streams = Vec::new();
    while streams.len() + 1 < STREAMS {
        let (mut send, receive) = within(mischief.connection.open_bi()).await.expect("opened");
        send.write_all(&[0]).await.expect("sent");
        streams.push((send, receive));
    }
    is_served(&honest).await;
    assert!(!can_open(&mischief.connection).await, "no further one");
    let usage = flood.usage();
    assert!(usage.peak <= LIMIT / 2 && usage.threads <= 12, "{usage}");
}

/// Whether a stream can be opened at once.
async fn can_open(connection: &Connection) -> bool {
    let mut opening = std::pin::pin!(connection.open_bi());
    std::future::poll_fn(|context| Poll::Ready(opening.as_mut().poll(context).is_ready())).await
}

#[tokio::test]
async fn a_request_with_a_huge_header_ends_its_session_and_large_ones_cost_what_they_say() {
    let sidecar = Sidecar::start(&[]);
    let ((_, mischief), honest, _control_plane) = two_sessions(&sidecar).await;
    let flood = Flood::begin(&sidecar, "awake, requests with the largest header that never end");
    let largest = vec![0; 16 * 1024 - 1];
    let mut streams = Vec::new();
    for _ in 0..100 {
        let (mut send, receive) = within(mischief.connection.open_bi()).await.expect("opened");
        send.write_all(&prefix(16 * 1024)).await.expect("sent");
        send.write_all(&largest).await.expect("sent");
        streams.push((send, receive));
    }
    is_served(&honest).await;
    let usage = flood.usage();
    assert!(usage.peak <= LIMIT / 2 && usage.threads <= 12, "{usage}");
    let (mut send, _receive) = within(mischief.connection.open_bi()).await.expect("opened");
    send.write_all(&prefix(16 * 1024 + 1)).await.expect("sent");
    let (code, reason) = closed(&mischief.connection).await;
    assert!(code == Some(CloseCode::Protocol) && reason.contains("exceeds the limit"), "{reason}");
    is_served(&honest).await;
}

/// How a frame without tail begins.
fn prefix(header: u32) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(&header.to_be_bytes());
    prefix
}

/// A client of a key that takes little at once: what it doesn't read stays with the sidecar.
async fn slow(sidecar: &Sidecar, key: &SelfSigned) -> (Connection, impl Sized + use<>) {
    let tls = verify::session_client(key, [sidecar.authority.certificate().clone()]).expect("configured");
    let mut config =
        setup::client(tls, Purpose::Session, sidecar.route, Some(sidecar.token())).expect("configured");
    config.transport_config(Arc::new(setup::transport(Windows { stream: 4096, connection: 4 << 20 })));
    let (endpoint, connection) =
        crate::support::dial(config, sidecar.address, &sidecar.route.server_name()).await.expect("connected");
    let (mut send, receive) = connection.open_bi().await.expect("opened");
    let hello = mirrord_protocol::control::Hello {
        version: mirrord_protocol::VERSION,
        software: "slow".into(),
        features: Feature::ALL.into(),
    };
    framing::write(&mut send, &hello, &[]).await.expect("sent");
    (connection, (endpoint, send, receive))
}

async fn ask_for_much(connection: &Connection, file: &Path) -> (SendStream, quinn::RecvStream) {
    let (mut send, receive) = within(connection.open_bi()).await.expect("opened");
    framing::write(&mut send, &open(file), &[]).await.expect("sent");
    for place in 0..8 {
        let read = Read { offset: place * u64::from(READ_BYTES), length: READ_BYTES };
        framing::write(&mut send, &read, &[]).await.expect("sent");
    }
    (send, receive)
}

#[tokio::test]
async fn who_asks_for_much_and_reads_none_of_it_holds_a_bounded_part_of_the_memory() {
    let sidecar = Sidecar::start(&[]);
    let ((key, _mischief), honest, _control_plane) = two_sessions(&sidecar).await;
    let big = tempfile::NamedTempFile::new().expect("made");
    big.as_file().set_len(64 << 20).expect("sparse");
    let flood = Flood::begin(&sidecar, "awake, 90 streams that read nothing of 8 MiB each");
    let (connection, _others) = slow(&sidecar, &key).await;
    let mut streams = JoinSet::new();
    for _ in 0..90 {
        let (send, mut receive) = ask_for_much(&connection, big.path()).await;
        // The first bytes are taken, so that what was asked for behind them is read.
        streams.spawn(async move {
            framing::expect(&mut receive).await.expect("it begins");
            receive.read_exact(&mut [0]).await.expect("it goes on");
            (send, receive)
        });
    }
    let mut begun = Vec::new();
    while begun.len() < 7 {
        begun.push(within(streams.join_next()).await.expect("one of many").expect("it goes on"));
        is_served(&honest).await;
    }
    for _ in 0..90 {
        is_served(&honest).await;
    }
    let usage = flood.usage();
    assert!(usage.threads <= 12, "{usage}");
    assert!(usage.peak <= LIMIT, "{usage}");
}

#[tokio::test]
async fn who_lists_folders_and_reads_none_of_it_loses_its_turn_to_others() {
    let sidecar = Sidecar::start(&[]);
    let ((key, _mischief), honest, _control_plane) = two_sessions(&sidecar).await;
    let folder = tempfile::tempdir().expect("made");
    for number in 0..5_000 {
        fs::write(folder.path().join(format!("{number:0>200}")), b"").expect("made");
    }
    let list = Request::List(List { path: path(folder.path()) });
    let flood = Flood::begin(&sidecar, "awake, 180 listings of which nobody reads");
    let (one, other) = (slow(&sidecar, &key).await, slow(&sidecar, &key).await);
    let mut streams = Vec::new();
    for _ in 0..90 {
        for (connection, _others) in [&one, &other] {
            let (mut send, receive) = within(connection.open_bi()).await.expect("opened");
            framing::write(&mut send, &list, &[]).await.expect("sent");
            streams.push((send, receive));
        }
    }
    let few = Request::List(List { path: path("/etc") });
    honest.ask::<Listing>(few).await.expect("its turn comes");
    is_served(&honest).await;
    let usage = flood.usage();
    assert!(usage.peak <= LIMIT && usage.threads <= 12, "{usage}");
}

#[tokio::test]
async fn of_many_connections_of_one_session_the_newest_stay_and_others_keep_theirs() {
    let sidecar = Sidecar::start(&[]);
    let ((mine, first), honest, _control_plane) = two_sessions(&sidecar).await;
    let mut newer = Vec::new();
    // More than there are places for sessions in all.
    for _ in 0..200 {
        let mut next = sidecar.session(&mine, &[Feature::Env, Feature::Files]).await;
        next.rights().await;
        newer.push(next);
    }
    assert_eq!(closed(&first.connection).await.0, Some(CloseCode::Busy));
    let stand = newer.iter().filter(|session| session.connection.close_reason().is_none()).count();
    assert_eq!(stand, 8);
    is_served(newer.last().expect("opened")).await;
    is_served(&honest).await;
}
