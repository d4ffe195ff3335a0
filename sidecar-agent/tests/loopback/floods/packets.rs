//! Floods of packets, by who has no key and no token, or only a token.

use std::time::Instant;

use mirrord_certs::{Authority, GateKey, verify};
use mirrord_protocol::{
    feature::Feature,
    reply::Environment,
    request::Request,
    route::{Purpose, RouteId},
};

use super::{
    Flood, LIMIT,
    forged::{client_hello, crypto, id, initial, noise, short},
};
use crate::{
    key,
    support::{Sidecar, now, within},
};

const LOCAL: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const STRANGERS: RouteId = RouteId([0xee; 8]);
/// A PING (RFC 9000 §19.2): a handshake that never goes on.
const PING: &[u8] = &[1];

/// A session as the sidecar serves it: dialled, told its rights, and answered.
async fn honest(sidecar: &Sidecar) {
    let key = key();
    let control_plane = sidecar.booted().await;
    control_plane.announce(1, &[(&key, &[Feature::Env])]).await;
    let mut session = sidecar.session(&key, &[Feature::Env]).await;
    session.rights().await;
    session.ask::<Environment>(Request::Environment {}).await.expect("granted");
}

/// How often its log has a word.
fn lines(sidecar: &Sidecar, word: &str) -> usize {
    sidecar.log().lines().filter(|line| line.contains(word)).count()
}

#[tokio::test]
async fn a_dormant_sidecar_drops_floods_without_waking_or_growing() {
    let sidecar = Sidecar::start(&[]);
    sidecar.floor().await;
    let flood = Flood::begin(&sidecar, "dormant, packets that are not for it");
    let own = sidecar.route;
    flood
        .send(10_000, LOCAL, |number| match number % 5 {
            0 => noise(&id(Purpose::Boot, STRANGERS, number), b""),
            1 => short(&id(Purpose::Session, own, number)),
            2 => short(&id(Purpose::Boot, own, number)),
            3 => b"\x17\x03\x03 noise".to_vec(),
            // Kept for whom the control plane will call, a few.
            _ => noise(&id(Purpose::Session, own, number), b"any"),
        })
        .await;
    let usage = flood.usage();
    assert!(sidecar.worker().is_none() && lines(&sidecar, "awake") == 0, "{}", sidecar.log());
    assert_eq!((usage.threads, usage.descriptors), (1, flood.before.descriptors));
    assert!(usage.peak <= flood.before.resident + 512, "{usage}");
    honest(&sidecar).await;
}

