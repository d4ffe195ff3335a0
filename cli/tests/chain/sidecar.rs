//! A sidecar: real QUIC, TLS and messages, a few files in memory, real connections to loopback.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mirrord_certs::{Authority, SelfSigned, verify::session_server};
use mirrord_protocol::{
    VERSION,
    control::{CloseCode, Control, Hello, Obstacle, Rights, View},
    feature::Feature,
    reply::{
        self, Attributes, Connected, Data, Entry, Environment, Failure, Link, Listing, Opened, Pong, Reply,
        Resolved,
    },
    request::{Read, Request},
    route::RouteId,
};
use mirrord_session::{SessionPod, SessionStatus};
use mirrord_tunnel::{framing, setup};
use quinn::{Connection, Endpoint, RecvStream, SendStream, TokioRuntime, VarInt};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    time::Instant,
};

use super::releases::Recorded;

/// What it serves.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) environment: Vec<u8>,
    /// Why its view is the sidecar's own; else it is the application's.
    pub(crate) obstacle: Option<Obstacle>,
    /// Close each connection with this instead of answering Hello.
    pub(crate) refuse: Option<CloseCode>,
    /// And with these words.
    pub(crate) reason: String,
    /// What it answers instead, by the path or name that was asked about.
    pub(crate) tricks: BTreeMap<String, Trick>,
    /// Say what was recorded, and nothing of the above.
    pub(crate) recorded: Option<Recorded>,
}

/// Bytes on a stream, in place of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trick {
    pub(crate) first: Vec<u8>,
    /// Then these, over and over, until nobody listens.
    pub(crate) again: Vec<u8>,
}

pub(crate) struct Sidecar {
    pub(crate) pod: SessionPod,
    pub(crate) address: SocketAddr,
    authority: String,
    runtime: Option<Runtime>,
    connections: Arc<Mutex<Vec<Connection>>>,
}

/// The mode of all its files, and their time.
pub(crate) const MODE: u32 = libc::S_IFREG | 0o640;
pub(crate) const MTIME: reply::Time = reply::Time(1_700_000_000, 5);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Sidecar {
    pub(crate) fn start(name: &str, world: World) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let route = RouteId::of(name, "app");
        let authority = Authority::create(now()).unwrap();
        let key = SelfSigned::generate().unwrap();
        let certificate = authority.sidecar(&key.signing_request().unwrap(), route, now(), 3600).unwrap();
        let tls = session_server(vec![certificate], key.private_key()).unwrap();
        let config = setup::server(tls, setup::Windows::default()).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let entered = runtime.enter();
        let endpoint = Endpoint::new(
            setup::endpoint(Some(route), &[7; 32]),
            Some(config),
            socket,
            Arc::new(TokioRuntime),
        )
        .unwrap();
        drop(entered);
        let connections: Arc<Mutex<Vec<Connection>>> = Arc::default();
        runtime.spawn(serve(endpoint, Arc::new(world), connections.clone()));
        let pod = SessionPod {
            name: name.to_owned(),
            uid: name.to_owned(),
            route: route.to_string(),
            address: "127.0.0.1".to_owned(),
            port: address.port(),
            ..SessionPod::default()
        };
        let authority = authority.certificate_pem().to_owned();
        Self { pod: pod.with_gate_token(b"token"), address, authority, runtime: Some(runtime), connections }
    }

    /// What the control plane would have answered.
    pub(crate) fn status(&self) -> SessionStatus {
        SessionStatus {
            workload: "deployment.checkout".to_owned(),
            features: vec!["env".to_owned(), "files".to_owned(), "outgoing".to_owned()],
            container: "app".to_owned(),
            pods: vec![self.pod.clone()],
            ingress: self.address.to_string(),
            certificate_authorities: self.authority.clone(),
            expires_at: now() + 300,
            deadline: now() + 3600,
            ..SessionStatus::default()
        }
    }

    /// Ends all connections, as the control plane would have it.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.close(VarInt::from_u32(code.number()), reason.as_bytes());
        }
    }

    /// Dies without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(endpoint: Endpoint, world: Arc<World>, connections: Arc<Mutex<Vec<Connection>>>) {
    while let Some(incoming) = endpoint.accept().await {
        let (world, connections) = (world.clone(), connections.clone());
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            if let Some(code) = world.refuse {
                return connection.close(VarInt::from_u32(code.number()), world.reason.as_bytes());
            }
            connections.lock().unwrap().push(connection.clone());
            let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
            let frame = framing::expect(&mut receive).await.unwrap();
            if let Some(recorded) = &world.recorded {
                recorded.greet(&frame, &mut send).await;
                while let Ok((send, receive)) = connection.accept_bi().await {
                    let recorded = recorded.clone();
                    tokio::spawn(async move { recorded.answer(send, receive).await });
                }
                return;
            }
            let hello: Hello = frame.decode().unwrap();
            let rights = Rights {
                version: VERSION.min(hello.version),
                software: String::new(),
                features: hello.features,
                expires_at: 0,
                view: if world.obstacle.is_some() { View::Twin } else { View::Live },
                obstacle: world.obstacle,
            };
            framing::write(&mut send, &Control::Rights(rights), &[]).await.unwrap();
            while let Ok((send, receive)) = connection.accept_bi().await {
                tokio::spawn(answer(world.clone(), send, receive));
            }
        });
    }
}

