//! Packets as quinn makes them from our set-up, read as the router reads them.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use mirrord_certs::{Authority, SelfSigned, verify};
use mirrord_protocol::{
    packet::{Form, Packet},
    route::{ConnectionId, Purpose, RouteId},
};
use mirrord_tunnel::setup;
use quinn::{Endpoint, TokioRuntime};

const ROUTE: RouteId = RouteId([0xaa; 8]);
const NOW: u64 = 1_800_000_000;

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// The first datagrams of a client that gets no answer.
async fn knocks(purpose: Purpose, token: Option<Vec<u8>>, count: usize) -> Vec<Vec<u8>> {
    let sidecar = bound();
    let authority = Authority::create(NOW).unwrap();
    let key = SelfSigned::generate().unwrap();
    let tls = verify::session_client(&key, [authority.certificate().clone()]).unwrap();
    let config = setup::client(tls, purpose, ROUTE, token).unwrap();
    let endpoint =
        Endpoint::new(setup::endpoint(None, &[1; 32]), None, bound(), Arc::new(TokioRuntime)).unwrap();
    let address = sidecar.local_addr().unwrap();
    let _connecting = endpoint.connect_with(config, address, &ROUTE.server_name()).unwrap();
    tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 2048];
        (0..count)
            .map(|_| sidecar.recv(&mut buffer).map(|length| buffer[..length].to_vec()).unwrap())
            .collect()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn each_initial_carries_the_route_and_the_gate_token_also_when_sent_again() {
    let token = vec![0x77; 33];
    // The second is sent for want of an answer, a second later.
    for datagram in knocks(Purpose::Session, Some(token.clone()), 2).await {
        let packet = Packet::parse(&datagram).unwrap();
        assert_eq!(packet.form, Form::Initial { token: &token });
        let id = ConnectionId::parse(packet.destination).unwrap();
        assert_eq!((id.purpose, id.route), (Purpose::Session, ROUTE));
        assert!(datagram.len() >= 1200, "RFC 9000 §14.1");
    }
}

#[tokio::test]
async fn boot_connections_say_so_and_carry_no_token() {
    let datagrams = knocks(Purpose::Boot, None, 1).await;
    let packet = Packet::parse(&datagrams[0]).unwrap();
    assert_eq!(packet.form, Form::Initial { token: &[] });
    assert_eq!(ConnectionId::parse(packet.destination).unwrap().purpose, Purpose::Boot);
}

#[tokio::test]
async fn connection_ids_differ_from_connection_to_connection() {
    let id = |datagrams: Vec<Vec<u8>>| Packet::parse(&datagrams[0]).unwrap().destination.to_vec();
    let first = id(knocks(Purpose::Session, None, 1).await);
    assert_ne!(first, id(knocks(Purpose::Session, None, 1).await));
}

#[tokio::test]
async fn all_ids_that_a_sidecar_issues_carry_its_route() {
    let authority = Authority::create(now()).unwrap();
    let key = SelfSigned::generate().unwrap();
    let certificate = authority.sidecar(&key.signing_request().unwrap(), ROUTE, now(), 3600).unwrap();
    let tls = verify::session_server(vec![certificate], key.private_key()).unwrap();
    let server = setup::server(tls, setup::Windows::default()).unwrap();
    let runtime = Arc::new(TokioRuntime);
    let config = setup::endpoint(Some(ROUTE), &[2; 32]);
    let sidecar = Endpoint::new(config, Some(server), bound(), runtime.clone()).unwrap();
    let address = sidecar.local_addr().unwrap();
    let serving = tokio::spawn(async move { sidecar.accept().await.unwrap().await.unwrap().closed().await });

    // Between both sits a relay that looks at what the client sends.
    let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relay_address = relay.local_addr().unwrap();
    let (seen_tx, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let relaying = tokio::spawn(async move {
        let (mut buffer, mut client) = ([0; 2048], None);
        loop {
            let (length, from) = relay.recv_from(&mut buffer).await.unwrap();
            let to = if from == address { client } else { Some(address) };
            if from != address {
                client = Some(from);
                let _ = seen_tx.send(buffer[..length].to_vec());
            }
            if let Some(to) = to {
                relay.send_to(&buffer[..length], to).await.unwrap();
            }
        }
    });

    let key = SelfSigned::generate().unwrap();
    let tls = verify::session_client(&key, [authority.certificate().clone()]).unwrap();
    let config = setup::client(tls, Purpose::Session, ROUTE, None).unwrap();
    let endpoint = Endpoint::new(setup::endpoint(None, &[1; 32]), None, bound(), runtime).unwrap();
    let connection =
        endpoint.connect_with(config, relay_address, &ROUTE.server_name()).unwrap().await.unwrap();
    connection.close(0u32.into(), b"");
    serving.await.unwrap();
    relaying.abort();
    let (mut ids, mut short) = (std::collections::HashSet::new(), 0);
    while let Some(datagram) = seen.recv().await {
        let packet = Packet::parse(&datagram).unwrap();
        let id = ConnectionId::parse(packet.destination).expect("an id of ours");
        assert_eq!((id.purpose, id.route), (Purpose::Session, ROUTE));
        ids.insert(id.random);
        short += usize::from(packet.form == Form::Short);
    }
    assert!(ids.len() >= 2, "the client's own choice, and the sidecar's");
    assert!(short >= 1, "also once the connection stands");
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
