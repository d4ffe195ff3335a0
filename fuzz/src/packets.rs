//! What a router reads of a datagram.

use mirrord_ingress::{reason::Reason, router::Knock};
use mirrord_protocol::{
    packet::{Form, Packet},
    route::{CID_BYTES, ConnectionId, Purpose},
};

/// A datagram. What is read of it is a part of it, in the place where RFC 8999 and RFC 9000 have it.
pub fn packets(data: &[u8]) {
    let packet = Packet::parse(data);
    let knock = Knock::read(data);
    let Some(Packet { destination, form }) = packet else {
        return assert_eq!(knock, Err(Reason::NotQuic));
    };
    let id = ConnectionId::parse(destination);
    match (id, knock) {
        (None, knock) => assert_eq!(knock, Err(Reason::ForeignId)),
        (Some(ConnectionId { purpose: Purpose::Boot, .. }), knock) => assert_eq!(knock, Err(Reason::Boot)),
        (Some(id), knock) => assert_eq!(knock.map(|knock| knock.route), Ok(id.route)),
    }
    if let Some(id) = id {
        assert_eq!(id.to_bytes(), destination);
        assert_eq!(id.route.to_string().parse(), Ok(id.route));
    }
    let first = data[0];
    if first < 0x80 {
        assert_eq!((form, destination), (Form::Short, &data[1..=CID_BYTES]));
    } else {
        long(data, destination, form);
    }
}

/// Takes a long header apart from its beginning, by what was read of it.
fn long(data: &[u8], destination: &[u8], form: Form<'_>) {
    let initial = data[0] & 0x30 == 0 && data[1..5] == [0, 0, 0, 1];
    assert_eq!(initial, matches!(form, Form::Initial { .. }));
    let rest = data[5..].strip_prefix(&[destination.len() as u8]).expect("the destination's length");
    let rest = rest.strip_prefix(destination).expect("the destination");
    let source = usize::from(rest[0]);
    let rest = rest.get(1 + source..).expect("the source");
    match form {
        Form::Initial { token } => {
            let width = 1 << (rest[0] >> 6);
            let (length, rest) = rest.split_at(width);
            let mut expected = (token.len() as u64).to_be_bytes()[8 - width..].to_vec();
            expected[0] |= width_bits(width);
            assert_eq!(length, expected);
            assert!(rest.starts_with(token));
        }
        Form::Long { version } => assert_eq!(version.to_be_bytes(), data[1..5]),
        Form::Short => panic!("short"),
    }
}

/// The two highest bits of a variable-length integer (RFC 9000 §16).
fn width_bits(width: usize) -> u8 {
    match width {
        1 => 0x00,
        2 => 0x40,
        4 => 0x80,
        _ => 0xc0,
    }
}
