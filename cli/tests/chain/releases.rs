//! Sidecars of every supported release, as they were recorded (`protocol/recorded`): they answer what they were asked then, with
//! the very bytes, and the present client must ask at least what theirs asked.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use ciborium::{Value, cbor};
use mirrord_layer_brain::conversation::{
    self, Answer, Ask, Attach, Connect, Connected, Done, Resolve, Resolved,
};
use mirrord_protocol::{
    reply::{Environment, Pong},
    request::{Family, Request},
};
use mirrord_recorded::{Conversation, Frame, Release, Said, Side, Turn, keeps, later, releases, replace};
use mirrord_tunnel::framing;
use quinn::{RecvStream, SendStream};

use super::{
    layer::{Layer, Proxy, remote},
    sidecar::{Sidecar, World},
};

/// The recorded answer to what a sidecar doesn't know.
const UNKNOWN: &str = "a request of a later release";

/// A sidecar of another release.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    conversations: Vec<Conversation>,
    /// Names of the conversations that were held.
    held: Arc<Mutex<BTreeSet<String>>>,
}

impl Recorded {
    fn of(release: &Release) -> Self {
        Self { conversations: release.conversations("session.txt"), held: Arc::default() }
    }

    /// The same, but a release later.
    fn later(mut self) -> Self {
        for turn in self.conversations.iter_mut().flat_map(|conversation| &mut conversation.turns) {
            if let (Side::Sidecar, Said::Frame(frame)) = (turn.side, &mut turn.said) {
                frame.header = later(&frame.header);
                replace(&mut frame.header, "version", &9.into());
                replace(&mut frame.header, "view", &"dream".into());
            }
        }
        let control = self.conversations.iter_mut().find(|it| it.name == "control").unwrap();
        let weather = cbor!({ "weather" => { "sun" => true } }).unwrap();
        let said = Said::Frame(Frame { header: weather, tail: Vec::new() });
        control.turns.insert(2, Turn { side: Side::Sidecar, said });
        self
    }

    /// The same, before it knew these requests.
    fn without(mut self, request: &str) -> Self {
        let asks = |conversation: &Conversation| {
            conversation.first(Side::Dialler).header.as_map().unwrap()[0].0.as_text() == Some(request)
        };
        self.conversations.retain(|conversation| !asks(conversation));
        self
    }

    /// Answers Hello on the control stream, with all but the end of the session.
    pub(crate) async fn greet(&self, hello: &framing::Frame, send: &mut SendStream) {
        let control = self.named("control");
        let hello: Value = hello.decode().unwrap();
        let differing = ["features", "software", "version"];
        keeps(&control.first(Side::Dialler).header, &hello, &differing).unwrap();
        self.held.lock().unwrap().insert(control.name.clone());
        let (_close, words) = control.turns[1..].split_last().unwrap();
        for turn in words {
            say(send, &turn.said).await;
        }
    }

    /// Holds the conversation that a request begins.
    pub(crate) async fn answer(&self, mut send: SendStream, mut receive: RecvStream) {
        let Ok(asked) = framing::expect(&mut receive).await else { return };
        let asked: Value = asked.decode().unwrap();
        // Of several that it could be the one that says most.
        let known = self.conversations.iter().filter(|known| begins(known, &asked));
        let conversation =
            known.max_by_key(|known| size(&known.first(Side::Dialler).header)).unwrap_or(self.named(UNKNOWN));
        self.held.lock().unwrap().insert(conversation.name.clone());
        for Turn { side, said } in &conversation.turns[1..] {
            match (side, said) {
                (Side::Sidecar, said) => say(&mut send, said).await,
                (Side::Dialler, Said::Frame(frame)) => {
                    let Ok(heard) = framing::expect(&mut receive).await else { return };
                    keeps(&frame.header, &heard.decode().unwrap(), &[]).unwrap();
                }
                (Side::Dialler, Said::Raw(bytes)) => {
                    let mut heard = vec![0; bytes.len()];
                    receive.read_exact(&mut heard).await.unwrap();
                    assert_eq!(&heard, bytes);
                }
            }
        }
        let _ = send.finish();
        // Whoever stops listening before the other has ended cuts it off.
        let _ = receive.read_to_end(1024).await;
    }

    fn named(&self, name: &str) -> &Conversation {
        self.conversations.iter().find(|conversation| conversation.name == name).expect(name)
    }
}

fn begins(conversation: &Conversation, asked: &Value) -> bool {
    keeps(&conversation.first(Side::Dialler).header, asked, &[]).is_ok()
}

fn size(value: &Value) -> usize {
    match value {
        Value::Map(fields) => fields.iter().map(|(_, value)| 1 + size(value)).sum(),
        _ => 1,
    }
}

async fn say(send: &mut SendStream, said: &Said) {
    let bytes = match said {
        Said::Frame(frame) => frame.bytes(),
        Said::Raw(bytes) => bytes.clone(),
    };
    send.write_all(&bytes).await.unwrap();
}

fn serving(recorded: &Recorded) -> Sidecar {
    Sidecar::start("shop-1", World { recorded: Some(recorded.clone()), ..World::default() })
}

fn read(layer: &mut Layer, path: &str) -> Result<String, Option<i32>> {
    let (_, mut file) = layer.open(path, false)?;
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    Ok(text)
}

