//! A sidecar of a supported release on the boot channel, as it was recorded (`protocol/recorded`): it answers with the very bytes,
//! but for its certificate request, which is of the key that it shows.

use std::{net::UdpSocket, sync::Arc};

use ciborium::Value;
use mirrord_certs::{Authority, SelfSigned, verify};
use mirrord_protocol::route::RouteId;
use mirrord_recorded::{Conversation, Frame, Release, Said, Side, keeps, later, replace};
use mirrord_session::SessionPod;
use mirrord_tunnel::{
    framing,
    setup::{self, Windows},
};
use quinn::{Connection, Endpoint, TokioRuntime};
use tokio::sync::mpsc;

use super::PATIENCE;

/// What differs from what was said then: of the same kind, and otherwise anything.
const DIFFERING: [&str; 9] = [
    "chain",
    "creator",
    "deadline",
    "expires_at",
    "features",
    "gate_keys",
    "key_hash",
    "reset_key",
    "revision",
];
const INSTALL: &str = "install";
const TOO_EARLY: &str = "announce before anything is installed";

/// The sidecar, and what it heard.
pub(crate) struct Recorded {
    pub(crate) pod: SessionPod,
    /// Its pod-bound token.
    pub(crate) token: String,
    heard_rx: mpsc::UnboundedReceiver<String>,
}

impl Recorded {
    /// Starts one for container `app` of a pod; or one of the release after it.
    pub(crate) fn start(authority: &Authority, uid: &str, release: &Release, is_later: bool) -> Self {
        let key = SelfSigned::generate().unwrap();
        let mut conversations = release.conversations("boot.txt");
        let csr = Value::Bytes(key.signing_request().unwrap());
        for frame in conversations.iter_mut().flat_map(|it| &mut it.turns).filter_map(answer) {
            replace(&mut frame.header, "csr", &csr);
            if is_later {
                frame.header = later(&frame.header);
                replace(&mut frame.header, "view", &"dream".into());
            }
        }
        let enrolled = named(&conversations, "enroll").first(Side::Sidecar);
        let token = String::from_utf8(enrolled.tail.clone()).unwrap();
        let tls = verify::boot_server(&key, [authority.certificate().clone()]).unwrap();
        let config = setup::server(tls, Windows::default()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, route) = (socket.local_addr().unwrap(), RouteId::of(uid, "app"));
        let endpoint = setup::endpoint(Some(route), &[7; 32]);
        let endpoint = Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime)).unwrap();
        let (heard_tx, heard_rx) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(connection) = incoming.await else { continue };
                tokio::spawn(serve(connection, conversations.clone(), heard_tx.clone()));
            }
        });
        let pod = SessionPod {
            name: format!("pod-{uid}"),
            uid: uid.to_owned(),
            route: route.to_string(),
            address: address.ip().to_string(),
            port: address.port(),
            ..SessionPod::default()
        };
        Self { pod, token, heard_rx }
    }

    /// The name of the conversation that is held next.
    pub(crate) async fn hears(&mut self) -> String {
        let heard = tokio::time::timeout(PATIENCE, self.heard_rx.recv()).await;
        heard.expect("it was told nothing").expect("it runs")
    }
}

fn answer(turn: &mut mirrord_recorded::Turn) -> Option<&mut Frame> {
    match (&mut turn.said, turn.side) {
        (Said::Frame(frame), Side::Sidecar) => Some(frame),
        _ => None,
    }
}

fn named<'a>(conversations: &'a [Conversation], name: &str) -> &'a Conversation {
    conversations.iter().find(|it| it.name == name).expect(name)
}

async fn serve(
    connection: Connection,
    conversations: Vec<Conversation>,
    heard_tx: mpsc::UnboundedSender<String>,
) {
    let mut installed = false;
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let asked: Value = framing::expect(&mut receive).await.unwrap().decode().unwrap();
        let fits =
            |it: &&Conversation| (it.name == TOO_EARLY) != installed || !it.name.starts_with("announce");
        let mut known = conversations.iter().filter(fits);
        let known = known.find(|it| keeps(&it.first(Side::Dialler).header, &asked, &DIFFERING).is_ok());
        let name = match known {
            Some(conversation) => {
                send.write_all(&conversation.first(Side::Sidecar).bytes()).await.unwrap();
                conversation.name.clone()
            }
            None => format!("what it doesn't know: {asked:?}"),
        };
        installed |= name == INSTALL;
        let _ = send.finish();
        let _ = heard_tx.send(name);
    }
}
