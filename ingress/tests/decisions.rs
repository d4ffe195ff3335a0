//! What the router decides, packet by packet, and what a flood can cost.

mod support;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mirrord_certs::GateMaster;
use mirrord_ingress::{
    flows::{Bounds, FlowId},
    reason::Reason,
    router::{Knock, Moment, Router, Verdict},
    routes::{Change, GRACE, Grant, SKEW},
};
use mirrord_protocol::{
    limits,
    route::{Purpose, RouteId},
};
use proptest::prelude::*;
use support::{BOUNDS, handshake, id, initial, long, short};

const ROUTE: RouteId = RouteId([0xaa; 8]);
const OTHER: RouteId = RouteId([0xbb; 8]);
const UNTIL: u64 = 10_000;

struct World {
    router: Router,
    key: GateMaster,
    started: Instant,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let key = GateMaster::new(&[3; 32]).unwrap();
        let mut world = Self { router: Router::new(bounds, vec![key.clone()]), key, started: Instant::now() };
        world.session("one", &[ROUTE]);
        world
    }

    fn session(&mut self, name: &str, routes: &[RouteId]) -> Vec<FlowId> {
        let routes = routes.iter().map(|&route| (route, sidecar())).collect();
        self.router.apply(Change::Set(name.into(), Grant { routes, until: UNTIL }), self.started)
    }

    fn decide(&mut self, client: SocketAddr, datagram: &[u8]) -> Verdict {
        self.decide_at(client, datagram, 0)
    }

    fn decide_at(&mut self, client: SocketAddr, datagram: &[u8], unix: u64) -> Verdict {
        match Knock::read(datagram) {
            Ok(knock) => self.router.decide(client, &knock, Moment { instant: self.started, unix }),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    fn token(&self, route: RouteId) -> Vec<u8> {
        self.key.issue(route, 100)
    }
}

fn sidecar() -> SocketAddr {
    "10.0.0.1:4433".parse().unwrap()
}

fn client(number: u32) -> SocketAddr {
    SocketAddr::from((number.to_be_bytes(), 7))
}

fn session_id(route: RouteId) -> [u8; 16] {
    id(Purpose::Session, route)
}

#[test]
fn a_valid_token_opens_a_flow_that_then_takes_everything() {
    let mut world = World::new(BOUNDS);
    let opened = world.decide(client(1), &initial(&session_id(ROUTE), &world.token(ROUTE)));
    let Verdict::Open(flow, to) = opened else { panic!("{opened:?}") };
    assert_eq!(to, sidecar());
    for packet in [
        initial(&session_id(ROUTE), b""),
        handshake(&session_id(ROUTE)),
        long(0xdead_beef, &session_id(ROUTE)),
        short(&session_id(ROUTE), 60),
    ] {
        assert_eq!(world.decide(client(1), &packet), Verdict::Forward(flow));
    }
}

#[test]
fn tokens_that_are_no_good_open_nothing() {
    let mut world = World::new(BOUNDS);
    let forged = GateMaster::new(&[4; 32]).unwrap().issue(ROUTE, 100);
    let expired = world.key.issue(ROUTE, 9);
    for (token, reason) in [
        (Vec::new(), Reason::NoToken),
        (vec![1; 33], Reason::TokenOfOtherRoute),
        (world.token(OTHER), Reason::TokenOfOtherRoute),
        (expired, Reason::TokenExpired),
        (forged, Reason::TokenForged),
    ] {
        let packet = initial(&session_id(ROUTE), &token);
        assert_eq!(world.decide_at(client(1), &packet, 10), Verdict::Drop(reason));
    }
    assert_eq!(world.router.flows(), 0);
}

#[test]
fn the_previous_key_still_opens() {
    let mut world = World::new(BOUNDS);
    world.router.set_keys(vec![GateMaster::new(&[9; 32]).unwrap(), world.key.clone()]);
    let packet = initial(&session_id(ROUTE), &world.token(ROUTE));
    assert!(matches!(world.decide(client(1), &packet), Verdict::Open(..)));
}

#[test]
fn boot_connections_never_pass_not_even_with_a_token_or_on_a_flow() {
    let mut world = World::new(BOUNDS);
    let open = initial(&session_id(ROUTE), &world.token(ROUTE));
    assert!(matches!(world.decide(client(1), &open), Verdict::Open(..)));
    let boot = id(Purpose::Boot, ROUTE);
    for packet in [initial(&boot, &world.token(ROUTE)), short(&boot, 60), long(1, &boot)] {
        let verdict = world.decide(client(1), &packet);
        assert!(matches!(verdict, Verdict::Drop(Reason::Boot | Reason::NotQuic)), "{verdict:?}");
    }
}

#[test]
fn only_initials_and_short_headers_open_flows() {
    let mut world = World::new(BOUNDS);
    for packet in
        [handshake(&session_id(ROUTE)), long(0, &session_id(ROUTE)), long(0x6b33_43cf, &session_id(ROUTE))]
    {
        assert_eq!(world.decide(client(1), &packet), Verdict::Drop(Reason::NoFlow));
    }
}

#[test]
fn a_connection_that_lost_its_flow_gets_one_for_known_routes_only() {
    let mut world = World::new(BOUNDS);
    let opened = world.decide(client(1), &short(&session_id(ROUTE), 60));
    assert!(matches!(opened, Verdict::Open(_, to) if to == sidecar()), "{opened:?}");
    let unknown = world.decide(client(1), &short(&session_id(OTHER), 60));
    assert_eq!(unknown, Verdict::Drop(Reason::UnknownRoute));
}

#[test]
fn only_a_valid_token_is_kept_for_a_route_to_come() {
    let mut world = World::new(BOUNDS);
    let early = initial(&session_id(OTHER), &world.token(OTHER));
    assert_eq!(world.decide(client(1), &early), Verdict::Hold);
    for (token, at) in [(world.token(ROUTE), 0), (Vec::new(), 0), (world.token(OTHER), 101)] {
        let verdict = world.decide_at(client(1), &initial(&session_id(OTHER), &token), at);
        assert_eq!(verdict, Verdict::Drop(Reason::UnknownRoute));
    }
    world.session("two", &[OTHER]);
    assert!(matches!(world.decide(client(1), &early), Verdict::Open(..)));
    world.router.apply(Change::Remove("two".into()), world.started);
    let late = world.decide(client(2), &early);
    assert_eq!(late, Verdict::Drop(Reason::UnknownRoute), "a route that went won't come");
}

#[test]
fn foreign_packets_are_told_apart() {
    let mut world = World::new(BOUNDS);
    for (packet, reason) in [
        (vec![], Reason::NotQuic),
        (vec![0x40; 5], Reason::NotQuic),
        (b"\x16\x03\x01\x02\x00".to_vec(), Reason::NotQuic),
        (initial(&[9; 8], b""), Reason::ForeignId),
        (short(&[9; 16], 60), Reason::ForeignId),
    ] {
        assert_eq!(world.decide(client(1), &packet), Verdict::Drop(reason), "{packet:02x?}");
    }
}

#[test]
fn routes_end_with_their_sessions_and_flows_a_little_later() {
    let mut world = World::new(BOUNDS);
    let packet = short(&session_id(ROUTE), 60);
    let Verdict::Open(flow, _) = world.decide(client(1), &packet) else { panic!("not opened") };
    assert_eq!(world.router.apply(Change::Remove("one".into()), world.started), []);
    assert_eq!(world.decide(client(1), &packet), Verdict::Forward(flow), "for the sidecar's last words");
    assert_eq!(world.decide(client(2), &packet), Verdict::Drop(Reason::UnknownRoute));
    assert_eq!(world.router.tick(world.started + GRACE), [flow]);
    assert!(!world.router.ticks(), "nothing left to wait for");
    assert_eq!(world.decide(client(1), &packet), Verdict::Drop(Reason::UnknownRoute));
}

#[test]
fn a_session_past_its_deadline_opens_nothing() {
    let mut world = World::new(BOUNDS);
    let packet = short(&session_id(ROUTE), 60);
    let verdict = world.decide_at(client(1), &packet, UNTIL + SKEW + 1);
    assert_eq!(verdict, Verdict::Drop(Reason::UnknownRoute));
    assert!(matches!(world.decide_at(client(1), &packet, UNTIL), Verdict::Open(..)));
}

#[test]
fn a_pod_that_moved_closes_its_flows_so_that_they_open_anew() {
    let mut world = World::new(BOUNDS);
    let packet = short(&session_id(ROUTE), 60);
    let Verdict::Open(flow, _) = world.decide(client(1), &packet) else { panic!("not opened") };
    let moved: SocketAddr = "10.0.0.2:4433".parse().unwrap();
    let grant = Grant { routes: vec![(ROUTE, moved)], until: UNTIL };
    assert_eq!(world.router.apply(Change::Set("one".into(), grant), world.started), [flow]);
    let again = world.decide(client(1), &packet);
    assert!(matches!(again, Verdict::Open(_, to) if to == moved), "{again:?}");
}

#[test]
fn a_flood_without_tokens_opens_nothing_and_one_of_migrations_a_bounded_number() {
    let mut world = World::new(Bounds { total: 16_384, per_client: 2048 });
    world.session("two", &[OTHER]);
    let (without, spoofed) = (initial(&session_id(ROUTE), b""), short(&session_id(ROUTE), 60));
    for number in 0..100_000 {
        assert_eq!(world.decide(client(number), &without), Verdict::Drop(Reason::NoToken));
    }
    assert_eq!(world.router.flows(), 0);
    for number in 0..100_000 {
        world.decide(client(number), &spoofed);
    }
    assert_eq!(world.router.flows(), limits::SESSIONS);
    let mine = initial(&session_id(ROUTE), &world.token(ROUTE));
    assert!(matches!(world.decide(client(1 << 30), &mine), Verdict::Open(..)), "a token still opens");
    let migrated = short(&session_id(OTHER), 60);
    assert!(matches!(world.decide(client(1 << 30), &migrated), Verdict::Open(..)), "so do other routes");
    let later = world.started + Duration::from_secs(46);
    assert_eq!(world.router.tick(later).len(), limits::SESSIONS + 1, "and it is over when it is over");
}

/// Packets that are almost right, so that decisions go deep.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let route = prop_oneof![Just(ROUTE), Just(OTHER), any::<[u8; 8]>().prop_map(RouteId)];
    let purpose = prop_oneof![8 => Just(Purpose::Session), 1 => Just(Purpose::Boot)];
    let key = prop_oneof![Just(GateMaster::new(&[3; 32]).unwrap()), Just(GateMaster::new(&[4; 32]).unwrap())];
    let shaped = (route.clone(), purpose, route, key, 0u64..40, 0u8..4, any::<bool>()).prop_map(
        |(route, purpose, token_route, key, expiry, kind, cut)| {
            let destination = id(purpose, route);
            let mut packet = match kind {
                0 | 1 => initial(&destination, &key.issue(token_route, expiry)),
                2 => short(&destination, 60),
                _ => long(1, &destination),
            };
            if cut {
                packet.truncate(40);
            }
            packet
        },
    );
    prop_oneof![shaped, proptest::collection::vec(any::<u8>(), 0..100)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn no_packets_make_it_panic_or_exceed_its_bounds(
        packets in proptest::collection::vec((packets(), 0u32..40, 0u64..20), 0..200),
    ) {
        let mut world = World::new(Bounds { total: 20, per_client: 4 });
        let mut upstreams = std::collections::HashSet::new();
        for (packet, number, seconds) in packets {
            world.started += Duration::from_secs(seconds);
            for closed in world.router.tick(world.started) {
                prop_assert!(upstreams.remove(&closed));
            }
            match world.decide_at(client(number), &packet, 20) {
                Verdict::Open(flow, _) => prop_assert!(upstreams.insert(flow), "a flow is opened once"),
                Verdict::Forward(flow) => prop_assert!(upstreams.contains(&flow)),
                Verdict::Hold | Verdict::Drop(_) => {}
            }
            prop_assert_eq!(upstreams.len(), world.router.flows());
            prop_assert!(world.router.flows() <= 20);
        }
    }
}