#[tokio::test]
async fn false_calls_wake_one_worker_at_a_time_and_it_goes_back_to_sleep_and_to_its_floor() {
    let sidecar = Sidecar::start(&[]);
    let floor = sidecar.floor().await;
    let flood = Flood::begin(&sidecar, "dormant, calls that nobody can decrypt");
    let began = Instant::now();
    flood.send(10_000, LOCAL, |number| noise(&id(Purpose::Boot, sidecar.route, number), b"")).await;
    let usage = flood.usage();
    assert!(usage.peak <= LIMIT / 2 && usage.threads <= 3, "{usage}");
    // Each stays for the linger, which is a second.
    let (wakes, most) = (lines(&sidecar, " awake "), began.elapsed().as_secs() + 2);
    assert!((1..=most).contains(&(wakes as u64)), "{}", sidecar.log());
    drop(sidecar.booted().await);
    within(async {
        while sidecar.worker().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let after = sidecar.usage();
    assert!(after.resident <= floor.resident + 512, "{floor}; {after}");
    assert_eq!((after.threads, after.descriptors), (1, floor.descriptors));
    assert!(sidecar.log().lines().count() < 20 * (wakes + 2), "no flood of lines");
}

/// First packets of so many boot calls, each with these frames: they cost little, and a session is served right after them.
async fn calls(flood: &'static str, count: u32, frames: &[u8]) {
    let sidecar = Sidecar::start(&[]);
    sidecar.floor().await;
    let flood = Flood::begin(&sidecar, flood);
    flood.send(count, LOCAL, |number| initial(&id(Purpose::Boot, sidecar.route, number), b"", frames)).await;
    let usage = flood.usage();
    honest(&sidecar).await;
    assert!(usage.peak <= LIMIT / 2 && usage.threads <= 3, "{usage}");
    assert!(sidecar.log().lines().count() < 100, "no flood of lines");
}

#[tokio::test]
async fn a_flood_of_calls_that_never_go_on_keeps_the_control_plane_from_nothing() {
    calls("awake, boot handshakes that never go on", 5_000, PING).await;
}

#[tokio::test]
async fn a_flood_of_calls_that_fail_keeps_the_control_plane_from_nothing() {
    calls("awake, boot handshakes that fail", 5_000, &crypto(&[0x2a; 64])).await;
}

#[tokio::test]
async fn a_flood_of_calls_by_a_false_control_plane_costs_a_bounded_number_of_handshakes() {
    let stranger = Authority::create(now()).expect("created").control_plane(now()).expect("issued");
    let hello = client_hello(verify::boot_client(&stranger).expect("configured"), "sidecar");
    calls("awake, boot handshakes of another authority", 2_000, &hello).await;
}

#[tokio::test]
async fn an_awake_sidecar_drops_first_packets_without_a_good_token_and_serves_on() {
    let sidecar = Sidecar::start(&[]);
    let (key, control_plane) = (key(), sidecar.booted().await);
    control_plane.announce(1, &[(&key, &[Feature::Env])]).await;
    let mut session = sidecar.session(&key, &[Feature::Env]).await;
    session.rights().await;
    session.ask::<Environment>(Request::Environment {}).await.expect("granted");
    let flood = Flood::begin(&sidecar, "awake, Initials without token, with a forged one, short headers");
    let forged = GateKey::new(&[6; 32]).expect("32 octets").issue(sidecar.route, now() + 60);
    flood
        .send(10_000, LOCAL, |number| {
            let id = id(Purpose::Session, sidecar.route, number);
            match number % 3 {
                0 => initial(&id, b"", PING),
                1 => initial(&id, &forged, PING),
                _ => short(&id),
            }
        })
        .await;
    session.ask::<Environment>(Request::Environment {}).await.expect("still served");
    let usage = flood.usage();
    assert!(usage.peak <= flood.before.resident + 2048, "{usage}");
    assert_eq!(lines(&sidecar, "handshake failed"), 0);
    sidecar.session(&key, &[Feature::Env]).await.rights().await;
}

#[tokio::test]
async fn a_flood_of_handshakes_by_who_holds_a_token_leaves_sessions_and_boot_alone() {
    let sidecar = Sidecar::start(&[]);
    let (key, control_plane) = (key(), sidecar.booted().await);
    control_plane.announce(1, &[(&key, &[Feature::Env])]).await;
    let mut session = sidecar.session(&key, &[Feature::Env]).await;
    session.rights().await;
    let flood = Flood::begin(&sidecar, "awake, handshakes with a good token that never go on");
    let token = sidecar.token();
    let tls = verify::session_client(&crate::key(), [sidecar.authority.certificate().clone()]);
    let hello = client_hello(tls.expect("configured"), &sidecar.route.server_name());
    flood
        .send(5_000, LOCAL, |number| {
            let frames = if number % 2 == 0 { &*hello } else { PING };
            initial(&id(Purpose::Session, sidecar.route, number), &token, frames)
        })
        .await;
    session.ask::<Environment>(Request::Environment {}).await.expect("still served");
    let usage = flood.usage();
    sidecar.booted().await.announce(2, &[(&key, &[Feature::Env])]).await;
    sidecar.session(&key, &[Feature::Env]).await.rights().await;
    assert!(usage.peak <= LIMIT / 2 && usage.threads <= 6, "{usage}");
    assert!(sidecar.log().lines().count() < 100, "no flood of lines");
}
