//! Clients and control planes of every supported release, as they were recorded (`protocol/recorded`), talk to the present
//! sidecar and are answered as their own was. `RECORD=0.2 cargo test -p mirrord-sidecar-agent --test loopback releases`
//! records a new release instead: what it says is listed at the end.

use std::net::IpAddr;

use ciborium::{Value, cbor};
use mirrord_certs::SelfSigned;
use mirrord_protocol::VERSION;
use mirrord_recorded::{
    Conversation, Frame, Release, Said, Side, Turn, keeps, later, releases, replace, to_be_recorded,
};
use mirrord_tunnel::framing;
use quinn::{Connection, RecvStream, SendStream};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    key, own_address,
    pod::behind,
    support::{ControlPlane, Sidecar, now, within},
};

/// What is the machine's or the moment's, or for people: of the same kind, and otherwise anything.
const DIFFERING: [&str; 12] = [
    "atime", "blksize", "blocks", "csr", "ctime", "dev", "ino", "local", "message", "peer", "reason",
    "software",
];
/// Sessions are recorded as lasting until 2100.
const FOR_EVER: u64 = 4_102_444_800;
/// Where conversations connect to; those that are played go to a listener of the test.
const PEER: [u8; 4] = [10, 0, 0, 9];

/// The pod that all releases are recorded in and played to, always the same.
fn pod(folder: &TempDir) -> Sidecar {
    let script = r#"umask 022; mount -t tmpfs none /mnt; mkdir -p /mnt/app/folder; cd /mnt/app
        printf 'key: 1\n' >config; ln -s config link; printf 1 >folder/one
        { head -c 65536 /dev/zero | tr '\0' a; printf 'the rest\n'; } >large
        touch -h -d @1700000000 config link large folder/one folder
        set -- env -i GREETING='hello world' EMPTY= "$@""#;
    Sidecar::start_behind(&behind(script, folder), &[], &[])
}

/// Says on a stream of its own what the dialler said; what the sidecar says stands where its words stood.
async fn play(connection: &Connection, conversation: Conversation) -> Conversation {
    let streams = connection.open_bi().await.expect("opened");
    within(play_on(streams, conversation)).await
}

async fn play_on(
    (mut send, mut receive): (SendStream, RecvStream),
    conversation: Conversation,
) -> Conversation {
    let Conversation { name, mut turns } = conversation;
    for Turn { side, said } in &mut turns {
        match (side, said) {
            (Side::Dialler, Said::Frame(frame)) => send.write_all(&frame.bytes()).await.expect("sent"),
            (Side::Dialler, Said::Raw(bytes)) => send.write_all(bytes).await.expect("sent"),
            (Side::Sidecar, Said::Frame(frame)) => {
                let heard =
                    framing::expect(&mut receive).await.unwrap_or_else(|error| panic!("[{name}] {error}"));
                *frame = Frame { header: heard.decode().expect("CBOR"), tail: heard.tail.to_vec() };
            }
            (Side::Sidecar, Said::Raw(bytes)) => receive.read_exact(bytes).await.expect("heard"),
        }
    }
    let _ = send.finish();
    Conversation { name, turns }
}

/// Whether the sidecar said all that it said when this was recorded.
fn check(recorded: &Conversation, played: &Conversation, differing: &[&str]) {
    let name = &recorded.name;
    for (before, after) in
        recorded.turns.iter().zip(&played.turns).filter(|(turn, _)| turn.side == Side::Sidecar)
    {
        match (&before.said, &after.said) {
            (Said::Frame(before), Said::Frame(after)) => {
                keeps(&before.header, &after.header, differing)
                    .unwrap_or_else(|error| panic!("[{name}] {error}"));
                assert!(before.tail == after.tail, "[{name}] another tail");
            }
            (before, after) => assert_eq!(before, after, "[{name}]"),
        }
    }
}

/// Changes the headers of what the dialler says.
fn edit(mut conversation: Conversation, change: impl Fn(&mut Value)) -> Conversation {
    for turn in conversation.turns.iter_mut().filter(|turn| turn.side == Side::Dialler) {
        if let Said::Frame(frame) = &mut turn.said {
            change(&mut frame.header);
        }
    }
    conversation
}

/// A release's control plane and client at work on the present sidecar.
struct Meeting {
    sidecar: Sidecar,
    control_plane: ControlPlane,
    key: SelfSigned,
    /// What every message is put through before it is sent.
    accent: fn(&mut Value),
    _folder: TempDir,
}

impl Meeting {
    async fn begin(accent: fn(&mut Value)) -> Self {
        let folder = tempfile::tempdir().expect("made");
        let sidecar = pod(&folder);
        let control_plane = sidecar.call(&sidecar.authority).await.expect("connected");
        Self { sidecar, control_plane, key: key(), accent, _folder: folder }
    }

