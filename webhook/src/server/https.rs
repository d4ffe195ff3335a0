//! TLS and HTTP on each connection. The handshake and each request have a time limit, connections a number; when the
//! process stops, requests under way are finished.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::clock::pause;

/// An API server's connections are few and long-lived; the rest is for whoever knocks.
const CONNECTIONS: usize = 512;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// From one request's end to the next one's headers. Go's clients give idle connections up after 90 s; if we did so
/// first, a review could be posted into a connection that is just being closed.
const HEADERS: Duration = Duration::from_secs(100);
/// How long requests under way may take when the process stops.
const DRAIN: Duration = Duration::from_secs(10);
/// accept(2) fails when descriptors are short: wait for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop.
pub async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    routes: Router,
    stop: watch::Receiver<bool>,
) {
    let tls = TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut stopped = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let Some((stream, client, place)) = accepted else { continue };
        let connection = connection(stream, client, tls.clone(), routes.clone(), graceful.watcher());
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("stopped with requests under way");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, client)) => Some((stream, client, place)),
        Err(error) => {
            tracing::warn!("accept: {error}");
            pause(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    tls: TlsAcceptor,
    routes: Router,
    graceful: Watcher,
) {
    match handshake(stream, &tls).await {
        Ok(stream) => speak_http(stream, client, routes, graceful).await,
        Err(error) => tracing::debug!(%client, "TLS: {error}"),
    }
}

async fn handshake(stream: TcpStream, tls: &TlsAcceptor) -> std::io::Result<TlsStream<TcpStream>> {
    tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await?
}

async fn speak_http(stream: TlsStream<TcpStream>, client: SocketAddr, routes: Router, graceful: Watcher) {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = graceful.watch(connection).await {
        tracing::debug!(%client, "HTTP: {error}");
    }
}
