//! Real clients and sidecars with the router between them.

mod support;

use std::{net::UdpSocket, sync::atomic::Ordering::Relaxed};

use mirrord_ingress::reason::Reason;
use support::{Gate, Ingress, PATIENCE, Sidecar, echo};

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test]
async fn two_clients_get_their_bytes_through_and_larger_packets_than_quic_starts_with() {
    let (gate, mut sidecar) = (Gate::new(), Sidecar::start("pod"));
    let ingress = Ingress::start("127.0.0.1:0", gate.folder.path());
    ingress.session("one", &[(sidecar.route, sidecar.address)]).await;
    let (_first_endpoint, first) = sidecar.client(ingress.address, gate.token(sidecar.route)).await;
    let (_second_endpoint, second) = sidecar.client(ingress.address, gate.token(sidecar.route)).await;
    tokio::join!(echo(&first, noise(3_000_000)), echo(&second, noise(2_000_001)));
    assert_eq!(ingress.counters.flows.load(Relaxed), 2);
    assert_eq!(ingress.counters.flows_opened.load(Relaxed), 2);
    let server_side = sidecar.connections.recv().await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while first.stats().path.current_mtu <= 1200 || server_side.stats().path.current_mtu <= 1200 {
            echo(&first, noise(100_000)).await;
        }
    })
    .await
    .expect("both ends find out that larger packets pass");
}

#[tokio::test]
async fn a_client_whose_address_changes_keeps_its_connection() {
    let (gate, mut sidecar) = (Gate::new(), Sidecar::start("pod"));
    let ingress = Ingress::start("127.0.0.1:0", gate.folder.path());
    ingress.session("one", &[(sidecar.route, sidecar.address)]).await;
    let (endpoint, connection) = sidecar.client(ingress.address, gate.token(sidecar.route)).await;
    echo(&connection, noise(1000)).await;
    let server_side = sidecar.connections.recv().await.unwrap();
    let before = server_side.remote_address();
    for round in 1..=2u64 {
        endpoint.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        echo(&connection, noise(200_000)).await;
        assert_eq!(ingress.counters.flows_opened.load(Relaxed), 1 + round);
    }
    assert_ne!(server_side.remote_address(), before);
}

#[tokio::test]
async fn a_restarted_router_goes_on_with_connections_it_never_saw() {
    let (gate, sidecar) = (Gate::new(), Sidecar::start("pod"));
    let routes = [(sidecar.route, sidecar.address)];
    let first = Ingress::start("127.0.0.1:0", gate.folder.path());
    first.session("one", &routes).await;
    let (_endpoint, connection) = sidecar.client(first.address, gate.token(sidecar.route)).await;
    echo(&connection, noise(100_000)).await;
    let address = first.address;
    first.kill();
    let second = Ingress::start(&address.to_string(), gate.folder.path());
    second.session("one", &routes).await;
    echo(&connection, noise(100_000)).await;
    assert_eq!(second.counters.flows_opened.load(Relaxed), 1);
    assert_eq!(second.counters.dropped(Reason::UnknownRoute), 0);
}

#[tokio::test]
async fn one_client_reaches_two_sidecars_from_one_address() {
    let (gate, mut first, second) = (Gate::new(), Sidecar::start("pod-1"), Sidecar::start("pod-2"));
    let ingress = Ingress::start("127.0.0.1:0", gate.folder.path());
    ingress.session("one", &[(first.route, first.address), (second.route, second.address)]).await;
    let (_endpoint, to_first) = first.client(ingress.address, gate.token(first.route)).await;
    let (_endpoint, to_second) = second.client(ingress.address, gate.token(second.route)).await;
    tokio::join!(echo(&to_first, noise(50_000)), echo(&to_second, noise(50_000)));
    first.connections.recv().await.unwrap().close(3u32.into(), b"deleted");
    to_first.closed().await;
    echo(&to_second, noise(50_000)).await;
}

#[tokio::test]
async fn a_client_that_has_to_prove_its_address_gets_through() {
    let (gate, sidecar) = (Gate::new(), Sidecar::wary("pod"));
    let ingress = Ingress::start("127.0.0.1:0", gate.folder.path());
    ingress.session("one", &[(sidecar.route, sidecar.address)]).await;
    let (_endpoint, connection) = sidecar.client(ingress.address, gate.token(sidecar.route)).await;
    echo(&connection, noise(1000)).await;
    assert_eq!(ingress.counters.flows_opened.load(Relaxed), 1);
    assert_eq!(ingress.counters.dropped(Reason::NoToken), 0);
}
