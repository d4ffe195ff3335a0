//! A sidecar's end of the boot channel, which tells the test what it was told.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use mirrord_certs::{Authority, SelfSigned, verify};
use mirrord_protocol::{
    VERSION,
    boot::{Announce, Call, Done, Enrolled, Install, REPORTS_SINCE, Report},
    control::CloseCode,
    reply::{Failure, FailureCode, Reply},
    route::RouteId,
};
use mirrord_tunnel::{
    framing,
    setup::{self, Windows},
};
use quinn::{Connection, Endpoint, TokioRuntime, VarInt};
use tokio::sync::mpsc;

use super::PATIENCE;

/// What a sidecar was told.
#[derive(Debug)]
pub(crate) enum Told {
    Enroll,
    Install(Install),
    Announce(Announce),
    /// Something that it doesn't know.
    AskedTooMuch,
    HungUp,
}

/// A sidecar.
pub(crate) struct Twin {
    pub(crate) route: RouteId,
    pub(crate) address: SocketAddr,
    pub(crate) uid: String,
    told_rx: mpsc::UnboundedReceiver<Told>,
    connections: Arc<Mutex<Vec<Connection>>>,
}

/// How a sidecar behaves.
pub(crate) struct Manners {
    pub(crate) token: String,
    /// Asks a certificate for another key than its own.
    pub(crate) foreign_request: bool,
    /// What it speaks; one of the first release doesn't say, and hangs up on who asks what it did.
    pub(crate) version: u16,
    /// What it did, each told once.
    pub(crate) reports: Vec<Report>,
}

impl Manners {
    /// A proper sidecar's, of this release.
    pub(crate) fn proper(token: &str) -> Self {
        Self { token: token.to_owned(), foreign_request: false, version: VERSION, reports: Vec::new() }
    }
}

impl Twin {
    /// Starts one for container `app` of a pod.
    pub(crate) fn start(authority: &Authority, uid: &str, manners: Manners) -> Self {
        let route = RouteId::of(uid, "app");
        let key = SelfSigned::generate().unwrap();
        let tls = verify::boot_server(&key, [authority.certificate().clone()]).unwrap();
        let config = setup::server(tls, Windows::default()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let runtime = Arc::new(TokioRuntime);
        let endpoint =
            Endpoint::new(setup::endpoint(Some(route), &[7; 32]), Some(config), socket, runtime).unwrap();
        let (told_tx, told_rx) = mpsc::unbounded_channel();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let all = connections.clone();
        let request_key = if manners.foreign_request { SelfSigned::generate().unwrap() } else { key };
        let state = Arc::new(State {
            csr: request_key.signing_request().unwrap(),
            token: manners.token,
            version: manners.version,
            reports: Mutex::new(manners.reports),
            told_tx,
            installed: Mutex::new(false),
        });
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                all.lock().unwrap().push(connection.clone());
                tokio::spawn(serve(connection, state.clone()));
            }
        });
        Self { route, address, uid: uid.to_owned(), told_rx, connections }
    }

    /// What it is told next.
    pub(crate) async fn told(&mut self) -> Told {
        let told = tokio::time::timeout(PATIENCE, self.told_rx.recv()).await;
        told.expect("it was told nothing").expect("it runs")
    }

    /// The next set of sessions that it is told.
    pub(crate) async fn announced(&mut self) -> Announce {
        loop {
            if let Told::Announce(announce) = self.told().await {
                return announce;
            }
        }
    }

    /// What it was told so far.
    pub(crate) fn told_so_far(&mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.told_rx.try_recv().ok()).collect()
    }

    /// Loses all connections.
    pub(crate) fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.close(VarInt::from_u32(5), b"test");
        }
    }
}

struct State {
    csr: Vec<u8>,
    token: String,
    version: u16,
    reports: Mutex<Vec<Report>>,
    told_tx: mpsc::UnboundedSender<Told>,
    installed: Mutex<bool>,
}

async fn serve(connection: Connection, state: Arc<State>) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let call: Call = framing::expect(&mut receive).await.unwrap().decode().unwrap();
        match call {
            Call::Enroll {} => {
                let (csr, version) = (state.csr.clone(), state.version);
                let enrolled = Enrolled { csr, installed: false, view: Default::default(), version };
                framing::write(&mut send, &Reply::Ok(enrolled), state.token.as_bytes()).await.unwrap();
                let _ = state.told_tx.send(Told::Enroll);
            }
            Call::Install(install) => {
                *state.installed.lock().unwrap() = true;
                framing::write(&mut send, &Reply::Ok(Done {}), &[]).await.unwrap();
                let _ = state.told_tx.send(Told::Install(install));
            }
            Call::Report {} if state.version < REPORTS_SINCE => {
                let _ = state.told_tx.send(Told::AskedTooMuch);
                connection.close(VarInt::from(CloseCode::Protocol.number()), b"malformed header");
            }
            Call::Report {} => {
                let report = state.reports.lock().unwrap().pop().unwrap_or_default();
                framing::write(&mut send, &Reply::Ok(report), &[]).await.unwrap();
            }
            Call::Announce(announce) => {
                let reply = if *state.installed.lock().unwrap() {
                    Reply::Ok(Done {})
                } else {
                    Reply::Failed(Failure::new(FailureCode::NotGranted, 13, "nothing is installed yet"))
                };
                framing::write(&mut send, &reply, &[]).await.unwrap();
                let _ = state.told_tx.send(Told::Announce(announce));
            }
        }
        let _ = send.finish();
    }
    let _ = state.told_tx.send(Told::HungUp);
}
