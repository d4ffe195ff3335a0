//! Messages and frames: what goes in comes out, newer ones are understood as far as possible, and no bytes do harm.

mod support;

use std::net::{IpAddr, SocketAddr};

use ciborium::Value;
use mirrord_protocol::{
    boot::{Announce, Announcement, CALLS, Call, Install},
    control::{Close, CloseCode, Control, Hello, Obstacle, Rights, View},
    feature::Feature,
    frame::{self, FrameError, PREFIX_BYTES, Prefix},
    limits,
    path::{PathError, RemotePath},
    reply::{Attributes, Connected, Data, Entry, Failure, Link, Listing, Opened, Reply, Resolved, Time},
    request::{Connect, Family, List, Open, Read, ReadLink, Request, Resolve, Stat},
};
use proptest::{collection::vec, option, prelude::*};
use serde::{Serialize, de::DeserializeOwned};
use support::samples;

fn header<T: Serialize>(message: &T) -> Vec<u8> {
    frame::encode(message, 0).unwrap().split_off(PREFIX_BYTES)
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T, tail: &[u8]) {
    let bytes = frame::encode_with_tail(message, tail).unwrap();
    let (prefix, body) = bytes.split_first_chunk::<PREFIX_BYTES>().unwrap();
    let prefix = Prefix::parse(*prefix).unwrap();
    assert_eq!(prefix.body(), body.len());
    let (header, rest) = body.split_at(prefix.header);
    assert_eq!(&frame::decode::<T>(header).unwrap(), message);
    assert_eq!(rest, tail);
}

/// Adds a name of a later release to each map that has fields: not to those that stand for a choice.
fn extend(value: &mut Value) {
    match value {
        Value::Map(fields) => {
            fields.iter_mut().for_each(|(_, field)| extend(field));
            let choices =
                ["V4", "V6", "ok", "failed", "rights", "close", "enroll", "install", "announce", "report"];
            let choice = |(name, _): &(Value, Value)| {
                name.as_text().is_some_and(|name| {
                    choices.contains(&name) || mirrord_protocol::request::REQUESTS.contains(&name)
                })
            };
            if !fields.first().is_some_and(choice) {
                fields
                    .insert(0, (Value::from("of_a_later_release"), Value::Array(vec![1.into(), "x".into()])));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(extend),
        _ => {}
    }
}

#[test]
fn fields_of_later_releases_are_ignored() {
    for sample in samples() {
        let mut value: Value = frame::decode(&sample.bytes).unwrap();
        let before = value.clone();
        extend(&mut value);
        assert_ne!(value, before, "{}", sample.name);
        (sample.check)(&header(&value)).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
    }
}

fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| (Value::from(*name), value.clone())).collect())
}

#[test]
fn fields_that_are_missing_take_their_defaults() {
    let hello: Hello = frame::decode(&header(&map(&[("version", 1.into())]))).unwrap();
    assert_eq!(hello, Hello { version: 1, software: String::new(), features: vec![] });
    let path = ("path", Value::Bytes(b"/x".to_vec()));
    let open = Request::decode(&header(&map(&[("open", map(&[path]))]))).unwrap();
    let expected = Open { path: RemotePath::new("/x").unwrap(), no_follow: false, directory: false };
    assert_eq!(open, Request::Open(expected));
    let rights: Control = frame::decode(&header(&map(&[("rights", map(&[("version", 9.into())]))]))).unwrap();
    let Control::Rights(rights) = rights else { panic!("{rights:?}") };
    assert_eq!((rights.version, rights.features, rights.view), (9, vec![], View::Twin));
}

#[test]
fn features_and_views_of_later_releases_are_unknown_and_no_error() {
    let features = Value::Array(vec!["env".into(), "teleport".into()]);
    let hello: Hello =
        frame::decode(&header(&map(&[("version", 1.into()), ("features", features)]))).unwrap();
    assert_eq!(hello.features, [Feature::Env, Feature::Unknown]);
    let rights = map(&[("version", 1.into()), ("view", "dream".into()), ("obstacle", "fog".into())]);
    let rights: Rights = frame::decode(&header(&rights)).unwrap();
    assert_eq!((rights.view, rights.obstacle), (View::Unknown, Some(Obstacle::Unknown)));
}

