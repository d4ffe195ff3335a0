//! One sample of each message, with every field set to something, and of each with nothing but what it must have.

use std::fmt::Debug;

use mirrord_protocol::{
    boot::{Announce, Announcement, Call, Done, Enrolled, Install, Report, Requests},
    control::{Close, Control, Hello, Obstacle, Rights, View},
    feature::Feature,
    frame,
    path::RemotePath,
    reply::{
        Attributes, Connected, Data, Entry, Environment, Failure, FailureCode, Link, Listing, Opened, Pong,
        Reply, Resolved, Time,
    },
    request::{Connect, Family, List, Open, Read, ReadLink, Request, Resolve, Stat},
};
use serde::{Serialize, de::DeserializeOwned};

type Check = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// A message under a name.
pub(crate) struct Sample {
    /// In the golden file.
    pub(crate) name: &'static str,
    /// CBOR.
    pub(crate) bytes: Vec<u8>,
    /// Says what is wrong with bytes that should be this message.
    pub(crate) check: Check,
}

fn sample<T>(name: &'static str, message: T) -> Sample
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    let bytes = frame::encode(&message, 0).unwrap().split_off(frame::PREFIX_BYTES);
    let check = move |bytes: &[u8]| match frame::decode::<T>(bytes) {
        Ok(decoded) if decoded == message => Ok(()),
        other => Err(format!("{other:?} instead of {message:?}")),
    };
    Sample { name, bytes, check: Box::new(check) }
}

fn path(path: &str) -> RemotePath {
    RemotePath::new(path).unwrap()
}

pub(crate) fn attributes() -> Attributes {
    Attributes {
        mode: 0o100_644,
        size: 1234,
        uid: 1000,
        gid: 1001,
        ino: 99,
        dev: 2049,
        nlink: 1,
        rdev: 7,
        blksize: 4096,
        blocks: 8,
        atime: Time(1_700_000_000, 1),
        mtime: Time(-5, 999_999_999),
        ctime: Time(0, 0),
    }
}

/// All samples, in the order of the golden file.
pub(crate) fn samples() -> Vec<Sample> {
    [control(), requests(), replies(), boot()].into_iter().flatten().collect()
}

fn control() -> Vec<Sample> {
    let rights = Rights {
        version: 1,
        software: "mirrord-agent 0.1.0".into(),
        features: vec![Feature::Files, Feature::Secrets],
        expires_at: 1_800_000_000,
        view: View::Live,
        obstacle: None,
    };
    let twins = Rights { view: View::Twin, obstacle: Some(Obstacle::Capabilities), ..rights.clone() };
    let close = Close { code: 3, reason: "the session was deleted".into() };
    vec![
        sample(
            "hello",
            Hello {
                version: 1,
                software: "mirrord 0.1.0".into(),
                features: vec![Feature::Env, Feature::Outgoing],
            },
        ),
        sample("control.rights", Control::Rights(rights)),
        sample("control.rights.obstacle", Control::Rights(twins)),
        sample("control.close", Control::Close(close)),
    ]
}

fn requests() -> Vec<Sample> {
    let connect = |address: &str| Request::Connect(Connect { address: address.parse().unwrap() });
    let resolve = |family| {
        Request::Resolve(Resolve { name: "db.shop.svc".into(), family, canonical: true, configured: true })
    };
    vec![
        sample("request.environment", Request::Environment {}),
        sample(
            "request.open",
            Request::Open(Open { path: path("/etc/hosts"), no_follow: true, directory: true }),
        ),
        sample(
            "request.open.plain",
            Request::Open(Open { path: path("/etc/hosts"), no_follow: false, directory: false }),
        ),
        sample("request.stat", Request::Stat(Stat { path: path("/etc/hosts"), no_follow: true, access: 6 })),
        sample("request.list", Request::List(List { path: path("/") })),
        sample(
            "request.read_link",
            Request::ReadLink(ReadLink { path: RemotePath::new(*b"/\xff\xfe").unwrap() }),
        ),
        sample("request.connect.v4", connect("10.1.2.3:5432")),
        sample("request.connect.v6", connect("[fd00::5]:5432")),
        sample("request.resolve.any", resolve(Family::Any)),
        sample("request.resolve.v4", resolve(Family::V4)),
        sample("request.resolve.v6", resolve(Family::V6)),
        sample("request.ping", Request::Ping {}),
        sample("read", Read { offset: 1 << 40, length: 65536 }),
    ]
}

