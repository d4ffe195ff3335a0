//! The real agent on loopback, and the tests' own control plane and clients around it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, ExitStatus},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mirrord_certs::{Authority, GateKey, SelfSigned, verify};
use mirrord_protocol::{
    VERSION,
    boot::{Announce, Announcement, Call, Done, Enrolled, Install, Report},
    control::{Control, Hello, Rights},
    feature::Feature,
    reply::{Failure, Reply},
    request::Request,
    route::{Purpose, RouteId},
};
use mirrord_tunnel::{framing, setup};
use mirrord_usage::{Usage, forget_peak};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustix::process::{Pid, Signal};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use tempfile::TempDir;

pub(crate) const POD_UID: &str = "0f1d3c5b-7a98-4e21-9b3d-2c4f6a8e0b1d";
pub(crate) const CONTAINER: &str = "app";
/// Nothing on loopback takes longer, but on a machine that stands still.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// An agent that runs, and what a control plane has.
pub(crate) struct Sidecar {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) gate: GateKey,
    pub(crate) route: RouteId,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sidecar {
    /// Starts an agent with these variables and nothing else in its environment.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_behind(&[], &[], variables)
    }

    /// Starts an agent as the last arguments of another program, with further flags. The last of them all is the
    /// identity's folder.
    pub(crate) fn start_behind(before: &[String], flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("made");
        let identity =
            [("uid", POD_UID), ("name", "checkout-1"), ("namespace", "shop"), ("token", "the token")];
        for (name, content) in identity {
            fs::write(folder.path().join(name), content).expect("written");
        }
        let authority = Authority::create(now()).expect("created");
        let port = free_port();
        let mut line = before.to_vec();
        line.push(env!("CARGO_BIN_EXE_mirrord-agent").into());
        let search = std::env::var_os("PATH").filter(|_| !before.is_empty()).map(|search| ("PATH", search));
        let child = Command::new(&line[0])
            .args(&line[1..])
            .args(["serve", "--container", CONTAINER, "--port", &port.to_string(), "--linger-seconds", "1"])
            .args(["--ca", &STANDARD.encode(authority.certificate())])
            .args(flags)
            .arg("--identity")
            .arg(folder.path())
            .env_clear()
            .envs(variables.iter().copied())
            .envs(search)
            .stderr(fs::File::create(folder.path().join("log")).expect("made"))
            .spawn()
            .expect("started");
        Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            folder,
            authority,
            gate: GateKey::new(&[5; 32]).expect("32 octets"),
            route: RouteId::of(POD_UID, CONTAINER),
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("readable")
    }

    /// Ends the agent as kubelet does, and waits for it.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        rustix::process::kill_process(self.pid(), Signal::TERM).expect("signalled");
        self.child.wait().expect("ended")
    }

    /// Threads of the agent and of its worker.
    pub(crate) fn threads(&self) -> usize {
        let of = |pid: i32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        of(self.pid().as_raw_pid()) + self.worker().map_or(0, |worker| of(worker.as_raw_pid()))
    }

    /// What the agent and its worker use.
    pub(crate) fn usage(&self) -> Usage {
        let worker = self.worker().and_then(|worker| Usage::of(number(worker))).unwrap_or_default();
        Usage::of(number(self.pid())).expect("alive") + worker
    }

    /// Lets peaks begin anew.
    pub(crate) fn forget_peak(&self) {
        for pid in self.worker().into_iter().chain([self.pid()]) {
            forget_peak(number(pid)).expect("our own");
        }
    }

    /// What it uses while it waits for the first call.
    pub(crate) async fn floor(&self) -> Usage {
        within(async {
            while !self.log().contains("dormant") {
                tokio::task::yield_now().await;
            }
        })
        .await;
        self.usage()
    }

    /// The process that is awake, if one is.
    pub(crate) fn worker(&self) -> Option<Pid> {
        let pid = self.pid().as_raw_pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("alive");
        children.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().expect("a number")))
    }

    /// Has the kernel kill the process that is awake.
    pub(crate) fn kill_worker(&self) {
        rustix::process::kill_process(self.worker().expect("awake"), Signal::KILL).expect("signalled");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Dials the boot channel as the control plane of an authority.
    pub(crate) async fn call(&self, authority: &Authority) -> Result<ControlPlane, ConnectionError> {
        self.call_at(authority, now()).await
    }

    /// As [`Self::call`], by another clock.
    pub(crate) async fn call_at(
        &self,
        authority: &Authority,
        clock: u64,
    ) -> Result<ControlPlane, ConnectionError> {
        let identity = authority.control_plane(clock).expect("issued");
        let tls = verify::boot_client(&identity).expect("configured");
        let config = setup::client(tls, Purpose::Boot, self.route, None).expect("configured");
        let (endpoint, connection) = dial(config, self.address, "sidecar").await?;
        Ok(ControlPlane { connection, _endpoint: endpoint })
    }

    /// A control plane that has installed all that the agent needs.
    pub(crate) async fn booted(&self) -> ControlPlane {
        self.booted_at(now()).await
    }

    /// As [`Self::booted`], by another clock.
    pub(crate) async fn booted_at(&self, clock: u64) -> ControlPlane {
        let control_plane = self.call_at(&self.authority, clock).await.expect("connected");
        let (enrolled, token) = control_plane.enroll().await.expect("enrolled");
        assert_eq!(token, b"the token");
        let leaf = self.authority.sidecar(&enrolled.csr, self.route, clock, 3600 * 24).expect("issued");
        let install = Install {
            chain: vec![ByteBuf::from(leaf.to_vec())],
            reset_key: vec![7; 32],
            gate_keys: vec![ByteBuf::from(self.gate.as_bytes().to_vec())],
        };
        control_plane.say(Call::Install(install)).await.expect("installed");
        control_plane
    }

    /// Dials as a client with a gate token.
    pub(crate) async fn dial(&self, key: &SelfSigned, token: Vec<u8>) -> Result<Dialled, ConnectionError> {
        let tls = verify::session_client(key, [self.authority.certificate().clone()]).expect("configured");
        let config = setup::client(tls, Purpose::Session, self.route, Some(token)).expect("configured");
        dial(config, self.address, &self.route.server_name()).await
    }

    pub(crate) fn token(&self) -> Vec<u8> {
        self.gate.issue(self.route, now() + 60)
    }

    /// A session that says Hello.
    pub(crate) async fn session(&self, key: &SelfSigned, features: &[Feature]) -> Session {
        let (endpoint, connection) = self.dial(key, self.token()).await.expect("connected");
        let (mut send, receive) = connection.open_bi().await.expect("opened");
        let hello = Hello { version: VERSION, software: "test".into(), features: features.into() };
        framing::write(&mut send, &hello, &[]).await.expect("sent");
        Session { connection, control: receive, _send: send, _endpoint: endpoint }
    }
}

