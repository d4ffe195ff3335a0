//! One kind of certificate can't pass for another: real handshakes, each with what it must not accept.

mod support;

use std::sync::Arc;

use mirrord_certs::{Authority, CONTROL_PLANE_NAME, Identity, SelfSigned, key_hash, verify};
use mirrord_protocol::{ALPN, ALPN_BOOT, route::RouteId};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::{
    CertificateError, ClientConfig, Error, ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use support::{DAY, authority, handshake, now, sidecar};

const ROUTE: RouteId = RouteId([0xaa; 8]);
const OTHER: RouteId = RouteId([0xbb; 8]);

fn client_of(authority: &Authority) -> (SelfSigned, ClientConfig) {
    let key = SelfSigned::generate().unwrap();
    let config = verify::session_client(&key, [authority.certificate().clone()]).unwrap();
    (key, config)
}

fn server_with(identity: Identity) -> ServerConfig {
    verify::session_server(identity.chain, identity.key).unwrap()
}

fn boot_server_of(authority: &Authority) -> (SelfSigned, ServerConfig) {
    let key = SelfSigned::generate().unwrap();
    let config = verify::boot_server(&key, [authority.certificate().clone()]).unwrap();
    (key, config)
}

/// What somebody could make who got hold of the authority's key.
fn signed_by(authority: &Authority, name: SanType, usage: ExtendedKeyUsagePurpose) -> Identity {
    let key = KeyPair::from_pem(authority.key_pem()).unwrap();
    signed_with(&Issuer::from_ca_cert_der(authority.certificate(), key).unwrap(), name, usage)
}

fn signed_with(issuer: &Issuer<'_, KeyPair>, name: SanType, usage: ExtendedKeyUsagePurpose) -> Identity {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![name];
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let chain = vec![params.signed_by(&key, issuer).unwrap().der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Identity { chain, key, not_after: now() + DAY }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn certificate_error(error: Error) -> CertificateError {
    match error {
        Error::InvalidCertificate(error) => error,
        error => panic!("not about a certificate: {error}"),
    }
}

#[test]
fn a_session_is_mutual_and_each_side_learns_the_others_key() {
    let authority = authority();
    let (key, client) = client_of(&authority);
    let identity = sidecar(&authority, ROUTE);
    let certificate = identity.chain[0].clone();
    let (client, server) = handshake(client, server_with(identity), &ROUTE.server_name()).worked();
    assert_eq!(key_hash(&server.peer), Some(key.key_hash()));
    assert_eq!(client.peer, certificate);
    assert_eq!((&*client.alpn, &*server.alpn), (ALPN, ALPN));
}

#[test]
fn the_boot_channel_is_mutual_and_each_side_learns_the_others_key() {
    let authority = authority();
    let (key, server) = boot_server_of(&authority);
    let client = verify::boot_client(&authority.control_plane(now()).unwrap()).unwrap();
    let (client, server) = handshake(client, server, &ROUTE.server_name()).worked();
    assert_eq!(key_hash(&client.peer), Some(key.key_hash()));
    assert_eq!((&*client.alpn, &*server.alpn), (ALPN_BOOT, ALPN_BOOT));
}

#[test]
fn a_sidecar_cannot_pass_for_the_sidecar_of_another_route() {
    let authority = authority();
    let refused =
        handshake(client_of(&authority).1, server_with(sidecar(&authority, OTHER)), &ROUTE.server_name());
    let error = certificate_error(refused.client_refused());
    assert!(matches!(error, CertificateError::NotValidForNameContext { .. }), "{error:?}");
}

#[test]
fn the_webhook_cannot_pass_for_a_sidecar() {
    let authority = authority();
    let serving = authority.serving(&["mirrord-webhook.mirrord.svc".into()], now()).unwrap();
    let refused = handshake(client_of(&authority).1, server_with(serving), &ROUTE.server_name());
    let error = certificate_error(refused.client_refused());
    assert!(matches!(error, CertificateError::NotValidForNameContext { .. }), "{error:?}");
}

#[test]
fn the_control_plane_cannot_pass_for_a_sidecar() {
    let authority = authority();
    let identity = authority.control_plane(now()).unwrap();
    for name in [&ROUTE.server_name(), CONTROL_PLANE_NAME] {
        let server = verify::session_server(identity.chain.clone(), identity.key.clone_key()).unwrap();
        certificate_error(handshake(client_of(&authority).1, server, name).client_refused());
    }
}

#[test]
fn an_unbooted_sidecars_own_certificate_serves_no_session() {
    let authority = authority();
    let key = SelfSigned::generate().unwrap();
    let server = verify::session_server(vec![key.certificate().clone()], key.private_key()).unwrap();
    let refused = handshake(client_of(&authority).1, server, &ROUTE.server_name());
    assert_eq!(certificate_error(refused.client_refused()), CertificateError::UnknownIssuer);
}

#[test]
fn another_installations_sidecar_is_refused() {
    let refused =
        handshake(client_of(&authority()).1, server_with(sidecar(&authority(), ROUTE)), &ROUTE.server_name());
    certificate_error(refused.client_refused());
}

#[test]
fn a_client_trusts_old_and_new_authorities_while_they_change() {
    let (old, new) = (authority(), authority());
    for serving in [&old, &new] {
        let key = SelfSigned::generate().unwrap();
        let authorities = [old.certificate().clone(), new.certificate().clone()];
        let client = verify::session_client(&key, authorities).unwrap();
        handshake(client, server_with(sidecar(serving, ROUTE)), &ROUTE.server_name()).worked();
    }
}

#[test]
fn an_expired_sidecar_is_refused() {
    let authority = authority();
    let key = SelfSigned::generate().unwrap();
    let csr = key.signing_request().unwrap();
    let certificate = authority.sidecar(&csr, ROUTE, now() - 2 * DAY, DAY).unwrap();
    let server = verify::session_server(vec![certificate], key.private_key()).unwrap();
    let refused = handshake(client_of(&authority).1, server, &ROUTE.server_name());
    let error = certificate_error(refused.client_refused());
    assert!(matches!(error, CertificateError::ExpiredContext { .. }), "{error:?}");
}

#[test]
fn a_sidecar_cannot_boot_another() {
    let authority = authority();
    let client = verify::boot_client(&sidecar(&authority, ROUTE)).unwrap();
    let refused = handshake(client, boot_server_of(&authority).1, &OTHER.server_name());
    let error = certificate_error(refused.server_refused());
    assert!(matches!(error, CertificateError::InvalidPurposeContext { .. }), "{error:?}");
}

#[test]
fn the_webhooks_serving_certificate_cannot_boot() {
    let authority = authority();
    let serving = authority.serving(&["mirrord-webhook.mirrord.svc".into()], now()).unwrap();
    let refused =
        handshake(verify::boot_client(&serving).unwrap(), boot_server_of(&authority).1, &ROUTE.server_name());
    certificate_error(refused.server_refused());
}

#[test]
fn a_client_certificate_of_the_authority_without_the_control_planes_name_cannot_boot() {
    let authority = authority();
    for name in ["other.control.mirrord.dev", "boot.control.mirrord.dev.svc"] {
        let identity = signed_by(&authority, dns(name), ExtendedKeyUsagePurpose::ClientAuth);
        let refused = handshake(
            verify::boot_client(&identity).unwrap(),
            boot_server_of(&authority).1,
            &ROUTE.server_name(),
        );
        assert_eq!(certificate_error(refused.server_refused()), CertificateError::NotValidForName, "{name}");
    }
}

#[test]
fn a_certificate_that_signed_itself_cannot_boot_whatever_name_it_has() {
    let authority = authority();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![dns(CONTROL_PLANE_NAME)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let identity = Identity { chain, key, not_after: now() + DAY };
    let refused = handshake(
        verify::boot_client(&identity).unwrap(),
        boot_server_of(&authority).1,
        &ROUTE.server_name(),
    );
    assert_eq!(certificate_error(refused.server_refused()), CertificateError::UnknownIssuer);
}

#[test]
fn another_installations_control_plane_cannot_boot() {
    let client = verify::boot_client(&authority().control_plane(now()).unwrap()).unwrap();
    let refused = handshake(client, boot_server_of(&authority()).1, &ROUTE.server_name());
    certificate_error(refused.server_refused());
}

#[test]
fn a_client_without_a_certificate_is_refused_by_both_kinds_of_servers() {
    let authority = authority();
    let boot = verify::boot_client(&authority.control_plane(now()).unwrap()).unwrap();
    for (mut client, server) in [
        (boot, boot_server_of(&authority).1),
        (client_of(&authority).1, server_with(sidecar(&authority, ROUTE))),
    ] {
        client.client_auth_cert_resolver = Arc::new(Shows(None));
        let refused = handshake(client, server, &ROUTE.server_name());
        assert!(matches!(refused.server_refused(), Error::NoCertificatesPresented));
    }
}

#[test]
fn whoever_shows_a_certificate_must_have_its_key() {
    let authority = authority();
    let (victim, thief) = (SelfSigned::generate().unwrap(), SelfSigned::generate().unwrap());
    let stolen = || {
        let key = any_supported_type(&thief.private_key()).unwrap();
        Arc::new(Shows(Some(Arc::new(CertifiedKey::new(vec![victim.certificate().clone()], key)))))
    };
    let mut client = client_of(&authority).1;
    client.client_auth_cert_resolver = stolen();
    let refused = handshake(client, server_with(sidecar(&authority, ROUTE)), &ROUTE.server_name());
    assert_eq!(certificate_error(refused.server_refused()), CertificateError::BadSignature);
    let client = verify::boot_client(&authority.control_plane(now()).unwrap()).unwrap();
    let mut server = boot_server_of(&authority).1;
    server.cert_resolver = stolen();
    let refused = handshake(client, server, &ROUTE.server_name());
    assert_eq!(certificate_error(refused.client_refused()), CertificateError::BadSignature);
}

/// Shows a certificate with a key that needn't be its own, or nothing.
#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

#[test]
fn sessions_and_boots_do_not_mix() {
    let authority = authority();
    let session = handshake(client_of(&authority).1, boot_server_of(&authority).1, &ROUTE.server_name());
    assert_eq!(session.server_refused(), Error::NoApplicationProtocol);
    let boot = verify::boot_client(&authority.control_plane(now()).unwrap()).unwrap();
    let boot = handshake(boot, server_with(sidecar(&authority, ROUTE)), &ROUTE.server_name());
    assert_eq!(boot.server_refused(), Error::NoApplicationProtocol);
}

#[test]
fn names_beyond_the_authoritys_reach_are_refused_even_if_it_signed_them() {
    let authority = authority();
    let ip = |text: &str| SanType::IpAddress(text.parse().unwrap());
    for (san, name) in [
        (dns("example.com"), "example.com"),
        (dns("mirrord.dev"), "mirrord.dev"),
        (dns("xsidecar.mirrord.dev"), "xsidecar.mirrord.dev"),
        (dns("kubernetes.default.svc.cluster.local"), "kubernetes.default.svc.cluster.local"),
        (ip("10.0.0.1"), "10.0.0.1"),
        (ip("fd00::1"), "fd00::1"),
    ] {
        let identity = signed_by(&authority, san, ExtendedKeyUsagePurpose::ServerAuth);
        let refused = handshake(client_of(&authority).1, server_with(identity), name);
        let error = format!("{:?}", certificate_error(refused.client_refused()));
        assert!(error.contains("NameConstraintViolation"), "{name}: {error}");
    }
    let within = signed_by(&authority, dns(&ROUTE.server_name()), ExtendedKeyUsagePurpose::ServerAuth);
    handshake(client_of(&authority).1, server_with(within), &ROUTE.server_name()).worked();
}

#[test]
fn a_sidecar_cannot_make_certificates_for_others() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let certificate = authority.sidecar(request.der(), OTHER, now(), DAY).unwrap();
    let issuer = Issuer::from_ca_cert_der(&certificate, key).unwrap();
    let identity = signed_with(&issuer, dns(&ROUTE.server_name()), ExtendedKeyUsagePurpose::ServerAuth);
    let chain = [identity.chain, vec![certificate]].concat();
    let server = verify::session_server(chain, identity.key).unwrap();
    let refused = handshake(client_of(&authority).1, server, &ROUTE.server_name());
    let error = format!("{:?}", certificate_error(refused.client_refused()));
    assert!(error.contains("EndEntityUsedAsCa"), "{error}");
}

#[test]
fn nothing_is_resumed_and_nothing_sent_early() {
    let authority = authority();
    for server in [server_with(sidecar(&authority, ROUTE)), boot_server_of(&authority).1] {
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
        assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    }
    assert!(!client_of(&authority).1.enable_early_data);
}
