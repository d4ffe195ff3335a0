//! What the authority issues, and for whom.

mod support;

use mirrord_certs::{Authority, AuthorityError, KeyHash, SelfSigned, key_hash, request_key_hash, verify};
use mirrord_protocol::route::RouteId;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use support::{DAY, authority, handshake, now, sidecar};

const ROUTE: RouteId = RouteId([0xaa; 8]);

#[test]
fn an_authority_survives_pem_and_goes_on_issuing() {
    let first = authority();
    let again = Authority::load(first.certificate_pem(), first.key_pem()).unwrap();
    assert_eq!(again.certificate(), first.certificate());
    assert_eq!((again.certificate_pem(), again.key_pem()), (first.certificate_pem(), first.key_pem()));
    let key = SelfSigned::generate().unwrap();
    let client = verify::session_client(&key, [first.certificate().clone()]).unwrap();
    let identity = sidecar(&again, ROUTE);
    let certificate = identity.chain[0].clone();
    let server = verify::session_server(identity.chain, identity.key).unwrap();
    let (client, server) = handshake(client, server, &ROUTE.server_name()).worked();
    assert_eq!((client.peer, server.peer), (certificate, key.certificate().clone()));
    assert_eq!(client.alpn, server.alpn);
}

#[test]
fn an_authority_with_the_key_of_another_does_not_load() {
    let (one, other) = (authority(), authority());
    let mixed = Authority::load(one.certificate_pem(), other.key_pem());
    assert!(matches!(mixed, Err(AuthorityError::KeyMismatch)), "{:?}", mixed.err());
}

#[test]
fn what_is_no_pem_does_not_load() {
    let one = authority();
    for (certificate, key) in [
        ("", one.key_pem()),
        (one.certificate_pem(), ""),
        (one.key_pem(), one.certificate_pem()),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", one.key_pem()),
        (&one.certificate_pem()[..100], one.key_pem()),
    ] {
        assert!(Authority::load(certificate, key).is_err());
    }
}

#[test]
fn a_certificate_request_whose_signature_does_not_hold_is_refused() {
    let authority = authority();
    let request = SelfSigned::generate().unwrap().signing_request().unwrap();
    assert!(authority.sidecar(&request, ROUTE, now(), DAY).is_ok());
    let stolen = {
        // Another key in place of the one that signed: what a thief of a request would do.
        let other = SelfSigned::generate().unwrap();
        let (ours, theirs) = (point(&request), point(&other.signing_request().unwrap()));
        let mut swapped = request.clone();
        let place = swapped.windows(65).position(|window| window == ours).unwrap();
        swapped[place..place + 65].copy_from_slice(&theirs);
        swapped
    };
    let mut damaged = request.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for broken in [&stolen[..], &damaged, &request[..request.len() - 1], &[], b"no request"] {
        assert!(authority.sidecar(broken, ROUTE, now(), DAY).is_err());
        assert!(request_key_hash(broken).is_err());
    }
}

/// The uncompressed P-256 point in a request.
fn point(request: &[u8]) -> [u8; 65] {
    // BIT STRING of 66 octets, none unused, then the point.
    let place = request.windows(4).position(|window| window == [0x03, 0x42, 0x00, 0x04]).unwrap();
    request[place + 3..place + 68].try_into().unwrap()
}

#[test]
fn a_request_gets_the_routes_name_whatever_it_wished_for() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::default();
    wishes.distinguished_name.push(DnType::CommonName, "boot.control.mirrord.dev");
    wishes.subject_alt_names = vec![SanType::DnsName("boot.control.mirrord.dev".try_into().unwrap())];
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let request = wishes.serialize_request(&key).unwrap();
    let certificate = authority.sidecar(request.der(), ROUTE, now(), DAY).unwrap();
    let pkcs8 = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));

    let client = SelfSigned::generate().unwrap();
    let client = verify::session_client(&client, [authority.certificate().clone()]).unwrap();
    let server = verify::session_server(vec![certificate.clone()], pkcs8()).unwrap();
    handshake(client, server, &ROUTE.server_name()).worked();

    let identity = mirrord_certs::Identity { chain: vec![certificate], key: pkcs8(), not_after: now() };
    let boot = verify::boot_client(&identity).unwrap();
    let unbooted = SelfSigned::generate().unwrap();
    let server = verify::boot_server(&unbooted, [authority.certificate().clone()]).unwrap();
    handshake(boot, server, &ROUTE.server_name()).server_refused();
}

#[test]
fn a_request_is_for_the_key_that_signed_it() {
    let key = SelfSigned::generate().unwrap();
    assert_eq!(request_key_hash(&key.signing_request().unwrap()).unwrap(), key.key_hash());
    let certificate = authority().sidecar(&key.signing_request().unwrap(), ROUTE, now(), DAY).unwrap();
    assert_eq!(key_hash(&certificate), Some(key.key_hash()));
}

#[test]
fn a_keys_hash_is_that_of_its_certificates_and_never_changes() {
    let key = SelfSigned::generate().unwrap();
    assert_eq!(key_hash(key.certificate()), Some(key.key_hash()));
    assert_eq!(KeyHash::of(&key.public_key()), key.key_hash());
    assert_ne!(SelfSigned::generate().unwrap().key_hash(), key.key_hash());
    assert_eq!(key_hash(&b"no certificate".as_slice().into()), None);
    // SHA-256 of "abc", FIPS 180-2 appendix B.1.
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(KeyHash::of(b"abc").to_string(), known);
}

#[test]
fn reset_keys_are_the_same_for_ever_and_differ_by_route_and_authority() {
    let one = authority();
    let replica = Authority::load(one.certificate_pem(), one.key_pem()).unwrap();
    assert_eq!(one.reset_key(ROUTE), replica.reset_key(ROUTE));
    assert_ne!(one.reset_key(ROUTE), one.reset_key(RouteId([0; 8])));
    assert_ne!(one.reset_key(ROUTE), authority().reset_key(ROUTE));
}

#[test]
fn serving_names_beyond_svc_are_refused_by_whoever_verifies() {
    let authority = authority();
    let identity = authority.serving(&["webhook.example.com".into()], now()).unwrap();
    let client = SelfSigned::generate().unwrap();
    let client = verify::session_client(&client, [authority.certificate().clone()]).unwrap();
    let server = verify::session_server(identity.chain, identity.key).unwrap();
    handshake(client, server, "webhook.example.com").client_refused();
}

#[test]
fn moments_that_no_certificate_can_express_are_an_error() {
    assert!(matches!(Authority::create(u64::MAX / 2), Err(AuthorityError::Time(_))));
    let key = SelfSigned::generate().unwrap();
    let request = key.signing_request().unwrap();
    assert!(authority().sidecar(&request, ROUTE, now(), u64::MAX / 2).is_err());
}

#[test]
fn private_keys_stay_out_of_debug_output() {
    let key = SelfSigned::generate().unwrap();
    let text = format!("{key:?}");
    assert!(text.contains(&key.key_hash().to_string()) && text.len() < 120, "{text}");
    let gate = mirrord_certs::GateKey::new(&[0x77; 32]).unwrap();
    assert_eq!(format!("{gate:?}"), "GateKey(…)");
    let identity = authority().control_plane(now()).unwrap();
    let secret = format!("{:?}", identity.key.secret_der());
    assert!(!format!("{identity:?}").contains(&secret));
}