    /// A conversation of the boot channel, with what only the moment knows put in its place.
    async fn boot(&self, conversation: &Conversation) -> Conversation {
        let (enrolled, _) = self.control_plane.enroll().await.expect("enrolled");
        let route = self.sidecar.route;
        let leaf = self.sidecar.authority.sidecar(&enrolled.csr, route, now(), 3600 * 24).expect("issued");
        let conversation = edit(conversation.clone(), |header| {
            replace(header, "chain", &Value::Array(vec![Value::Bytes(leaf.to_vec())]));
            replace(header, "key_hash", &Value::Bytes(self.key.key_hash().0.to_vec()));
            (self.accent)(header);
        });
        play(&self.control_plane.connection, conversation).await
    }

    /// The client's conversations, the control stream first, which ends when the session is deleted: also played.
    async fn session(
        &self,
        all: &[Conversation],
        deletion: &Conversation,
    ) -> (Vec<Conversation>, Conversation) {
        let (_endpoint, connection) =
            self.sidecar.dial(&self.key, self.sidecar.token()).await.expect("connected");
        let peer = echo().await;
        let conversations = all.iter().cloned().map(|conversation| {
            edit(conversation, |header| {
                if *header == connect(PEER, 5432) {
                    *header = connect(peer.0, peer.1);
                }
                (self.accent)(header);
            })
        });
        let mut conversations = conversations.collect::<Vec<_>>().into_iter();
        // The first stream, whoever speaks first.
        let streams = connection.open_bi().await.expect("opened");
        let control = tokio::spawn(play_on(streams, conversations.next().expect("the control stream")));
        let mut played = Vec::new();
        for conversation in conversations {
            played.push(play(&connection, conversation).await);
        }
        let deletion = self.boot(deletion).await;
        played.insert(0, within(control).await.expect("played"));
        (played, deletion)
    }

    /// Plays all that was recorded of a release, or is to be.
    async fn hold(&self, boot: &[Conversation], session: &[Conversation]) -> [Vec<Conversation>; 2] {
        let (deletion, before) = boot.split_last().expect("the deletion of the session comes last");
        let mut booted = Vec::new();
        for conversation in before {
            booted.push(self.boot(conversation).await);
        }
        let (played, deletion) = self.session(session, deletion).await;
        booted.push(deletion);
        [booted, played]
    }
}

/// A server that answers with what it got. Its address is not loopback, which no session may connect to; a machine that has
/// no other can't be connected to at all.
async fn echo() -> ([u8; 4], u16) {
    let Some(IpAddr::V4(own)) = own_address() else { return (PEER, 5432) };
    let listener = TcpListener::bind((own, 0)).await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut bytes = [0; 64];
            let length = socket.read(&mut bytes).await.expect("read");
            socket.write_all(&bytes[..length]).await.expect("written");
        }
    });
    (own.octets(), port)
}

/// What was recorded of a release: boot, session.
fn recorded(release: &Release) -> [Vec<Conversation>; 2] {
    let mut session = release.conversations("session.txt");
    session.retain(|conversation| conversation.name != "connect" || own_address().is_some());
    [release.conversations("boot.txt"), session]
}

fn check_all(recorded: &[Vec<Conversation>; 2], played: &[Vec<Conversation>; 2], differing: &[&str]) {
    for (recorded, played) in recorded.iter().zip(played) {
        assert_eq!(recorded.len(), played.len());
        recorded.iter().zip(played).for_each(|(recorded, played)| check(recorded, played, differing));
    }
}

#[tokio::test]
async fn every_supported_release_is_answered_as_by_its_own_sidecar() {
    if let Some(release) = to_be_recorded() {
        record(&release).await;
    }
    for release in releases() {
        let recorded = recorded(&release);
        let played = Meeting::begin(|_| ()).await.hold(&recorded[0], &recorded[1]).await;
        check_all(&recorded, &played, &DIFFERING);
    }
}

#[tokio::test]
async fn a_later_client_and_a_later_control_plane_are_understood_as_far_as_they_are_known() {
    let recorded = recorded(&releases().pop().expect("recorded"));
    let meeting = Meeting::begin(|header| {
        *header = later(header);
        replace(header, "version", &9.into());
    });
    let played = meeting.await.hold(&recorded[0], &recorded[1]).await;
    check_all(&recorded, &played, &[&DIFFERING[..], &["version"]].concat());
    let rights = played[1][0].first(Side::Sidecar);
    let version = cbor!({ "rights" => { "version" => VERSION } }).expect("CBOR");
    assert_eq!(keeps(&version, &rights.header, &[]), Ok(()), "both speak the smaller of the two versions");
}

async fn record(release: &Release) {
    let scripts = [boot_script(), session_script()];
    let heard = Meeting::begin(|_| ()).await.hold(&scripts[0], &scripts[1]).await;
    let files = [("boot.txt", "control plane"), ("session.txt", "client")];
    for ((heard, script), (file, who)) in heard.into_iter().zip(scripts).zip(files) {
        let about = format!(
            "Release {}: what its {who} says (>) and its sidecar (<), a stream each.",
            release.name()
        );
        let conversations: Vec<_> = heard.into_iter().zip(script).map(timeless).collect();
        release.record(file, &about, &conversations);
    }
}

