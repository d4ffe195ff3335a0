//! One authority after another: who trusts an older one accepts what the present one issues.

mod support;

use mirrord_certs::{
    Authority, Identity, SelfSigned,
    succession::{OVERLAP, PREDECESSORS},
    verify,
};
use mirrord_protocol::{ALPN, ALPN_BOOT, route::RouteId};
use mirrord_recorded::releases;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;
use support::{Handshake, authority, handshake, now, sidecar};

const ROUTE: RouteId = RouteId([0xaa; 8]);
/// A client's first datagram is padded to 1,200 bytes, and an unproven server may answer with three times as much (RFC
/// 9000 §8.1). So much of that is QUIC's, TLS's and the leaf.
const FIRST_FLIGHT: usize = 3 * 1200 - 1100;

/// What a sidecar shows that the control plane has just enrolled.
fn enrolled(authority: &Authority) -> Identity {
    let mut identity = sidecar(authority, ROUTE);
    identity.chain = authority.chain(&identity.chain[0]);
    identity
}

/// Sessions with a sidecar of one authority, of a client that was told of these.
fn session(told: &str, of: &Authority) -> Handshake {
    let authorities = CertificateDer::pem_slice_iter(told.as_bytes()).map(Result::unwrap);
    let client = verify::session_client(&SelfSigned::generate().unwrap(), authorities).unwrap();
    let Identity { chain, key, .. } = enrolled(of);
    handshake(client, verify::session_server(chain, key).unwrap(), &ROUTE.server_name())
}

/// A call of one authority's control plane to a sidecar that trusts another.
fn boot(trusted: &Authority, of: &Authority) -> Handshake {
    let key = SelfSigned::generate().unwrap();
    let server = verify::boot_server(&key, [trusted.certificate().clone()]).unwrap();
    let client = verify::boot_client(&of.control_plane(now()).unwrap()).unwrap();
    handshake(client, server, &ROUTE.server_name())
}

fn line(first: Authority, length: usize) -> Vec<Authority> {
    let mut line = vec![first];
    for _ in 1..length {
        line.push(line.last().unwrap().succeed(now()).unwrap());
    }
    line
}

#[test]
fn who_trusts_one_of_the_last_authorities_accepts_the_present_one() {
    let line = line(authority(), usize::from(PREDECESSORS) + 2);
    let (present, past) = line.split_last().unwrap();
    let (forgotten, remembered) = past.split_first().unwrap();
    for trusted in remembered {
        let (client, _) = session(trusted.certificate_pem(), present).worked();
        let (caller, sidecar) = boot(trusted, present).worked();
        assert_eq!((&*client.alpn, &*caller.alpn), (ALPN, ALPN_BOOT));
        assert_ne!(client.peer, sidecar.peer);
        let identity = present.control_plane(now()).unwrap();
        assert!(verify::admits_control_plane([trusted.certificate().clone()], &identity, now()));
    }
    let _ = session(forgotten.certificate_pem(), present).client_refused();
    let _ = boot(forgotten, present).server_refused();
}

#[test]
fn what_the_last_authority_issued_is_accepted_in_the_overlap() {
    let last = authority();
    let present = last.succeed(now()).unwrap();
    let told = present.trusted_pem();
    let _ = session(&told, &last).worked();
    let _ = session(&told, &present).worked();
    let end = present.overlap_ends(None).unwrap();
    assert!((now() + OVERLAP - 5..=now() + OVERLAP).contains(&end));
    let over = Authority::load(present.certificate_pem(), present.key_pem()).unwrap();
    let over = over.with_past(&present.cross_pem(), "").unwrap();
    let _ = session(&over.trusted_pem(), &last).client_refused();
    let _ = session(last.certificate_pem(), &over).worked();
    assert_eq!(over.overlap_ends(None), None);
    assert_eq!(last.overlap_ends(None), None, "the first of a line");
    assert_eq!(last.trusted_pem(), last.certificate_pem());
}

#[test]
fn a_stranger_gains_nothing_by_our_cross_certificates() {
    let first = authority();
    let present = first.succeed(now()).unwrap();
    let stranger = authority().with_past(&present.cross_pem(), present.previous_pem()).unwrap();
    let _ = session(first.certificate_pem(), &stranger).client_refused();
    let _ = boot(&first, &stranger).server_refused();
}

#[test]
fn what_is_stored_is_read_again() {
    let line = line(authority(), 3);
    let present = line.last().unwrap();
    let read = Authority::load(present.certificate_pem(), present.key_pem()).unwrap();
    let read = read.with_past(&present.cross_pem(), present.previous_pem()).unwrap();
    assert_eq!(read.cross_pem(), present.cross_pem());
    assert_eq!(read.trusted_pem(), present.trusted_pem());
    let _ = session(line[0].certificate_pem(), &read).worked();
    let broken = "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n";
    assert!(authority().with_past(broken, "").is_err());
}

#[test]
fn the_longest_chain_leaves_the_first_flight_short_enough() {
    let line = line(authority(), usize::from(PREDECESSORS) + 2);
    let chain = enrolled(line.last().unwrap()).chain;
    let behind: usize = chain[1..].iter().map(|certificate| certificate.len()).sum();
    assert_eq!(chain.len(), 1 + usize::from(PREDECESSORS));
    assert!(behind <= FIRST_FLIGHT, "{behind} bytes of cross certificates");
}

#[test]
fn the_next_one_is_due_at_two_thirds_of_a_life() {
    let authority = authority();
    let life = authority.not_after() - now();
    assert!((now() + life / 3 * 2).abs_diff(authority.due_at()) < 10);
}

#[test]
fn authorities_of_older_releases_have_successors_too() {
    for release in releases() {
        let secrets: Value = serde_json::from_str(&release.text("secrets.json")).unwrap();
        let ca = &secrets["items"].as_array().unwrap()[0]["data"];
        let pem = |key: &str| {
            let wrapped = format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                ca[key].as_str().unwrap()
            );
            String::from_utf8(CertificateDer::from_pem_slice(wrapped.as_bytes()).unwrap().to_vec()).unwrap()
        };
        let old = Authority::load(&pem("tls.crt"), &pem("tls.key")).unwrap();
        let present = old.succeed(now()).unwrap();
        let _ = session(old.certificate_pem(), &present).worked();
        let _ = boot(&old, &present).worked();
    }
}