#[test]
fn an_unknown_request_is_unsupported_and_a_broken_one_malformed() {
    let decode = |value: &Value| Request::decode(&header(value));
    let unknown = decode(&map(&[("teleport", map(&[("to", "mars".into())]))]));
    assert_eq!(unknown, Err(FrameError::Unsupported("teleport".into())));
    let long = "x".repeat(1000);
    let Err(FrameError::Unsupported(name)) = decode(&map(&[(&long, map(&[]))])) else { panic!("supported?") };
    assert!(name.len() <= 64, "names in errors and logs are bounded");
    for broken in [
        map(&[("open", map(&[]))]),
        map(&[("open", map(&[("path", Value::Bytes(b"relative".to_vec()))]))]),
        map(&[("open", map(&[])), ("stat", map(&[]))]),
        map(&[]),
        Value::Null,
        Value::Array(vec![]),
    ] {
        assert!(matches!(decode(&broken), Err(FrameError::Malformed(_))), "{broken:?}");
    }
    assert!(matches!(Request::decode(&[]), Err(FrameError::Malformed(_))));
}

#[test]
fn an_unknown_boot_call_is_unsupported_and_every_known_one_is_named() {
    let unknown = Call::decode(&header(&map(&[("dance", map(&[]))])));
    assert_eq!(unknown, Err(FrameError::Unsupported("dance".into())));
    assert!(matches!(Call::decode(&header(&map(&[("install", map(&[]))]))), Err(FrameError::Malformed(_))));
    for sample in samples() {
        // What follows a second dot tells variants of a call apart.
        let name = sample.name.strip_prefix("boot.").map(|name| name.split('.').next().unwrap_or_default());
        let call = name.filter(|name| CALLS.contains(name));
        assert_eq!(call.is_some(), Call::decode(&sample.bytes).is_ok(), "{}", sample.name);
    }
    assert!(CALLS.iter().all(|call| samples().iter().any(|sample| sample.name == format!("boot.{call}"))));
}

#[test]
fn nesting_without_end_is_refused_not_followed() {
    let nested = vec![0x81; limits::HEADER_BYTES];
    assert!(matches!(frame::decode::<Value>(&nested), Err(FrameError::Malformed(_))));
    assert!(matches!(Request::decode(&nested), Err(FrameError::Malformed(_))));
}

#[test]
fn lengths_beyond_the_limits_are_refused_on_both_sides() {
    let prefix = |header: usize, tail: usize| {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..4].copy_from_slice(&u32::try_from(header).unwrap().to_be_bytes());
        bytes[4..].copy_from_slice(&u32::try_from(tail).unwrap().to_be_bytes());
        Prefix::parse(bytes)
    };
    assert!(prefix(limits::HEADER_BYTES, limits::TAIL_BYTES).is_ok());
    let error = prefix(limits::HEADER_BYTES + 1, 0).unwrap_err().to_string();
    assert_eq!(error, "header of 262145 bytes exceeds the limit of 262144");
    assert!(matches!(prefix(0, limits::TAIL_BYTES + 1), Err(FrameError::TooLong { what: "tail", .. })));
    assert!(prefix(u32::MAX as usize, u32::MAX as usize).is_err());
    let long = "x".repeat(limits::HEADER_BYTES);
    assert!(matches!(frame::encode(&long, 0), Err(FrameError::TooLong { what: "header", .. })));
    assert!(matches!(
        frame::encode(&1, limits::TAIL_BYTES + 1),
        Err(FrameError::TooLong { what: "tail", .. })
    ));
    assert!(frame::encode(&1, limits::TAIL_BYTES).is_ok());
}

#[test]
fn a_full_listing_of_the_longest_names_fits_a_header() {
    let entry = || Entry { name: vec![b'n'; 255], attributes: Some(extreme_attributes()) };
    let entries = std::iter::repeat_with(entry).take(limits::LISTING_ENTRIES).collect();
    let listing = Listing { entries, more: true, attributes: Some(extreme_attributes()) };
    assert!(frame::encode(&Reply::Ok(listing), 0).is_ok());
}

fn extreme_attributes() -> Attributes {
    Attributes {
        mode: u32::MAX,
        size: u64::MAX,
        uid: u32::MAX,
        gid: u32::MAX,
        ino: u64::MAX,
        dev: u64::MAX,
        nlink: u64::MAX,
        rdev: u64::MAX,
        blksize: u32::MAX,
        blocks: u64::MAX,
        atime: Time(i64::MIN, u32::MAX),
        mtime: Time(i64::MAX, u32::MAX),
        ctime: Time(i64::MIN, u32::MAX),
    }
}

