//! The Secrets of an installation outlive its releases: what supported ones stored (`protocol/recorded`) is read again, and makes
//! what their sidecars, routers and API server know.

use mirrord_certs::{Authority, GateMaster, verify};
use mirrord_protocol::route::RouteId;
use mirrord_recorded::{Release, releases};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

fn object(release: &Release, file: &str) -> Value {
    serde_json::from_str(&release.text(file)).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// The bytes of a text in base64: by the decoder that reads PEM.
fn bytes(base64: &Value) -> Vec<u8> {
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", text(base64));
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("base64").to_vec()
}

fn secret(release: &Release, name: &str, key: &str) -> Vec<u8> {
    let secrets = object(release, "secrets.json");
    let mut secrets = secrets["items"].as_array().expect("a list").iter();
    bytes(&secrets.find(|secret| secret["metadata"]["name"] == name).expect(name)["data"][key])
}

fn authority(release: &Release) -> Authority {
    let pem = |key| String::from_utf8(secret(release, "mirrord-ca", key)).expect("PEM");
    Authority::load(&pem("tls.crt"), &pem("tls.key")).expect("an authority")
}

/// The value behind a flag of a pod's sidecar.
fn flag(release: &Release, flag: &str) -> Value {
    let pod = object(release, "pod.json");
    let containers = pod["spec"]["initContainers"].as_array().expect("containers");
    let words = containers.iter().flat_map(|container| container["command"].as_array()).flatten();
    let words: Vec<Value> = words.cloned().collect();
    words.windows(2).find(|pair| pair[0] == flag).expect(flag)[1].clone()
}

#[test]
fn the_stored_authority_is_the_one_that_older_sidecars_trust() {
    for release in releases() {
        let authority = authority(&release);
        let trusted = CertificateDer::from(bytes(&flag(&release, "--ca")));
        let session = object(&release, "session.json");
        let moment = session["status"]["expiresAt"].as_u64().expect("a time");
        let identity = authority.control_plane(moment).expect("issued");
        assert!(verify::admits_control_plane([trusted], &identity, moment), "{}", release.name());
    }
}

#[test]
fn gate_tokens_of_the_stored_key_are_those_that_older_clients_have() {
    for release in releases() {
        let gate = GateMaster::new(&secret(&release, "mirrord-gate", "current")).expect("32 bytes");
        let session = object(&release, "session.json");
        let pod = &session["status"]["pods"][0];
        let route: RouteId = text(&pod["route"]).parse().expect("a route");
        let expires_at = session["status"]["expiresAt"].as_u64().expect("a time");
        assert_eq!(gate.verify(&bytes(&pod["gateToken"]), route, expires_at), Ok(()), "{}", release.name());
    }
}

#[test]
fn reviews_come_by_the_path_that_older_configurations_name() {
    for release in releases() {
        let configuration = object(&release, "webhooks.json");
        let path = text(&configuration["webhooks"][0]["clientConfig"]["service"]["path"]);
        let ours = authority(&release).webhook_path_key();
        assert!(path.ends_with(&format!("/{ours}")), "{}: {path}", release.name());
    }
}
