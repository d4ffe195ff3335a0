//! A layer's end of the conversation, and the proxy's doors around a sidecar of the tests'.

use std::{
    fs::File,
    io::{IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use mirrord_certs::SelfSigned;
use mirrord_cli::{
    kubernetes::{api::Lease, refusal::Refusal},
    proxy::{holds::Holds, layer::Serving},
    tunnel::{
        Patience,
        dial::Dialler,
        failure::DialError,
        keeper::{Keeper, Stop},
        link::Link,
    },
};
use mirrord_layer_brain::conversation::{self, Answer, Ask, Hello, Welcome};
use mirrord_protocol::{frame::PREFIX_BYTES, path::RemotePath};
use mirrord_session::SessionStatus;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use serde::de::DeserializeOwned;
use tokio::{net::UnixListener, runtime::Runtime};

use super::sidecar::FEATURES;

/// So that faults are found within a test's time.
pub(crate) const IMPATIENT: Patience = Patience {
    dial: Duration::from_millis(900),
    pod: Duration::from_millis(450),
    doubt: Duration::from_millis(200),
    ping: Duration::from_millis(200),
    reconnect: Duration::from_secs(2),
};

/// The control plane's part: what a renewal is answered with.
#[derive(Debug, Clone)]
pub(crate) struct FakeLease {
    pub(crate) answer: Arc<Mutex<Result<SessionStatus, Refusal>>>,
    pub(crate) ended: Arc<Mutex<u32>>,
}

impl Lease for FakeLease {
    fn renew(&self, _number: u64) -> BoxFuture<'_, Result<SessionStatus, Refusal>> {
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async { answer })
    }

    fn end(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        *self.ended.lock().unwrap() += 1;
        Box::pin(async { Ok(()) })
    }
}

/// A proxy without its process.
pub(crate) struct Proxy {
    pub(crate) runtime: Runtime,
    pub(crate) link: Link,
    pub(crate) stop: Stop,
    pub(crate) holds: Holds,
    pub(crate) lease: FakeLease,
    pub(crate) socket: PathBuf,
    _folder: tempfile::TempDir,
}

pub(crate) fn dial(
    runtime: &Runtime,
    status: &SessionStatus,
) -> Result<(Dialler, mirrord_cli::tunnel::ask::Tunnel), DialError> {
    let key = Arc::new(SelfSigned::generate().unwrap());
    let dialler = Dialler::new(key, FEATURES.to_vec(), IMPATIENT);
    let tunnel = runtime.block_on(dialler.dial(status))?;
    Ok((dialler, tunnel))
}

impl Proxy {
    pub(crate) fn start(status: SessionStatus) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (dialler, tunnel) = dial(&runtime, &status).unwrap();
        let lease = FakeLease { answer: Arc::new(Mutex::new(Ok(status.clone()))), ended: Arc::default() };
        let entered = runtime.enter();
        let (keeper, link, stop) = Keeper::new(Arc::new(lease.clone()), dialler, status, tunnel);
        runtime.spawn(keeper.run());
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("layer");
        let listener = UnixListener::bind(&socket).unwrap();
        let holds = Holds::default();
        runtime.spawn(Serving::new(link.clone(), holds.clone()).accept(listener));
        drop(entered);
        Self { runtime, link, stop, holds, lease, socket, _folder: folder }
    }

    pub(crate) fn layer(&self) -> Layer {
        Layer::at(&self.socket)
    }

    /// Requests sent so far.
    pub(crate) fn requests(&self) -> u64 {
        self.runtime.block_on(self.link.tunnel()).unwrap().requests()
    }
}

/// One thread's connection.
pub(crate) struct Layer(UnixStream);

impl Layer {
    /// At a proxy's door.
    pub(crate) fn at(socket: &Path) -> Self {
        let mut layer = Self(UnixStream::connect(socket).unwrap());
        layer.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let hello = Ask::Hello(Hello { version: 9, pid: std::process::id(), program: "test".to_owned() });
        let welcome: Welcome = layer.ok(&hello);
        assert_eq!(welcome.version, conversation::VERSION);
        layer
    }

    /// Waits longer for what takes long on a busy machine.
    pub(crate) fn patient(self) -> Self {
        self.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        self
    }

    pub(crate) fn ask<T: DeserializeOwned>(&mut self, ask: &Ask) -> (Answer<T>, Option<OwnedFd>) {
        self.0.write_all(&conversation::encode(ask).unwrap()).unwrap();
        let mut prefix = [0; PREFIX_BYTES];
        let descriptor = self.first(&mut prefix);
        let mut body = vec![0; conversation::body_length(prefix).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (conversation::decode_answer(&body).unwrap(), descriptor)
    }

    fn first(&mut self, prefix: &mut [u8; PREFIX_BYTES]) -> Option<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut prefix[..1])];
        let message = rustix::net::recvmsg(&self.0, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert_eq!(message.bytes, 1, "the proxy hung up");
        assert!(!message.flags.contains(ReturnFlags::CTRUNC));
        let mut found: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                found.extend(descriptors);
            }
        }
        assert!(found.len() <= 1);
        self.0.read_exact(&mut prefix[1..]).unwrap();
        found.pop()
    }

    pub(crate) fn ok<T: DeserializeOwned + std::fmt::Debug>(&mut self, ask: &Ask) -> T {
        match self.ask::<T>(ask) {
            (Answer::Ok(value), None) => value,
            (other, _) => panic!("{other:?}"),
        }
    }

    pub(crate) fn open(
        &mut self,
        path: &str,
        directory: bool,
    ) -> Result<(conversation::Opened, File), Option<i32>> {
        let open = conversation::Open { path: remote(path), no_follow: false, directory };
        match self.ask(&Ask::Open(open)) {
            (Answer::Ok(opened), Some(descriptor)) => Ok((opened, File::from(descriptor))),
            (Answer::Failed(failure), None) => Err(failure.errno),
            other => panic!("{other:?}"),
        }
    }

    /// The reason that everything is answered with when the session is over.
    pub(crate) fn end(&mut self) -> String {
        let stat = conversation::Stat { path: remote("/etc"), no_follow: false, access: 0 };
        match self.ask::<conversation::Attributes>(&Ask::Stat(stat)).0 {
            Answer::Ended(ended) => ended.reason,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn remote(path: &str) -> RemotePath {
    RemotePath::new(path.as_bytes()).unwrap()
}
