//! TLS handshakes in memory.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use mirrord_certs::{Authority, Identity, SelfSigned, UnixTime};
use mirrord_protocol::route::RouteId;
use rustls::{
    ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName},
};

pub(crate) const DAY: u64 = 24 * 3600;

/// By the clock that rustls looks at.
pub(crate) fn now() -> UnixTime {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn authority() -> Authority {
    Authority::create(now()).unwrap()
}

/// A sidecar's certificate with its key.
pub(crate) fn sidecar(authority: &Authority, route: RouteId) -> Identity {
    let key = SelfSigned::generate().unwrap();
    let csr = key.signing_request().unwrap();
    let certificate = authority.sidecar(&csr, route, now(), DAY).unwrap();
    Identity { chain: vec![certificate], key: key.private_key(), not_after: now() + DAY }
}

/// How a handshake ended for each side.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) client: Result<Done, Error>,
    pub(crate) server: Result<Done, Error>,
}

/// What a side knows after a handshake.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) peer: CertificateDer<'static>,
    pub(crate) alpn: Vec<u8>,
}

impl Handshake {
    pub(crate) fn worked(self) -> (Done, Done) {
        (self.client.unwrap(), self.server.unwrap())
    }

    /// What the client had against the server.
    pub(crate) fn client_refused(self) -> Error {
        let error = self.client.unwrap_err();
        assert!(!matches!(error, Error::AlertReceived(_)), "it was the server that refused: {error}");
        error
    }

    /// What the server had against the client.
    pub(crate) fn server_refused(self) -> Error {
        let error = self.server.unwrap_err();
        assert!(!matches!(error, Error::AlertReceived(_)), "it was the client that refused: {error}");
        error
    }
}

/// Lets both sides talk until neither has more to say.
pub(crate) fn handshake(client: ClientConfig, server: ServerConfig, name: &str) -> Handshake {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let to_server = flight(|buffer| client.write_tls(buffer));
        let to_client = flight(|buffer| server.write_tls(buffer));
        if to_server.is_empty() && to_client.is_empty() {
            break;
        }
        server.read_tls(&mut &to_server[..]).unwrap();
        server_error = server_error.or(server.process_new_packets().err());
        client.read_tls(&mut &to_client[..]).unwrap();
        client_error = client_error.or(client.process_new_packets().err());
    }
    let done = |connection: &rustls::CommonState, error: Option<Error>| match error {
        Some(error) => Err(error),
        None => Ok(Done {
            peer: connection.peer_certificates().unwrap()[0].clone().into_owned(),
            alpn: connection.alpn_protocol().unwrap_or_default().to_vec(),
        }),
    };
    Handshake { client: done(&client, client_error), server: done(&server, server_error) }
}

fn flight(mut write: impl FnMut(&mut Vec<u8>) -> std::io::Result<usize>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while write(&mut bytes).unwrap() > 0 {}
    bytes
}