type Dialled = (Endpoint, Connection);

pub(crate) async fn dial(
    config: quinn::ClientConfig,
    to: SocketAddr,
    name: &str,
) -> Result<Dialled, ConnectionError> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let endpoint = Endpoint::new(
        setup::endpoint(None, &[1; 32]),
        None,
        socket,
        std::sync::Arc::new(quinn::TokioRuntime),
    )
    .expect("made");
    let connecting = endpoint.connect_with(config, to, name).expect("configured");
    let connection = within(connecting).await?;
    Ok((endpoint, connection))
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_pid().cast_unsigned()
}

fn free_port() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
    socket.local_addr().expect("bound").port()
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// The control plane's side of the boot channel.
pub(crate) struct ControlPlane {
    pub(crate) connection: Connection,
    _endpoint: Endpoint,
}

impl ControlPlane {
    pub(crate) async fn enroll(&self) -> Result<(Enrolled, Vec<u8>), Failure> {
        ask(&self.connection, &Call::Enroll {}).await
    }

    pub(crate) async fn say(&self, call: Call) -> Result<(), Failure> {
        ask::<_, Done>(&self.connection, &call).await.map(|_| ())
    }

    pub(crate) async fn report(&self) -> Report {
        ask(&self.connection, &Call::Report {}).await.expect("reported").0
    }

    /// A call of another release.
    pub(crate) async fn call_by_name(&self, name: &str) -> Result<Done, Failure> {
        let call = std::collections::BTreeMap::from([(name, std::collections::BTreeMap::<&str, u8>::new())]);
        ask(&self.connection, &call).await.map(|(done, _)| done)
    }

    pub(crate) async fn announce(&self, revision: u64, sessions: &[(&SelfSigned, &[Feature])]) {
        self.announce_at(revision, sessions, now()).await;
    }

    /// As [`Self::announce`], by another clock.
    pub(crate) async fn announce_at(
        &self,
        revision: u64,
        sessions: &[(&SelfSigned, &[Feature])],
        clock: u64,
    ) {
        let announcement = |(key, features): &(&SelfSigned, &[Feature])| Announcement {
            key_hash: key.key_hash().0.to_vec(),
            features: features.to_vec(),
            expires_at: clock + 100,
            deadline: 0,
            creator: "ada".into(),
        };
        let sessions = sessions.iter().map(announcement).collect();
        self.say(Call::Announce(Announce { revision, sessions, now: clock })).await.expect("announced");
    }
}

/// A client's session.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    control: RecvStream,
    _send: SendStream,
    _endpoint: Endpoint,
}

impl Session {
    /// The next word on the control stream.
    pub(crate) async fn control(&mut self) -> Control {
        let frame = within(framing::expect(&mut self.control)).await.expect("a word");
        frame.decode().expect("a control message")
    }

    pub(crate) async fn rights(&mut self) -> Rights {
        match self.control().await {
            Control::Rights(rights) => rights,
            Control::Close(close) => panic!("closed: {close:?}"),
        }
    }

    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<(T, Vec<u8>), Failure> {
        ask(&self.connection, &request).await
    }

    /// A request whose stream goes on behind the reply.
    pub(crate) async fn open<T: DeserializeOwned>(
        &self,
        request: Request,
    ) -> (Result<T, Failure>, SendStream, RecvStream) {
        let (mut send, mut receive) = self.connection.open_bi().await.expect("opened");
        framing::write(&mut send, &request, &[]).await.expect("sent");
        let frame = within(framing::expect(&mut receive)).await.expect("answered");
        (frame.decode::<Reply<T>>().expect("a reply").into_result(), send, receive)
    }
}

async fn ask<Q: Serialize, A: DeserializeOwned>(
    connection: &Connection,
    question: &Q,
) -> Result<(A, Vec<u8>), Failure> {
    let (mut send, mut receive) = connection.open_bi().await.expect("opened");
    framing::write(&mut send, question, &[]).await.expect("sent");
    let _ = send.finish();
    let frame = within(framing::expect(&mut receive)).await.expect("answered");
    let reply: Reply<A> = frame.decode().expect("a reply");
    reply.into_result().map(|answer| (answer, frame.tail.to_vec()))
}