async fn answer(world: Arc<World>, mut send: SendStream, mut receive: RecvStream) {
    let Ok(frame) = framing::expect(&mut receive).await else { return };
    let request = Request::decode(&frame.header).unwrap();
    if let Some(trick) = trick(&world, &request) {
        return play(trick, &mut send).await;
    }
    match request {
        Request::Environment {} => {
            ok(&mut send, Environment { view: View::Twin }, &world.environment).await;
        }
        Request::Open(open) => file(&world, &open.path.to_string(), send, receive).await,
        Request::Stat(stat) => match attributes(&world, &stat.path.to_string()) {
            Some(attributes) => ok(&mut send, attributes, &[]).await,
            None => failed::<Attributes>(&mut send, libc::ENOENT).await,
        },
        Request::List(list) => listing(&world, &list.path.to_string(), &mut send).await,
        Request::ReadLink(_) => failed::<Link>(&mut send, libc::EINVAL).await,
        Request::Connect(connect) => match TcpStream::connect(connect.address).await {
            Ok(socket) => relay(socket, send, receive).await,
            Err(error) => failed::<Connected>(&mut send, error.raw_os_error().unwrap()).await,
        },
        Request::Resolve(resolve) if resolve.name == "db.shop" => {
            let addresses = vec!["10.0.0.9".parse().unwrap()];
            ok(&mut send, Resolved { addresses, canonical: None }, &[]).await;
        }
        Request::Resolve(_) => {
            let failure = Failure::lookup(-2, "no such name");
            let _ = framing::write(&mut send, &Reply::<Resolved>::Failed(failure), &[]).await;
        }
        Request::Ping {} => ok(&mut send, Pong {}, &[]).await,
    }
}

fn trick<'a>(world: &'a World, request: &Request) -> Option<&'a Trick> {
    let asked = match request {
        Request::Open(open) => open.path.to_string(),
        Request::Stat(stat) => stat.path.to_string(),
        Request::List(list) => list.path.to_string(),
        Request::ReadLink(link) => link.path.to_string(),
        Request::Resolve(resolve) => resolve.name.clone(),
        Request::Environment {} | Request::Connect(_) | Request::Ping {} => return None,
    };
    world.tricks.get(&asked)
}

async fn play(trick: &Trick, send: &mut SendStream) {
    let mut written = send.write_all(&trick.first).await;
    while written.is_ok() && !trick.again.is_empty() {
        written = send.write_all(&trick.again).await;
    }
    let _ = send.finish();
}

