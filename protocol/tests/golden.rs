//! Sidecars age with their pods, so what was once sent must be understood for ever: `golden/v1.txt` holds each message
//! as this version writes it, one per line, name and CBOR in hexadecimal. A changed line is a broken promise; a new one
//! is welcome. `BLESS=1 cargo test -p mirrord-protocol --test golden` writes the file anew.

mod support;

use std::{collections::BTreeMap, fmt::Write, path::Path};

use mirrord_protocol::{
    control::CloseCode,
    feature::Feature,
    frame,
    reply::FailureCode,
    request::{Family, Request},
    route::{ConnectionId, Purpose, RouteId},
};
use support::samples;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

/// What is on the wire but no message: numbers, words, ids, frames.
fn numbers() -> Vec<(String, Vec<u8>)> {
    let mut lines: Vec<(String, Vec<u8>)> = Vec::new();
    for code in CloseCode::ALL {
        lines.push((format!("code.close.{code:?}"), code.number().to_be_bytes().into()));
    }
    for code in [
        FailureCode::System,
        FailureCode::Lookup,
        FailureCode::NotGranted,
        FailureCode::Unsupported,
        FailureCode::NeverServed,
        FailureCode::Limit,
        FailureCode::Malformed,
    ] {
        lines.push((format!("code.failure.{code:?}"), (code as u16).to_be_bytes().into()));
    }
    for feature in Feature::ALL {
        lines.push((format!("feature.{feature:?}"), feature.verb().into()));
    }
    let route = RouteId::of("8f4e1a52-9c1d-4c39-8d10-6f1f0c2b7e55", "checkout");
    let id = |purpose| ConnectionId { purpose, route, random: [1, 2, 3, 4, 5, 6, 7] }.to_bytes().to_vec();
    lines.push(("route".into(), route.0.into()));
    lines.push(("route.server_name".into(), route.server_name().into()));
    lines.push(("connection_id.session".into(), id(Purpose::Session)));
    lines.push(("connection_id.boot".into(), id(Purpose::Boot)));
    let ping = Request::Ping {};
    lines.push(("frame.ping_with_tail".into(), frame::encode_with_tail(&ping, b"tail").unwrap()));
    lines
}

fn golden() -> String {
    std::fs::read_to_string(golden_path()).expect("golden/v1.txt; BLESS=1 makes it")
}

fn golden_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.txt")
}

#[test]
fn every_message_is_written_as_it_always_was() {
    let mut text = String::new();
    for sample in samples() {
        writeln!(text, "{} {}", sample.name, hex(&sample.bytes)).unwrap();
    }
    for (name, bytes) in numbers() {
        writeln!(text, "{name} {}", hex(&bytes)).unwrap();
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(golden_path(), &text).unwrap();
    }
    for (ours, golden) in text.lines().zip(golden().lines()) {
        assert_eq!(ours, golden, "the wire changed: old sidecars won't understand");
    }
    assert_eq!(text, golden(), "messages came or went");
}

#[test]
fn every_message_ever_written_is_still_understood() {
    let golden = golden();
    let lines: BTreeMap<&str, &str> = golden.lines().filter_map(|line| line.split_once(' ')).collect();
    for sample in samples() {
        let bytes = unhex(lines.get(sample.name).expect(sample.name));
        (sample.check)(&bytes).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
    }
}

#[test]
fn every_request_and_both_families_of_addresses_are_in_the_file() {
    let golden = golden();
    for name in mirrord_protocol::request::REQUESTS {
        assert!(golden.contains(&format!("request.{name}")), "{name}");
    }
    for family in [Family::Any, Family::V4, Family::V6] {
        assert!(golden.contains(&format!("request.resolve.{family:?}").to_lowercase()), "{family:?}");
    }
}
