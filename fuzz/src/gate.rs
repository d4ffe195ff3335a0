//! Gate tokens and their keys.

use mirrord_certs::{GATE_TOKEN_BYTES, GateError, GateKey, GateMaster};
use mirrord_protocol::route::{ROUTE_BYTES, RouteId};

use crate::bytes::Bytes;

/// When the token is shown.
const NOW: u64 = 1000;

/// How the token is made good, its route, and the token. It opens a gate only if it is to the letter what the key issues.
pub fn gate(data: &[u8]) {
    let mut rest = Bytes(data);
    let (mend, route) = (rest.number(), RouteId([rest.number() % 3; ROUTE_BYTES]));
    let master = GateMaster::new(&[7; 32]).expect("32 bytes");
    let key = master.route_key(route);
    assert_eq!(GateKey::new(rest.0).is_some(), rest.0.len() == 32);

    let token = mended(mend, rest.0, &key);
    let verdict = key.verify(&token, route, NOW);
    assert_eq!(verdict, expected(&token, route, &key));
    assert_eq!(master.verify(&token, route, NOW), verdict);
    let other = RouteId([9; ROUTE_BYTES]);
    assert_ne!(master.verify(&token, other, NOW), Ok(()));
    assert_ne!(master.route_key(other).verify(&token, route, NOW), Ok(()));
    assert_ne!(GateMaster::new(&[8; 32]).expect("32 bytes").verify(&token, route, NOW), Ok(()));
}

/// No fuzzer finds a signature: some tokens get one, and some of these are then spoilt in one bit.
fn mended(how: u8, token: &[u8], key: &GateKey) -> Vec<u8> {
    let mut token = token.to_vec();
    let Some((route, expiry)) = parts(&token).filter(|_| how >= 0x80) else { return token };
    token = key.issue(route, expiry);
    if how >= 0xc0 {
        let at = usize::from(how) % token.len();
        token[at] ^= 1 << (how % 8);
    }
    token
}

/// Route and expiry of a token, where they would stand.
fn parts(token: &[u8]) -> Option<(RouteId, u64)> {
    let (expiry, rest) = token.get(1..)?.split_first_chunk()?;
    Some((RouteId(*rest.first_chunk()?), u64::from_be_bytes(*expiry)))
}

/// The table of errors, the first that holds.
fn expected(token: &[u8], route: RouteId, key: &GateKey) -> Result<(), GateError> {
    let Some((own, expiry)) = parts(token) else { return Err(GateError::Malformed) };
    if token.len() != GATE_TOKEN_BYTES || token[0] != 1 {
        Err(GateError::Malformed)
    } else if own != route {
        Err(GateError::OtherRoute)
    } else if expiry < NOW {
        Err(GateError::Expired)
    } else if token != key.issue(route, expiry) {
        Err(GateError::Forged)
    } else {
        Ok(())
    }
}