async fn ok<T: Serialize>(send: &mut SendStream, value: T, tail: &[u8]) {
    let _ = framing::write(send, &Reply::Ok(value), tail).await;
}

async fn failed<T: Serialize>(send: &mut SendStream, errno: i32) {
    let _ = framing::write(send, &Reply::<T>::Failed(Failure::system(errno)), &[]).await;
}

fn attributes(world: &World, path: &str) -> Option<Attributes> {
    let folder = Attributes { mode: libc::S_IFDIR | 0o755, ino: 1, ..Attributes::default() };
    match world.files.get(path) {
        Some(content) => Some(Attributes {
            mode: MODE,
            size: content.len() as u64,
            mtime: MTIME,
            ino: 2,
            ..Attributes::default()
        }),
        None => world.files.keys().any(|file| file.starts_with(&format!("{path}/"))).then_some(folder),
    }
}

async fn file(world: &World, path: &str, mut send: SendStream, mut receive: RecvStream) {
    let Some(attributes) = attributes(world, path) else {
        return failed::<Opened>(&mut send, libc::ENOENT).await;
    };
    if let Some(delay) = path.strip_prefix("/slow/") {
        let ready = Instant::now() + Duration::from_millis(delay.parse().unwrap());
        tokio::time::sleep_until(ready).await;
    }
    let content = world.files.get(path).map(Vec::as_slice).unwrap_or_default();
    let first = &content[..content.len().min(64 * 1024)];
    ok(&mut send, Opened { attributes, end: first.len() == content.len() }, first).await;
    while let Ok(Some(frame)) = framing::read(&mut receive).await {
        let Read { offset, length } = frame.decode().unwrap();
        let from = usize::try_from(offset).unwrap().min(content.len());
        let to = (from + length as usize).min(content.len());
        ok(&mut send, Data { end: to == content.len() }, &content[from..to]).await;
    }
}

async fn listing(world: &World, path: &str, send: &mut SendStream) {
    let Some(attributes) = attributes(world, path) else {
        return failed::<Listing>(send, libc::ENOENT).await;
    };
    if world.files.contains_key(path) {
        return failed::<Listing>(send, libc::ENOTDIR).await;
    }
    let entry = |file: &String| {
        let name = file.strip_prefix(path)?.strip_prefix('/')?;
        Some(Entry { name: name.as_bytes().to_vec(), attributes: self::attributes(world, file) })
    };
    let entries: Vec<Entry> = world.files.keys().filter_map(entry).collect();
    let half = entries.len() / 2;
    let first = Listing { entries: entries[..half].to_vec(), more: true, attributes: Some(attributes) };
    ok(send, first, &[]).await;
    ok(send, Listing { entries: entries[half..].to_vec(), more: false, attributes: None }, &[]).await;
}

async fn relay(socket: TcpStream, mut send: SendStream, mut receive: RecvStream) {
    let connected = Connected { local: socket.local_addr().unwrap(), peer: socket.peer_addr().unwrap() };
    ok(&mut send, connected, &[]).await;
    let (mut reader, mut writer) = socket.into_split();
    let up = async {
        while let Ok(Some(chunk)) = receive.read_chunk(65536, true).await {
            if writer.write_all(&chunk.bytes).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; 65536];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return drop(send.finish()),
                Ok(count) => send.write_all(&buffer[..count]).await.unwrap(),
                Err(_) => return drop(send.reset(VarInt::from_u32(1))),
            }
        }
    };
    tokio::join!(up, down);
}

impl World {
    pub(crate) fn with_file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_owned(), content.into());
        self
    }

    pub(crate) fn with_trick(
        mut self,
        asked: &str,
        first: impl Into<Vec<u8>>,
        again: impl Into<Vec<u8>>,
    ) -> Self {
        self.tricks.insert(asked.to_owned(), Trick { first: first.into(), again: again.into() });
        self
    }
}

/// All that a session could ask for.
pub(crate) const FEATURES: [Feature; 3] = [Feature::Env, Feature::Files, Feature::Outgoing];