fn replies() -> Vec<Sample> {
    let entries = vec![
        Entry { name: b"a".to_vec(), attributes: Some(attributes()) },
        Entry { name: b"\xff".to_vec(), attributes: None },
    ];
    let resolved = Resolved {
        addresses: vec!["10.1.2.3".parse().unwrap(), "fd00::5".parse().unwrap()],
        canonical: Some("db.shop.svc.cluster.local".into()),
    };
    let connected =
        Connected { local: "10.0.0.1:40000".parse().unwrap(), peer: "[fd00::5]:5432".parse().unwrap() };
    vec![
        sample("reply.environment", Reply::Ok(Environment { view: View::Twin })),
        sample("reply.opened", Reply::Ok(Opened { attributes: attributes(), end: true })),
        sample("reply.data", Reply::Ok(Data { end: true })),
        sample("reply.attributes", Reply::Ok(attributes())),
        sample("reply.listing", Reply::Ok(Listing { entries, more: true, attributes: Some(attributes()) })),
        sample("reply.link", Reply::Ok(Link { target: b"../x".to_vec() })),
        sample("reply.connected", Reply::Ok(connected)),
        sample("reply.resolved", Reply::Ok(resolved)),
        sample("reply.pong", Reply::Ok(Pong {})),
        sample("reply.failed.system", Reply::<Pong>::Failed(Failure::system(2))),
        sample("reply.failed.lookup", Reply::<Pong>::Failed(Failure::lookup(-2, "no such name"))),
        sample(
            "reply.failed.not_granted",
            Reply::<Pong>::Failed(Failure::new(FailureCode::NotGranted, 13, "this session lacks `files`")),
        ),
    ]
}

fn boot() -> Vec<Sample> {
    let install = Install {
        chain: vec![vec![0x30, 1].into(), vec![0x30, 2].into()],
        reset_key: vec![7; 32],
        gate_keys: vec![vec![8; 32].into(), vec![9; 32].into()],
    };
    let announcement = Announcement {
        key_hash: vec![5; 32],
        features: Feature::ALL.into(),
        expires_at: 1_800_000_000,
        deadline: 1_800_043_200,
        creator: "jane@example.com".into(),
    };
    let report = Report {
        software: "mirrord-agent 0.1.0".into(),
        view: View::Live,
        obstacle: None,
        wakes: 1,
        sessions: 2,
        requests: vec![Requests { request: "open".into(), served: 3, refused: 4, failed: 5 }],
        file_bytes: 6,
        connections: 7,
        guarded: 8,
        sent_bytes: 9,
        received_bytes: 10,
    };
    vec![
        sample("boot.enroll", Call::Enroll {}),
        sample(
            "boot.enrolled",
            Reply::Ok(Enrolled { csr: vec![0x30, 3], installed: true, view: View::Live, version: 0 }),
        ),
        sample(
            "boot.enrolled.version",
            Reply::Ok(Enrolled { csr: vec![0x30, 3], installed: true, view: View::Live, version: 2 }),
        ),
        sample("boot.install", Call::Install(install)),
        sample(
            "boot.announce",
            Call::Announce(Announce { revision: 12345, sessions: vec![announcement.clone()], now: 0 }),
        ),
        sample(
            "boot.announce.now",
            Call::Announce(Announce { revision: 12345, sessions: vec![announcement], now: 1_800_000_000 }),
        ),
        sample("boot.done", Reply::Ok(Done {})),
        sample("boot.report", Call::Report {}),
        sample("boot.reported", Reply::Ok(report)),
    ]
}
