//! Authorities that others made, and how one follows another.

mod support;

use mirrord_certs::{Authority, AuthorityError, Identity, SelfSigned, SupplyError, verify};
use mirrord_protocol::{ALPN, ALPN_BOOT, route::RouteId};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use support::{Handshake, authority, handshake, now, sidecar};
use time::{Duration, OffsetDateTime};

const ROUTE: RouteId = RouteId([0xaa; 8]);

/// What a company's PKI gives out: of a name of several parts, and without constraints.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Example Ltd.");
    params.distinguished_name.push(DnType::CommonName, "mirrord in cluster 7");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(30);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(60);
    params
}

fn made(params: &CertificateParams, key: &KeyPair) -> Result<Authority, SupplyError> {
    let certificate = params.self_signed(key).unwrap();
    // Behind it, what leads to a root.
    let chain = certificate.pem() + authority().certificate_pem();
    Authority::supplied(&chain, &key.serialize_pem(), now())
}

fn supplied() -> Authority {
    made(&params(), &KeyPair::generate().unwrap()).unwrap()
}

/// A session of a client that was told of one authority, with a sidecar of another, and a call the other way round.
fn both(trusted: &Authority, of: &Authority) -> [Handshake; 2] {
    let told: Vec<_> =
        CertificateDer::pem_slice_iter(trusted.trusted_pem().as_bytes()).map(Result::unwrap).collect();
    let client = verify::session_client(&SelfSigned::generate().unwrap(), told.clone()).unwrap();
    let Identity { chain, key, .. } = sidecar(of, ROUTE);
    let chain = of.chain(&chain[0]);
    let session = handshake(client, verify::session_server(chain, key).unwrap(), &ROUTE.server_name());
    let server = verify::boot_server(&SelfSigned::generate().unwrap(), told).unwrap();
    let client = verify::boot_client(&of.control_plane(now()).unwrap()).unwrap();
    [session, handshake(client, server, &ROUTE.server_name())]
}

#[track_caller]
fn accepts(trusted: &Authority, of: &Authority) {
    let [session, boot] = both(trusted, of);
    let ((client, _), (caller, sidecar)) = (session.worked(), boot.worked());
    assert_eq!((&*client.alpn, &*caller.alpn), (ALPN, ALPN_BOOT));
    assert_ne!(client.peer, sidecar.peer);
}

#[track_caller]
fn refuses(trusted: &Authority, of: &Authority) {
    let [session, boot] = both(trusted, of);
    let _ = (session.client_refused(), boot.server_refused());
}

#[test]
fn what_a_supplied_authority_issues_is_accepted_and_only_its_own_certificate_is_trusted() {
    let supplied = supplied();
    accepts(&supplied, &supplied);
    refuses(&authority(), &supplied);
    assert_eq!(supplied.trusted_pem().matches("BEGIN CERTIFICATE").count(), 1);
}

#[test]
fn one_takes_over_from_another_whoever_made_them() {
    let (own, first, second) = (authority(), supplied(), supplied());
    let third = Authority::create(now()).unwrap();
    let first = own.hand_over(first, now()).unwrap();
    let second = first.hand_over(second, now()).unwrap();
    let third = second.hand_over(third, now()).unwrap();
    for (trusted, of) in
        [(&own, &first), (&own, &second), (&own, &third), (&first, &third), (&second, &first)]
    {
        accepts(trusted, of);
    }
    assert_eq!(third.previous_pem(), second.certificate_pem());
    refuses(&authority(), &third);
}

#[test]
fn a_renewed_certificate_of_the_same_key_needs_no_signature_and_lasts_as_long_as_there_are_any() {
    let key = KeyPair::generate().unwrap();
    let mut present = authority().hand_over(made(&params(), &key).unwrap(), now()).unwrap();
    let first = Authority::load(present.certificate_pem(), present.key_pem()).unwrap();
    let cross = present.cross_pem();
    for days in 61..70 {
        let mut renewed = params();
        renewed.not_after = OffsetDateTime::now_utc() + Duration::days(days);
        present = present.hand_over(made(&renewed, &key).unwrap(), now()).unwrap();
    }
    assert_eq!(present.cross_pem(), cross);
    accepts(&first, &present);
}

