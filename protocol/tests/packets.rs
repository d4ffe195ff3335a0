//! Packets and connection ids as a router reads them. (`tunnel/tests` has packets that quinn made.)

use mirrord_protocol::{
    packet::{Form, Packet},
    route::{CID_BYTES, ConnectionId, NoRouteId, Purpose, RouteId},
};
use proptest::{collection::vec, prelude::*};

/// The client's Initial of RFC 9001 appendix A.2, as protected, cut behind its header.
const RFC_9001_INITIAL: [u8; 22] = [
    0xc0, 0x00, 0x00, 0x00, 0x01, 0x08, 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08, 0x00, 0x00, 0x44,
    0x9e, 0x7b, 0x9a, 0xec, 0x34,
];
/// The Retry of RFC 9001 appendix A.4.
const RFC_9001_RETRY: &[u8] =
    b"\xff\x00\x00\x00\x01\x00\x08\xf0\x67\xa5\x50\x2a\x42\x62\xb5token\x04\xa2\x65\xba";

#[test]
fn the_examples_of_rfc_9001_are_read_as_what_they_are() {
    let packet = Packet::parse(&RFC_9001_INITIAL).unwrap();
    assert_eq!(packet.destination, [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]);
    assert_eq!(packet.form, Form::Initial { token: &[] });
    let packet = Packet::parse(RFC_9001_RETRY).unwrap();
    assert_eq!((packet.destination, packet.form), (&[][..], Form::Long { version: 1 }));
}

/// A long header with ids of these lengths, then `rest`.
fn long(first: u8, version: u32, destination: &[u8], source: &[u8], rest: &[u8]) -> Vec<u8> {
    let length = |id: &[u8]| [u8::try_from(id.len()).unwrap()];
    [&[first], &version.to_be_bytes()[..], &length(destination), destination, &length(source), source, rest]
        .concat()
}

/// A variable-length integer in a given width (RFC 9000 §16).
fn varint(number: u64, width: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes()[8 - width..].to_vec();
    bytes[0] |= u8::try_from(width.ilog2()).unwrap() << 6;
    bytes
}

#[test]
fn tokens_are_found_whatever_the_width_of_their_length() {
    for width in [1, 2, 4, 8] {
        let rest = [varint(5, width), b"tokenpayload".to_vec()].concat();
        let bytes = long(0xc0, 1, &[1; 16], &[2; 20], &rest);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.destination, packet.form), (&[1; 16][..], Form::Initial { token: b"token" }));
    }
}

#[test]
fn a_token_longer_than_its_packet_is_no_token() {
    for length in [6, 63] {
        let rest = [varint(length, 1), b"short".to_vec()].concat();
        assert_eq!(Packet::parse(&long(0xc0, 1, &[1; 16], &[], &rest)), None);
    }
    for rest in [varint((1 << 62) - 1, 8), varint(1 << 29, 4), vec![0xc0], vec![]] {
        assert_eq!(Packet::parse(&long(0xc0, 1, &[1; 16], &[], &rest)), None);
    }
}

#[test]
fn other_types_and_versions_are_long_and_nothing_more() {
    for (first, version) in
        [(0xd0, 1), (0xe0, 1), (0xf0, 1), (0xc0, 0), (0xc0, 0x6b33_43cf), (0xc0, u32::MAX)]
    {
        let bytes = long(first, version, &[1; 255], &[2; 255], &[]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.destination.len(), packet.form), (255, Form::Long { version }));
    }
}

#[test]
fn a_short_header_has_an_id_of_ours_or_is_no_packet() {
    let bytes = [&[0x40][..], &[3; CID_BYTES], b"rest"].concat();
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.destination, packet.form), (&[3; CID_BYTES][..], Form::Short));
    assert_eq!(Packet::parse(&bytes[..CID_BYTES]), None);
    assert_eq!(Packet::parse(&[]), None);
}

#[test]
fn ids_of_other_lengths_or_purposes_are_not_ours() {
    let id = ConnectionId { purpose: Purpose::Session, route: RouteId([4; 8]), random: [5; 7] }.to_bytes();
    assert!(ConnectionId::parse(&id).is_some());
    assert!(ConnectionId::parse(&id[..15]).is_none());
    assert!(ConnectionId::parse(&[&id[..], &[0]].concat()).is_none());
    for octet in (0..=255).filter(|octet| ![1, 2].contains(octet)) {
        assert!(ConnectionId::parse(&[&[octet], &id[1..]].concat()).is_none());
    }
}

#[test]
fn routes_of_containers_differ_by_pod_and_container() {
    let route = RouteId::of("uid-1", "app");
    assert_eq!(route, RouteId::of("uid-1", "app"));
    assert_ne!(route, RouteId::of("uid-1", "web"));
    assert_ne!(route, RouteId::of("uid-2", "app"));
    assert!(route.server_name().ends_with(".sidecar.mirrord.dev"));
}

#[test]
fn text_that_is_no_route_is_refused() {
    for text in
        ["", "0", "00112233445566778", "001122334455667g", "+011223344556677", "0x11223344556677", "ääääääää"]
    {
        assert_eq!(text.parse::<RouteId>(), Err(NoRouteId), "{text}");
    }
    assert_eq!("00112233AABBccdd".parse(), Ok(RouteId([0, 0x11, 0x22, 0x33, 0xaa, 0xbb, 0xcc, 0xdd])));
}

proptest! {
    #[test]
    fn routes_survive_text(bytes: [u8; 8]) {
        let route = RouteId(bytes);
        prop_assert_eq!(route.to_string().parse(), Ok(route));
    }

    #[test]
    fn connection_ids_survive_bytes(route: [u8; 8], random: [u8; 7], boot: bool) {
        let purpose = if boot { Purpose::Boot } else { Purpose::Session };
        let id = ConnectionId { purpose, route: RouteId(route), random };
        prop_assert_eq!(ConnectionId::parse(&id.to_bytes()), Some(id));
    }

    #[test]
    fn what_parses_as_an_id_is_written_as_it_was(mut bytes: [u8; 16], purpose in 0u8..4) {
        bytes[0] = purpose;
        if let Some(id) = ConnectionId::parse(&bytes) {
            prop_assert_eq!(id.to_bytes(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..100)) {
        if let Some(packet) = Packet::parse(&bytes) {
            let _ = ConnectionId::parse(packet.destination);
        }
    }

    #[test]
    fn headers_cut_anywhere_are_refused_or_read_alike(
        destination in vec(any::<u8>(), 0..20), token in vec(any::<u8>(), 0..60), cut in any::<prop::sample::Index>(),
    ) {
        let rest = [varint(token.len() as u64, 2), token.clone(), vec![0; 30]].concat();
        let bytes = long(0xc0, 1, &destination, &[], &rest);
        let whole = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(whole, Packet { destination: &destination, form: Form::Initial { token: &token } });
        let part = Packet::parse(&bytes[..cut.index(bytes.len())]);
        prop_assert!(part.is_none() || part == Some(whole));
    }
}
