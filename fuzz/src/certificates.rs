//! Certificate requests of sidecars, and certificates that peers show.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use mirrord_certs::{Authority, KeyHash, SelfSigned, key_hash, request_key_hash};
use mirrord_protocol::route::{ROUTE_BYTES, RouteId};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::bytes::Bytes;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

/// That of a recorded installation: inputs have its certificate.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let releases = mirrord_recorded::releases();
    let secrets: Value = serde_json::from_str(&releases[0].text("secrets.json")).expect("JSON");
    let data = &secrets["items"][0]["data"];
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| {
        let pem = data[name].as_str().and_then(|text| STANDARD.decode(text).ok()).expect("base64");
        String::from_utf8(pem).expect("PEM")
    });
    Authority::load(&certificate, &key).expect("an authority")
});
static KEY: LazyLock<(EcdsaKeyPair, KeyHash)> = LazyLock::new(|| {
    let key = SelfSigned::generate().expect("a key");
    let PrivateKeyDer::Pkcs8(secret) = key.private_key() else { panic!("not PKCS #8") };
    let pair = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        secret.secret_pkcs8_der(),
        &SystemRandom::new(),
    );
    (pair.expect("P-256"), key.key_hash())
});

/// The first byte says what the rest shall be: a request, what a pod would sign in one, a certificate, or an authority.
pub fn certificates(data: &[u8]) {
    let mut rest = Bytes(data);
    match rest.number() % 4 {
        0 => drop(requested(rest.0)),
        1 => {
            let subject = rest.text();
            if let Some(hash) = requested(&signed(subject, rest.0)) {
                assert_eq!(hash, KEY.1);
            }
        }
        2 => {
            let certificate = CertificateDer::from(rest.0);
            let understood = x509_parser::certificate::X509Certificate::from_der(rest.0);
            // What is hashed is what TLS checks handshakes by. Where no such key signed anything, another parser may see other
            // bytes (of what stands behind the key, say).
            if let (Some(hash), Ok((_, parsed))) = (key_hash(&certificate), understood)
                && parsed.verify_signature(None).is_ok()
            {
                assert_eq!(hash, KeyHash::of(parsed.public_key().raw));
            }
        }
        _ => {
            let text = String::from_utf8_lossy(rest.0);
            if let Ok(authority) = Authority::load(&text, AUTHORITY.key_pem()) {
                assert_eq!(authority.certificate_pem(), text);
                let _ = authority.not_after();
            }
        }
    }
}

/// Whatever a request asks for, its certificate is one of a sidecar of the given route, for the request's key.
fn requested(csr: &[u8]) -> Option<KeyHash> {
    let route = RouteId([3; ROUTE_BYTES]);
    let issued = AUTHORITY.sidecar(csr, route, NOW, DAY);
    let hash = request_key_hash(csr).ok();
    let Ok(der) = issued else { return hash };
    assert_eq!(key_hash(&der), hash, "a certificate for another key");
    let (rest, parsed) = x509_parser::certificate::X509Certificate::from_der(&der).expect("a certificate");
    assert!(rest.is_empty());
    let names = parsed.subject_alternative_name().expect("readable").expect("names");
    assert_eq!(names.value.general_names, [GeneralName::DNSName(&route.server_name())]);
    let usage = parsed.extended_key_usage().expect("readable").expect("usages").value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    assert!(!parsed.is_ca());
    assert_eq!(parsed.subject().to_string(), "CN=mirrord sidecar");
    hash
}

/// A request with this subject and these attributes, whose signature holds (RFC 2986 §4).
fn signed(subject: &[u8], attributes: &[u8]) -> Vec<u8> {
    const P256: &[u8] =
        b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let bits = |bytes: &[u8]| der(0x03, &[&[0], bytes]);
    let key = der(0x30, &[P256, &bits(KEY.0.public_key().as_ref())]);
    let info = der(0x30, &[b"\x02\x01\x00", &der(0x30, &[subject]), &key, &der(0xa0, &[attributes])]);
    let signature = KEY.0.sign(&SystemRandom::new(), &info).expect("signed");
    der(0x30, &[&info, ECDSA_SHA256, &bits(signature.as_ref())])
}

/// A value with its tag and length (X.690 §8.1).
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let long = 0x80 | length.len() as u8;
    let head: &[&[u8]] = if content.len() < 0x80 { &[&[tag], length] } else { &[&[tag, long], length] };
    [&head.concat(), &content[..]].concat()
}