fn stat(layer: &mut Layer, path: &str, no_follow: bool, access: u8) -> conversation::Attributes {
    layer.ok(&Ask::Stat(conversation::Stat { path: remote(path), no_follow, access }))
}

fn connect(layer: &mut Layer, address: SocketAddr) -> Answer<Connected> {
    layer.ask(&Ask::Connect(Connect { address, v6_only: false })).0
}

/// All that a client asks for, and what it makes of the answers.
fn use_everything(proxy: &Proxy) {
    let ask = proxy.runtime.block_on(proxy.link.ask::<Environment>(&Request::Environment {}));
    assert_eq!(&ask.unwrap().1[..], b"GREETING=hello world\0EMPTY=");
    assert_eq!(proxy.runtime.block_on(proxy.link.ask::<Pong>(&Request::Ping {})).unwrap().0, Pong {});

    let mut layer = proxy.layer();
    assert_eq!(read(&mut layer, "/mnt/app/config").unwrap(), "key: 1\n");
    let large = read(&mut layer, "/mnt/app/large").unwrap();
    assert!(large.len() == 65_545 && large.ends_with("aaathe rest\n"), "{}", large.len());
    assert_eq!(read(&mut layer, "/mnt/app/nothing"), Err(Some(libc::ENOENT)));
    assert_eq!(read(&mut layer, "/proc/self/environ"), Err(Some(libc::EACCES)));
    let link = conversation::Open { path: remote("/mnt/app/link"), no_follow: true, directory: false };
    match layer.ask::<conversation::Opened>(&Ask::Open(link)).0 {
        Answer::Failed(failure) => assert_eq!(failure.errno, Some(libc::ELOOP)),
        other => panic!("{other:?}"),
    }
    assert_eq!(stat(&mut layer, "/mnt/app/config", false, 0).size, 7);
    assert_eq!(stat(&mut layer, "/mnt/app/config", false, 4).mode, libc::S_IFREG | 0o644);
    assert_eq!(stat(&mut layer, "/mnt/app/link", true, 0).mode & libc::S_IFMT, libc::S_IFLNK);
    let read_link = Ask::ReadLink(conversation::ReadLink { path: remote("/mnt/app/link") });
    assert_eq!(layer.ok::<conversation::Link>(&read_link).target, b"config");
    let (opened, mut folder) = layer.open("/mnt/app/folder", true).unwrap();
    let mut listing = Vec::new();
    folder.read_to_end(&mut listing).unwrap();
    assert_eq!(opened.attributes.mode, libc::S_IFDIR | 0o755);
    assert!(listing.windows(4).any(|bytes| bytes == b"one\0"));
    use_the_network(&mut layer);
}

fn use_the_network(layer: &mut Layer) {
    let resolve =
        Resolve { name: "localhost".into(), family: Family::V4, canonical: false, configured: false };
    let resolved: Resolved = layer.ok(&Ask::Resolve(resolve));
    assert_eq!(resolved.addresses, [std::net::IpAddr::from([127, 0, 0, 1])]);
    match connect(layer, "127.0.0.1:5432".parse().unwrap()) {
        Answer::Failed(failure) => assert_eq!(failure.errno, Some(libc::EACCES)),
        other => panic!("{other:?}"),
    }
    let Answer::Ok(connected) = connect(layer, "10.0.0.9:5432".parse().unwrap()) else { panic!("refused") };
    let mut socket = TcpStream::connect(connected.listener).unwrap();
    let attach = Attach { ticket: connected.ticket, local: socket.local_addr().unwrap() };
    let _: Done = layer.ok(&Ask::Attach(attach));
    socket.write_all(b"hello").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello");
}

#[test]
fn the_present_client_gets_from_every_supported_release_what_that_releases_client_got() {
    for release in releases() {
        let recorded = Recorded::of(&release);
        let sidecar = serving(&recorded);
        use_everything(&Proxy::start(sidecar.status()));
        let never_asked = recorded.conversations.iter().filter(|it| it.name != UNKNOWN);
        let held = recorded.held.lock().unwrap();
        let never_asked: Vec<_> = never_asked.filter(|it| !held.contains(&it.name)).collect();
        assert!(never_asked.is_empty(), "{}: the client no longer asks: {never_asked:?}", release.name());
        assert!(!held.contains(UNKNOWN), "{}: the client asks what it doesn't know", release.name());
    }
}

#[test]
fn a_later_sidecar_is_understood_as_far_as_it_is_known() {
    let recorded = Recorded::of(&releases().pop().unwrap()).later();
    let sidecar = serving(&recorded);
    use_everything(&Proxy::start(sidecar.status()));
}

#[test]
fn a_request_that_an_older_sidecar_lacks_fails_by_itself_and_says_what_to_do() {
    let recorded = Recorded::of(&releases().pop().unwrap()).without("stat");
    let sidecar = serving(&recorded);
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    let stat = Ask::Stat(conversation::Stat { path: remote("/mnt/app/config"), no_follow: false, access: 0 });
    match layer.ask::<conversation::Attributes>(&stat).0 {
        Answer::Failed(failure) => {
            assert_eq!(failure.errno, Some(libc::ENOSYS));
            assert!(failure.message.contains("restart the pod"), "{}", failure.message);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(read(&mut layer, "/mnt/app/config").unwrap(), "key: 1\n", "all else goes on");
}
