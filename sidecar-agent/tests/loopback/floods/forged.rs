//! First packets as anybody could make them who knows a route: their keys follow from the connection id (RFC 9001 §5.2).

use std::sync::Arc;

use mirrord_protocol::route::{ConnectionId, Purpose, RouteId};
use rustls::{
    Side,
    crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{self, Version},
};

/// What a forger calls itself.
const SOURCE: [u8; 8] = [0xf0; 8];
/// The smallest datagram that a server looks at (RFC 9000 §14.1).
const DATAGRAM_BYTES: usize = 1200;
const TAG_BYTES: usize = 16;

/// A connection id of the caller's choice, another one for each number.
pub(super) fn id(purpose: Purpose, route: RouteId, number: u32) -> [u8; 16] {
    let mut random = [0xab; 7];
    random[..4].copy_from_slice(&number.to_be_bytes());
    ConnectionId { purpose, route, random }.to_bytes()
}

/// What nobody can decrypt, but looks like an Initial.
pub(super) fn noise(destination: &[u8], token: &[u8]) -> Vec<u8> {
    let mut packet = header(destination, token);
    packet.resize(DATAGRAM_BYTES, 0x5c);
    packet
}

/// A packet of a connection that stands, or says so.
pub(super) fn short(destination: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x40];
    packet.extend_from_slice(destination);
    packet.resize(100, 0x5c);
    packet
}

/// A whole Initial with these frames.
pub(super) fn initial(destination: &[u8], token: &[u8], frames: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("its name");
    let keys = suite.quic_suite().expect("made for QUIC").keys(destination, Side::Client, Version::V1).local;
    let mut packet = header(destination, token);
    let number_at = packet.len() + 2;
    let rest = u16::try_from(DATAGRAM_BYTES - number_at).expect("short");
    packet.extend((0x4000 | rest).to_be_bytes());
    packet.extend([0; 4]);
    let mut payload = frames.to_vec();
    // Zeros are PADDING (RFC 9000 §19.1).
    payload.resize(DATAGRAM_BYTES - packet.len() - TAG_BYTES, 0);
    let tag = keys.packet.encrypt_in_place(0, &packet, &mut payload).expect("encrypted");
    packet.extend(payload);
    packet.extend(tag.as_ref());
    let (head, sample) = packet.split_at_mut(number_at + 4);
    let (first, number) = head.split_at_mut(number_at);
    keys.header.encrypt_in_place(&sample[..16], &mut first[0], number).expect("encrypted");
    packet
}

/// The frame with which a client of this configuration begins a handshake.
pub(super) fn client_hello(tls: rustls::ClientConfig, name: &str) -> Vec<u8> {
    // initial_source_connection_id (RFC 9000 §18.2).
    let parameters = [&[0x0f, 8][..], &SOURCE].concat();
    let name = name.to_owned().try_into().expect("a name");
    let mut client = quic::ClientConnection::new(Arc::new(tls), Version::V1, name, parameters).expect("made");
    let mut hello = Vec::new();
    client.write_hs(&mut hello);
    crypto(&hello)
}

/// A CRYPTO frame from the beginning (RFC 9000 §19.6).
pub(super) fn crypto(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short");
    [&[0x06, 0][..], &(0x4000 | length).to_be_bytes(), bytes].concat()
}

/// Up to the token (RFC 9000 §17.2.2), for a packet number of four octets.
fn header(destination: &[u8], token: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc3, 0, 0, 0, 1, u8::try_from(destination.len()).expect("short")];
    packet.extend_from_slice(destination);
    packet.push(8);
    packet.extend(SOURCE);
    packet.extend((0x4000 | u16::try_from(token.len()).expect("short")).to_be_bytes());
    packet.extend_from_slice(token);
    packet
}