/// What was heard, around what was to be said: without this moment's keys and addresses.
fn timeless((heard, said): (Conversation, Conversation)) -> Conversation {
    let turns = heard.turns.into_iter().zip(said.turns);
    let turns = turns.map(|(heard, said)| if said.side == Side::Dialler { said } else { heard }).collect();
    Conversation { name: heard.name, turns }
}

fn conversation(name: &str, turns: Vec<Turn>) -> Conversation {
    Conversation { name: name.to_owned(), turns }
}

fn says(header: Value) -> Turn {
    Turn { side: Side::Dialler, said: Said::Frame(Frame { header, tail: Vec::new() }) }
}

/// A frame that is to be heard, whatever it is.
fn hears() -> Turn {
    Turn { side: Side::Sidecar, said: Said::Frame(Frame { header: Value::Null, tail: Vec::new() }) }
}

fn asks(name: &str, question: Result<Value, ciborium::value::Error>) -> Conversation {
    conversation(name, vec![says(question.expect("CBOR")), hears()])
}

fn connect(address: [u8; 4], port: u16) -> Value {
    let octets = Value::Array(address.map(Value::from).into());
    let address = Value::Array(vec![octets, port.into()]);
    let fields = vec![("address".into(), Value::Map(vec![("V4".into(), address)]))];
    Value::Map(vec![("connect".into(), Value::Map(fields))])
}

fn path(path: &str) -> Value {
    Value::Bytes(path.into())
}

/// What the control plane says, in order; the last ends the session.
fn boot_script() -> Vec<Conversation> {
    let announce = |revision: u64, sessions: Vec<Value>| cbor!({ "announce" => { "revision" => revision, "sessions" => sessions } });
    let session = cbor!({
        "key_hash" => Value::Bytes(vec![5; 32]), "features" => ["env", "files", "secrets", "outgoing"],
        "expires_at" => FOR_EVER, "deadline" => FOR_EVER, "creator" => "jane@example.com",
    })
    .expect("CBOR");
    let bytes = |byte: u8| Value::Bytes(vec![byte; 32]);
    let install = cbor!({ "install" => {
        "chain" => [Value::Bytes(vec![0x30, 0])], "reset_key" => bytes(7), "gate_keys" => [bytes(5)],
    } });
    vec![
        asks("announce before anything is installed", announce(6, vec![session.clone()])),
        asks("enroll", cbor!({ "enroll" => {} })),
        asks("install", install),
        asks("announce", announce(7, vec![session.clone()])),
        asks("announce what is older", announce(6, vec![])),
        asks("a call of a later release", cbor!({ "teleport" => { "to" => "mars" } })),
        asks("announce that the session is gone", announce(8, vec![])),
    ]
}

/// What the client says, the control stream first.
fn session_script() -> Vec<Conversation> {
    let hello = cbor!({
        "version" => 1, "software" => "mirrord 0.1.0", "features" => ["env", "files", "secrets", "outgoing"],
    });
    let mut control = asks("control", hello);
    control.turns.push(hears());
    let read = cbor!({ "offset" => 65_536, "length" => 1_048_576 }).expect("CBOR");
    let mut large = asks("open a large file", cbor!({ "open" => { "path" => path("/mnt/app/large") } }));
    large.turns.extend([says(read), hears()]);
    let mut connection = asks("connect", Ok(connect(PEER, 5432)));
    let raw = |side, bytes: &[u8]| Turn { side, said: Said::Raw(bytes.to_vec()) };
    connection.turns.extend([raw(Side::Dialler, b"hello"), raw(Side::Sidecar, &[0; 5])]);
    let open = |at: &str| cbor!({ "open" => { "path" => path(at) } });
    vec![
        control,
        asks("environment", cbor!({ "environment" => {} })),
        asks("open", open("/mnt/app/config")),
        large,
        asks(
            "open what is a link",
            cbor!({ "open" => { "path" => path("/mnt/app/link"), "no_follow" => true } }),
        ),
        asks("open what is not there", open("/mnt/app/nothing")),
        asks("open what is never served", open("/proc/self/environ")),
        asks("stat", cbor!({ "stat" => { "path" => path("/mnt/app/config") } })),
        asks(
            "stat a link itself",
            cbor!({ "stat" => { "path" => path("/mnt/app/link"), "no_follow" => true } }),
        ),
        asks("stat and access", cbor!({ "stat" => { "path" => path("/mnt/app/config"), "access" => 4 } })),
        asks("list", cbor!({ "list" => { "path" => path("/mnt/app/folder") } })),
        asks("read_link", cbor!({ "read_link" => { "path" => path("/mnt/app/link") } })),
        connection,
        asks("connect to where it may not", Ok(connect([127, 0, 0, 1], 5432))),
        asks("resolve", cbor!({ "resolve" => { "name" => "localhost", "family" => "v4" } })),
        asks("ping", cbor!({ "ping" => {} })),
        asks("a request of a later release", cbor!({ "teleport" => { "to" => "mars" } })),
    ]
}
