//! Gate tokens: who passes, until when, and what no key but ours can make.

use mirrord_certs::{GATE_TOKEN_BYTES, GateError, GateKey, GateMaster};
use mirrord_protocol::route::RouteId;
use proptest::prelude::*;

const ROUTE: RouteId = RouteId([0xaa; 8]);

fn key(byte: u8) -> GateKey {
    GateKey::new(&[byte; 32]).unwrap()
}

#[test]
fn a_token_opens_its_route_until_its_expiry_and_no_longer() {
    let token = key(1).issue(ROUTE, 100);
    assert_eq!(token.len(), GATE_TOKEN_BYTES);
    assert_eq!(key(1).verify(&token, ROUTE, 0), Ok(()));
    assert_eq!(key(1).verify(&token, ROUTE, 100), Ok(()));
    assert_eq!(key(1).verify(&token, ROUTE, 101), Err(GateError::Expired));
    assert_eq!(key(1).verify(&token, RouteId([0xab; 8]), 0), Err(GateError::OtherRoute));
    assert_eq!(key(2).verify(&token, ROUTE, 0), Err(GateError::Forged));
}

#[test]
fn what_has_no_tokens_form_is_malformed() {
    let token = key(1).issue(ROUTE, 100);
    let mut other_format = token.clone();
    other_format[0] = 2;
    for bytes in [&[][..], &token[1..], &token[..32], &[&token[..], &[0]].concat(), &other_format] {
        assert_eq!(key(1).verify(bytes, ROUTE, 0), Err(GateError::Malformed));
    }
}

#[test]
fn tokens_are_made_alike_for_ever() {
    // HMAC-SHA-256 by another implementation (Python's hmac) over 01 ‖ 0000000000000064 ‖ aaaaaaaaaaaaaaaa.
    let token = key(1).issue(ROUTE, 100);
    let text: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, "010000000000000064aaaaaaaaaaaaaaaa02369bc49676334af6d7022ef71ecf48");
}

#[test]
fn keys_have_32_bytes_and_fresh_ones_differ() {
    assert!(GateKey::new(&[0; 31]).is_none());
    assert!(GateKey::new(&[0; 33]).is_none());
    assert!(GateKey::new(&[]).is_none());
    assert!(GateMaster::new(&[0; 31]).is_none());
    assert_ne!(GateMaster::generate().unwrap().as_bytes(), GateMaster::generate().unwrap().as_bytes());
}

#[test]
fn a_routes_key_opens_no_other_route() {
    let master = GateMaster::new(&[1; 32]).unwrap();
    let other = RouteId([0xab; 8]);
    let stolen = master.route_key(ROUTE);
    assert_eq!(master.verify(&stolen.issue(ROUTE, 100), ROUTE, 0), Ok(()));
    assert_eq!(stolen.verify(&master.issue(ROUTE, 100), ROUTE, 0), Ok(()));
    assert_eq!(master.verify(&stolen.issue(other, 100), other, 0), Err(GateError::Forged));
    // By another implementation (Python's hmac).
    let text: String = stolen.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, "cde8871c6a9880c1ffacc77a11081469bba6d02bc3ea4311db9c266bacf2570d");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_changed_bit_is_noticed(route: [u8; 8], expiry: u64, place in 0..GATE_TOKEN_BYTES, bit in 0u8..8) {
        let route = RouteId(route);
        let mut token = key(1).issue(route, expiry);
        prop_assert_eq!(key(1).verify(&token, route, expiry), Ok(()));
        token[place] ^= 1 << bit;
        prop_assert!(key(1).verify(&token, route, 0).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic_or_pass(bytes in proptest::collection::vec(any::<u8>(), 0..60), now: u64) {
        prop_assert!(key(1).verify(&bytes, ROUTE, now).is_err());
    }
}