#[test]
fn paths_are_absolute_bounded_and_without_nul() {
    assert_eq!(RemotePath::new("relative"), Err(PathError::Relative));
    assert_eq!(RemotePath::new(""), Err(PathError::Relative));
    assert_eq!(RemotePath::new("/a\0b"), Err(PathError::Nul));
    assert!(RemotePath::new(vec![b'/'; limits::PATH_BYTES]).is_ok());
    assert_eq!(RemotePath::new(vec![b'/'; limits::PATH_BYTES + 1]), Err(PathError::TooLong));
}

#[test]
fn close_codes_are_known_by_number_and_others_are_not() {
    for code in CloseCode::ALL {
        assert_eq!(CloseCode::from_number(code.number().into()), Some(code));
    }
    assert_eq!(CloseCode::from_number(8), None);
    assert_eq!(CloseCode::from_number(u64::MAX), None);
}

#[test]
fn features_are_known_by_their_verbs() {
    for feature in Feature::ALL {
        assert_eq!(feature.verb().parse(), Ok(feature));
        assert_eq!(header(&feature), header(&feature.verb()), "the wire uses the same word");
    }
    assert!("unknown".parse::<Feature>().unwrap_err().to_string().contains("env, files, secrets, outgoing"));
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let install =
        Install { chain: vec![], reset_key: vec![0x77; 32], gate_keys: vec![vec![0x78; 32].into()] };
    let text = format!("{:?}", Call::Install(install));
    assert!(!text.contains("119") && !text.contains("120"), "{text}");
}

/// Scopes and flow labels mean something on one machine only: they don't travel.
fn addresses() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn paths() -> impl Strategy<Value = RemotePath> {
    vec(1u8.., 0..200).prop_map(|rest| RemotePath::new([b"/".as_slice(), &rest].concat()).unwrap())
}

fn features() -> impl Strategy<Value = Vec<Feature>> {
    vec(proptest::sample::select(Feature::ALL.as_slice()), 0..5)
}

fn obstacles() -> impl Strategy<Value = Obstacle> {
    prop_oneof![Just(Obstacle::Isolated), Just(Obstacle::User), Just(Obstacle::Shielded)]
}

fn views() -> impl Strategy<Value = View> {
    prop_oneof![Just(View::Twin), Just(View::Live)]
}

fn requests() -> impl Strategy<Value = Request> {
    let families = prop_oneof![Just(Family::Any), Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        Just(Request::Environment {}),
        Just(Request::Ping {}),
        (paths(), any::<(bool, bool)>()).prop_map(|(path, (no_follow, directory))| {
            Request::Open(Open { path, no_follow, directory })
        }),
        (paths(), any::<(bool, u8)>()).prop_map(|(path, (no_follow, access))| Request::Stat(Stat {
            path,
            no_follow,
            access
        })),
        paths().prop_map(|path| Request::List(List { path })),
        paths().prop_map(|path| Request::ReadLink(ReadLink { path })),
        addresses().prop_map(|address| Request::Connect(Connect { address })),
        (".{0,80}", families, any::<(bool, bool)>()).prop_map(|(name, family, (canonical, configured))| {
            Request::Resolve(Resolve { name, family, canonical, configured })
        }),
    ]
}

fn times() -> impl Strategy<Value = Time> {
    any::<(i64, u32)>().prop_map(|(seconds, nanoseconds)| Time(seconds, nanoseconds))
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (any::<([u32; 4], [u64; 6])>(), [times(), times(), times()]).prop_map(|((small, large), times)| {
        let ([mode, uid, gid, blksize], [size, ino, dev, nlink, rdev, blocks]) = (small, large);
        let [atime, mtime, ctime] = times;
        Attributes { mode, size, uid, gid, ino, dev, nlink, rdev, blksize, blocks, atime, mtime, ctime }
    })
}

fn replies<T: std::fmt::Debug + Clone>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Reply<T>> {
    let failures = (any::<(u16, Option<i32>, Option<i32>)>(), ".{0,80}")
        .prop_map(|((code, errno, eai), message)| Reply::Failed(Failure { code, errno, eai, message }));
    prop_oneof![of.prop_map(Reply::Ok), failures]
}

fn entries() -> impl Strategy<Value = Entry> {
    (vec(any::<u8>(), 1..40), option::of(attributes()))
        .prop_map(|(name, attributes)| Entry { name, attributes })
}

