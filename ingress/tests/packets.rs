//! The router's sockets, with packets made by hand.

mod support;

use std::{
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use mirrord_certs::GateMaster;
use mirrord_ingress::{metrics, reason::Reason};
use mirrord_protocol::route::{Purpose, RouteId};
use mirrord_telemetry::exposition;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use support::{DAY, Gate, Ingress, id, initial, long, next, now, plain_socket, short};

const ROUTE: RouteId = RouteId([0xaa; 8]);
const OTHER: RouteId = RouteId([0xbb; 8]);

/// A router with one route to a plain socket.
async fn routed(listen: &str) -> (Gate, Ingress, UdpSocket) {
    let (gate, sidecar) = (Gate::new(), plain_socket());
    let ingress = Ingress::start(listen, gate.folder.path());
    ingress.session("one", &[(ROUTE, sidecar.local_addr().unwrap())]).await;
    (gate, ingress, sidecar)
}

#[tokio::test]
async fn what_is_dropped_never_reaches_a_sidecar() {
    let (gate, ingress, sidecar) = routed("127.0.0.1:0").await;
    let client = plain_socket();
    let session = id(Purpose::Session, ROUTE);
    let dropped = [
        (initial(&session, b""), Reason::NoToken),
        (initial(&session, &gate.token(OTHER)), Reason::TokenOfOtherRoute),
        (initial(&session, &gate.key.issue(ROUTE, now() - 10)), Reason::TokenExpired),
        (initial(&session, &GateMaster::generate().unwrap().issue(ROUTE, now() + DAY)), Reason::TokenForged),
        (initial(&id(Purpose::Session, OTHER), b""), Reason::UnknownRoute),
        (initial(&id(Purpose::Boot, ROUTE), &gate.token(ROUTE)), Reason::Boot),
        (short(&id(Purpose::Boot, ROUTE), 50), Reason::Boot),
        (long(0, &session), Reason::NoFlow),
        (short(&[0; 16], 50), Reason::ForeignId),
        (vec![0x40], Reason::NotQuic),
        (vec![], Reason::NotQuic),
    ];
    for (packet, _) in &dropped {
        client.send_to(packet, ingress.address).unwrap();
    }
    let good = initial(&session, &gate.token(ROUTE));
    client.send_to(&good, ingress.address).unwrap();
    assert!(next(&sidecar).0 == good, "what arrives first is the good one");
    for (_, reason) in &dropped {
        let expected = dropped.iter().filter(|(_, other)| other == reason).count() as u64;
        // An empty datagram has no bytes to look at.
        let expected = if *reason == Reason::NotQuic { 1 } else { expected };
        assert_eq!(ingress.counters.dropped(*reason), expected, "{reason}");
    }
    assert_eq!(ingress.counters.flows_opened.load(Relaxed), 1);
    let shown = exposition::text(&metrics::registry(&ingress.counters, &Arc::default())).unwrap();
    let families = exposition::parse(&shown).unwrap();
    for (name, labels, value) in [
        ("mirrord_ingress_datagrams_dropped_total", &[("reason", "boot")][..], 2.0),
        ("mirrord_ingress_datagrams_dropped_total", &[("reason", "full")], 0.0),
        ("mirrord_ingress_flows", &[], 1.0),
        ("mirrord_ingress_routes", &[], 1.0),
        ("mirrord_ingress_sessions_watched", &[], 1.0),
    ] {
        assert_eq!(exposition::sum(&families, name, labels), Some(value), "{name} {labels:?}");
    }
}

#[tokio::test]
async fn a_client_that_is_quicker_than_the_watch_needs_not_send_again() {
    let (gate, ingress, sidecar) = routed("127.0.0.1:0").await;
    let (client, early) = (plain_socket(), initial(&id(Purpose::Session, OTHER), &gate.token(OTHER)));
    client.send_to(&early, ingress.address).unwrap();
    // What comes second has been seen only after the first.
    client.send_to(&initial(&id(Purpose::Session, ROUTE), &gate.token(ROUTE)), ingress.address).unwrap();
    next(&sidecar);
    let second = plain_socket();
    ingress.session("two", &[(OTHER, second.local_addr().unwrap())]).await;
    assert!(next(&second).0 == early);
}

#[tokio::test]
async fn replies_come_from_the_address_that_the_client_sent_to() {
    let (gate, ingress, sidecar) = routed("[::]:0").await;
    for host in ["127.0.0.2", "127.0.0.3"] {
        let client = plain_socket();
        // A connected socket takes packets from that address only.
        client.connect((host, ingress.address.port())).unwrap();
        client.send(&initial(&id(Purpose::Session, ROUTE), &gate.token(ROUTE))).unwrap();
        let (_, upstream) = next(&sidecar);
        sidecar.send_to(b"reply", upstream).unwrap();
        assert_eq!(next(&client).0, b"reply");
    }
}

#[tokio::test]
async fn ipv6_clients_are_served_by_the_same_socket() {
    let (gate, ingress, sidecar) = routed("[::]:0").await;
    let Ok(client) = UdpSocket::bind("[::1]:0") else { return };
    client.set_read_timeout(Some(support::PATIENCE)).unwrap();
    client.connect(("::1", ingress.address.port())).unwrap();
    client.send(&initial(&id(Purpose::Session, ROUTE), &gate.token(ROUTE))).unwrap();
    let (_, upstream) = next(&sidecar);
    sidecar.send_to(b"reply", upstream).unwrap();
    assert_eq!(next(&client).0, b"reply");
}

/// A socket with offloads, as quinn has it.
struct Offloading(UdpSocket, UdpSocketState);

impl Offloading {
    fn new() -> Self {
        let socket = plain_socket();
        let state = UdpSocketState::new((&socket).into()).unwrap();
        socket.set_nonblocking(false).unwrap();
        Self(socket, state)
    }

    fn send(&self, destination: SocketAddr, contents: &[u8], segment: usize, ecn: EcnCodepoint) {
        let transmit =
            Transmit { destination, ecn: Some(ecn), contents, segment_size: Some(segment), src_ip: None };
        self.1.try_send((&self.0).into(), &transmit).unwrap();
    }

    fn receive(&self) -> (Vec<u8>, RecvMeta) {
        let (mut buffer, mut metas) = (vec![0; 65536], [RecvMeta::default()]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        assert_eq!(self.1.recv((&self.0).into(), &mut slices, &mut metas).unwrap(), 1);
        buffer.truncate(metas[0].len);
        (buffer, metas[0])
    }
}

#[tokio::test]
async fn trains_and_congestion_marks_pass_both_ways() {
    let (gate, sidecar, client) = (Gate::new(), Offloading::new(), Offloading::new());
    let ingress = Ingress::start("127.0.0.1:0", gate.folder.path());
    ingress.session("one", &[(ROUTE, sidecar.0.local_addr().unwrap())]).await;
    let session = id(Purpose::Session, ROUTE);
    let mut train = initial(&session, &gate.token(ROUTE));
    train.extend(short(&session, 1200));
    train.extend(short(&session, 700));
    client.send(ingress.address, &train, 1200, EcnCodepoint::Ect0);
    let (bytes, meta) = sidecar.receive();
    assert!(bytes == train);
    assert_eq!((meta.stride, meta.ecn), (1200, Some(EcnCodepoint::Ect0)));
    sidecar.send(meta.addr, &train, 1200, EcnCodepoint::Ce);
    let (bytes, meta) = client.receive();
    assert!(bytes == train);
    assert_eq!((meta.stride, meta.ecn, meta.addr), (1200, Some(EcnCodepoint::Ce), ingress.address));
}

#[tokio::test]
async fn a_train_for_several_sidecars_is_taken_apart() {
    let (gate, client) = (Gate::new(), Offloading::new());
    let sidecars = [Offloading::new(), Offloading::new()];
    let [first, second] = sidecars.each_ref().map(|sidecar| sidecar.0.local_addr().unwrap());
    let ingress = Ingress::start("127.0.0.1:0", gate.folder.path());
    ingress.session("one", &[(ROUTE, first), (OTHER, second)]).await;
    let [to_first, to_second] =
        [ROUTE, OTHER].map(|route| initial(&id(Purpose::Session, route), &gate.token(route)));
    let unknown = short(&id(Purpose::Session, RouteId([0xcc; 8])), 1200);
    let train = [&*to_first, &to_first, &unknown, &to_second, &to_first, &to_second].concat();
    client.send(ingress.address, &train, 1200, EcnCodepoint::Ect0);
    let lengths = |sidecar: &Offloading, packet: &[u8], count: usize| {
        let mut lengths = Vec::new();
        while lengths.iter().sum::<usize>() < count * 1200 {
            let (bytes, meta) = sidecar.receive();
            assert!(bytes.chunks(meta.stride).all(|datagram| datagram == packet));
            lengths.push(bytes.len());
        }
        lengths
    };
    assert_eq!(lengths(&sidecars[0], &to_first, 3), [2400, 1200]);
    assert_eq!(lengths(&sidecars[1], &to_second, 2), [1200, 1200]);
    assert_eq!(ingress.counters.dropped(Reason::UnknownRoute), 1);
}

#[tokio::test]
async fn a_new_gate_key_is_taken_up_when_its_first_token_comes() {
    let (gate, ingress, sidecar) = routed("127.0.0.1:0").await;
    let new = GateMaster::generate().unwrap();
    let (current, staged) = (gate.folder.path().join("current"), gate.folder.path().join("staged"));
    std::fs::write(&staged, new.as_bytes()).unwrap();
    std::fs::rename(staged, current).unwrap();
    let packet = initial(&id(Purpose::Session, ROUTE), &new.issue(ROUTE, now() + DAY));
    plain_socket().send_to(&packet, ingress.address).unwrap();
    assert!(next(&sidecar).0 == packet);
    assert_eq!(ingress.counters.dropped(Reason::TokenForged), 0);
}

#[tokio::test]
async fn a_sidecar_that_is_gone_does_not_stop_the_others() {
    let (gate, ingress, sidecar) = routed("127.0.0.1:0").await;
    let gone = plain_socket().local_addr().unwrap();
    ingress.session("two", &[(OTHER, gone)]).await;
    let client = plain_socket();
    let to_gone = initial(&id(Purpose::Session, OTHER), &gate.token(OTHER));
    let to_sidecar = initial(&id(Purpose::Session, ROUTE), &gate.token(ROUTE));
    for _ in 0..5 {
        client.send_to(&to_gone, ingress.address).unwrap();
        client.send_to(&to_sidecar, ingress.address).unwrap();
        assert!(next(&sidecar).0 == to_sidecar);
    }
}
