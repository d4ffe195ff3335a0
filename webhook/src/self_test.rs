//! `mirrord-webhook self-test`: what `helm test` runs inside the cluster. It asks the webhook's Service as the API server
//! does (TLS by the authority in `caBundle`, for the Service's name), and knocks at the ingress's.
//!
//! A Service sends to ready replicas only, so an answer also says that one is ready. The router drops in silence whatever isn't
//! for a session; so of the ingress it is only shown that the network refuses nothing.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Api, Client};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, lookup_host},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::clock;

/// One step takes no longer.
const STEP: Duration = Duration::from_secs(5);
/// Rights and endpoints may be known a moment after they were made.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);
/// How long the network has to refuse a datagram.
const KNOCK: Duration = Duration::from_secs(1);
/// Without the key, no path leads anywhere.
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: mirrord-webhook\r\nConnection: close\r\n\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 ";

/// Settings, from flags that the chart writes.
#[derive(Clone, Debug, Parser)]
#[command(name = "mirrord-webhook self-test")]
pub struct Settings {
    /// The webhook's Service, as host:port.
    #[arg(long)]
    pub webhook: String,
    /// The MutatingWebhookConfiguration whose caBundle it must agree with.
    #[arg(long)]
    pub webhook_configuration: String,
    /// The ingress's Service, as host:port, UDP.
    #[arg(long)]
    pub ingress: String,
}

/// What doesn't work.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The API server can't be asked.
    #[error("webhook configuration {name}: {error}")]
    Kubernetes {
        /// Which.
        name: String,
        /// Why.
        error: kube::Error,
    },
    /// There is no authority.
    #[error("webhook configuration {0} carries no authority: the webhook writes it once it runs")]
    NoAuthority(String),
    /// Its webhooks carry something else.
    #[error("webhook configuration {0} carries something that is no authority")]
    BadAuthority(String),
    /// No connection, or one that isn't trusted.
    #[error("{address}: {error}")]
    Connection {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Something else answers.
    #[error("{address} answers, but not as the webhook does: {answer:?}")]
    Stranger {
        /// Where.
        address: String,
        /// What it said.
        answer: String,
    },
}

/// Runs the test until it passes or patience ends, and prints what it found.
///
/// # Errors
/// What didn't work the last time.
pub async fn run(settings: &Settings) -> Result<(), TestError> {
    // kube's TLS asks for the process-wide provider; a second installation would say so, and there is none.
    let _ = ring::default_provider().install_default();
    let end = Instant::now() + PATIENCE;
    loop {
        match test(settings).await {
            Err(error) if Instant::now() < end => {
                println!("not yet: {error}");
                clock::pause(PAUSE).await;
            }
            result => return result,
        }
    }
}

async fn test(settings: &Settings) -> Result<(), TestError> {
    let authorities = authorities(&settings.webhook_configuration).await?;
    println!("ok: the webhook configuration carries an authority");
    let host = settings.webhook.rsplit_once(':').map_or(&*settings.webhook, |(host, _)| host);
    ask(&settings.webhook, host, authorities).await?;
    println!("ok: {} answers, and its certificate is of that authority", settings.webhook);
    knock(&settings.ingress).await?;
    println!("ok: {} refuses nothing (UDP)", settings.ingress);
    Ok(())
}

/// The authorities of the configuration, all of its webhooks' taken together.
async fn authorities(name: &str) -> Result<RootCertStore, TestError> {
    let failed = |error| TestError::Kubernetes { name: name.to_owned(), error };
    let client = Client::try_default().await.map_err(failed)?;
    let configuration: MutatingWebhookConfiguration = Api::all(client).get(name).await.map_err(failed)?;
    let mut roots = RootCertStore::empty();
    for webhook in configuration.webhooks.iter().flatten() {
        let bundle = webhook.client_config.ca_bundle.as_ref();
        let bundle = bundle.ok_or_else(|| TestError::NoAuthority(name.to_owned()))?;
        for authority in CertificateDer::pem_slice_iter(&bundle.0) {
            let authority = authority.map_err(|_| TestError::BadAuthority(name.to_owned()))?;
            roots.add(authority).map_err(|_| TestError::BadAuthority(name.to_owned()))?;
        }
    }
    if roots.is_empty() { Err(TestError::NoAuthority(name.to_owned())) } else { Ok(roots) }
}

/// Asks the webhook over TLS, for a name.
///
/// # Errors
/// See [`TestError`].
pub async fn ask(address: &str, name: &str, authorities: RootCertStore) -> Result<(), TestError> {
    let failed = |error| TestError::Connection { address: address.to_owned(), error };
    let answer = timeout(STEP, converse(address, name, authorities)).await;
    let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
    if answer.starts_with(NOT_FOUND) {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    Err(TestError::Stranger { address: address.to_owned(), answer })
}

async fn converse(address: &str, name: &str, authorities: RootCertStore) -> io::Result<Vec<u8>> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(REQUEST.as_bytes()).await?;
    let mut answer = vec![0; 64];
    let length = stream.read(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

/// Sends a datagram that is dropped, and waits whether the network refuses it.
///
/// # Errors
/// See [`TestError`].
pub async fn knock(address: &str) -> Result<(), TestError> {
    let failed = |error| TestError::Connection { address: address.to_owned(), error };
    let found = timeout(STEP, lookup_host(address)).await;
    let mut found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
    let found = found.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    send(found).await.map_err(failed)
}

async fn send(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    socket.connect(address).await?;
    // Too short to be QUIC.
    socket.send(&[0]).await?;
    match timeout(KNOCK, socket.recv(&mut [0; 64])).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