fn controls() -> impl Strategy<Value = Control> {
    let rights = (any::<(u16, u64)>(), ".{0,40}", features(), views(), option::of(obstacles())).prop_map(
        |((version, expires_at), software, features, view, obstacle)| {
            Control::Rights(Rights { version, software, features, expires_at, view, obstacle })
        },
    );
    let close = (any::<u32>(), ".{0,80}").prop_map(|(code, reason)| Control::Close(Close { code, reason }));
    prop_oneof![rights, close]
}

fn calls() -> impl Strategy<Value = Call> {
    let bytes = || vec(any::<u8>(), 0..64);
    let many = move || vec(bytes().prop_map(Into::into), 0..4);
    let install = (many(), bytes(), many())
        .prop_map(|(chain, reset_key, gate_keys)| Call::Install(Install { chain, reset_key, gate_keys }));
    let announcement = (bytes(), features(), any::<(u64, u64)>(), ".{0,40}").prop_map(
        |(key_hash, features, (expires_at, deadline), creator)| Announcement {
            key_hash,
            features,
            expires_at,
            deadline,
            creator,
        },
    );
    let announce = (any::<u64>(), vec(announcement, 0..5))
        .prop_map(|(revision, sessions)| Call::Announce(Announce { revision, sessions, now: revision / 2 }));
    prop_oneof![Just(Call::Enroll {}), install, announce]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_come_out_as_they_went_in(request in requests(), tail in vec(any::<u8>(), 0..50)) {
        round_trip(&request, &tail);
        prop_assert_eq!(Request::decode(&header(&request)).unwrap(), request);
    }

    #[test]
    fn reads_come_out_as_they_went_in((offset, length) in any::<(u64, u32)>()) {
        round_trip(&Read { offset, length }, b"");
    }

    #[test]
    fn replies_about_files_come_out_as_they_went_in(
        opened in replies((attributes(), any::<bool>()).prop_map(|(attributes, end)| Opened { attributes, end })),
        data in replies(any::<bool>().prop_map(|end| Data { end })),
        stat in replies(attributes()),
        listing in replies((vec(entries(), 0..10), any::<bool>(), option::of(attributes()))
            .prop_map(|(entries, more, attributes)| Listing { entries, more, attributes })),
        link in replies(vec(any::<u8>(), 0..99).prop_map(|target| Link { target })),
        tail in vec(any::<u8>(), 0..50),
    ) {
        round_trip(&opened, &tail);
        round_trip(&data, &tail);
        round_trip(&stat, b"");
        round_trip(&listing, b"");
        round_trip(&link, b"");
    }

    #[test]
    fn replies_about_the_network_come_out_as_they_went_in(
        connected in replies([addresses(), addresses()]
            .prop_map(|[local, peer]| Connected { local, peer })),
        resolved in replies((vec(any::<IpAddr>(), 0..20), option::of(".{0,80}"))
            .prop_map(|(addresses, canonical)| Resolved { addresses, canonical })),
    ) {
        round_trip(&connected, b"");
        round_trip(&resolved, b"");
    }

    #[test]
    fn control_and_boot_messages_come_out_as_they_went_in(
        (version, software, features) in (any::<u16>(), ".{0,40}", features()),
        control in controls(),
        call in calls(),
        token in vec(any::<u8>(), 0..50),
    ) {
        round_trip(&Hello { version, software, features }, b"");
        round_trip(&control, b"");
        round_trip(&call, &token);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Request::decode(&bytes);
        let _ = frame::decode::<Hello>(&bytes);
        let _ = frame::decode::<Control>(&bytes);
        let _ = frame::decode::<Call>(&bytes);
        let _ = frame::decode::<Reply<Listing>>(&bytes);
        let _ = frame::decode::<Value>(&bytes);
        if let Some(prefix) = bytes.first_chunk() {
            let _ = Prefix::parse(*prefix);
        }
    }

    #[test]
    fn no_damage_to_a_message_makes_a_decoder_panic(
        request in requests(), control in controls(), call in calls(), place in any::<prop::sample::Index>(), byte: u8,
    ) {
        for (mut bytes, decode) in [
            (header(&request), (|bytes: &[u8]| drop(Request::decode(bytes))) as fn(&[u8])),
            (header(&control), |bytes| drop(frame::decode::<Control>(bytes))),
            (header(&call), |bytes| drop(frame::decode::<Call>(bytes))),
        ] {
            let place = place.index(bytes.len());
            bytes[place] = byte;
            decode(&bytes);
            decode(&bytes[..place]);
        }
    }
}