#[test]
fn a_renewed_certificate_of_the_same_key_and_another_name_is_known_to_whoever_knew_the_last() {
    let key = KeyPair::generate().unwrap();
    let own = authority();
    let first = own.hand_over(made(&params(), &key).unwrap(), now()).unwrap();
    let mut renamed = params();
    renamed.distinguished_name.push(DnType::CommonName, "mirrord in cluster 8");
    let second = first.hand_over(made(&renamed, &key).unwrap(), now()).unwrap();
    accepts(&first, &second);
    accepts(&own, &second);
}

#[test]
fn the_overlap_counts_from_the_hand_over_not_from_when_others_issued_it() {
    let present = authority().hand_over(supplied(), now()).unwrap();
    assert!(present.overlap_ends(None).unwrap() < now(), "it was issued a month ago");
    assert!(present.overlap_ends(Some(now())).unwrap() > now());
}

#[test]
fn what_can_t_issue_is_refused_with_the_reason() {
    let key = || KeyPair::generate().unwrap();
    let refused = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params();
        change(&mut params);
        made(&params, &key()).map(drop).unwrap_err()
    };
    assert!(matches!(refused(&|it| it.is_ca = IsCa::NoCa), SupplyError::NoAuthority));
    let signs = vec![KeyUsagePurpose::DigitalSignature];
    assert!(matches!(refused(&|it| it.key_usages = signs.clone()), SupplyError::NoAuthority));
    let over = |it: &mut CertificateParams| it.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    assert!(matches!(refused(&over), SupplyError::Time { .. }));
    let elsewhere = |it: &mut CertificateParams| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("example.com".to_owned())];
        it.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
    };
    assert!(matches!(refused(&elsewhere), SupplyError::NotAccepted));

    let (one, other) = (key(), key());
    let certificate = params().self_signed(&one).unwrap().pem();
    let mismatch = Authority::supplied(&certificate, &other.serialize_pem(), now()).map(drop).unwrap_err();
    assert!(matches!(mismatch, SupplyError::Unreadable(AuthorityError::KeyMismatch)));
    let elliptic = one.serialize_pem().replace("PRIVATE KEY", "EC PRIVATE KEY");
    let encoded = Authority::supplied(&certificate, &elliptic, now()).map(drop).unwrap_err();
    assert!(encoded.to_string().contains("openssl pkcs8 -topk8"), "{encoded}");
    let nothing = Authority::supplied("", &one.serialize_pem(), now()).map(drop).unwrap_err();
    assert!(matches!(nothing, SupplyError::Unreadable(AuthorityError::Pem(_))), "{nothing}");
}

#[test]
fn another_certificate_of_a_shared_authority_is_no_control_plane() {
    let key = KeyPair::generate().unwrap();
    let certificate = params().self_signed(&key).unwrap();
    let supplied = Authority::supplied(&certificate.pem(), &key.serialize_pem(), now()).unwrap();
    let issuer = Issuer::from_ca_cert_der(certificate.der(), key).unwrap();
    for (name, usage) in [
        ("web.example.com", ExtendedKeyUsagePurpose::ClientAuth),
        ("boot.control.mirrord.dev", ExtendedKeyUsagePurpose::ServerAuth),
    ] {
        let leaf_key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        leaf.extended_key_usages = vec![usage];
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let identity = Identity { chain: vec![leaf.der().clone()], key, not_after: now() + 60 };
        assert!(!verify::admits_control_plane([supplied.certificate().clone()], &identity, now()), "{name}");
    }
}

#[test]
fn of_a_text_with_a_key_and_remarks_only_the_certificate_is_told() {
    let key = KeyPair::generate().unwrap();
    let certificate = params().self_signed(&key).unwrap().pem();
    let combined = format!("a remark\n{}\nBag Attributes\n{certificate}", key.serialize_pem());
    let supplied = Authority::supplied(&combined, &key.serialize_pem(), now()).unwrap();
    for told in [supplied.certificate_pem(), &supplied.trusted_pem()] {
        assert!(told.starts_with("-----BEGIN CERTIFICATE-----"), "{told}");
        assert!(!told.contains("PRIVATE KEY") && !told.contains("remark"), "the key would be everybody's");
    }
}
