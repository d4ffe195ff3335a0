//! TLS and HTTP on each connection. The handshake and each request have a time limit, connections a bound
//! ([`super::connections`]); when the process stops, requests under way are finished.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::service::{Service as _, service_fn};
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
    sync::watch,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::connections::{Bounds, Connections, Place};
use crate::{clock::pause, metrics::metrics};

const HANDSHAKE: Duration = Duration::from_secs(5);
/// From one request's end to the next one's headers. Go's clients give idle connections up after 90 s; if we did so
/// first, a review could be posted into a connection that is just being closed.
const HEADERS: Duration = Duration::from_secs(100);
/// Requests at once on one connection, and their headers, in bytes: an API server's fit many times over, and it opens a
/// further connection where they don't. What was needed for so many stays with the connection, a KiB for each.
const STREAMS: u32 = 64;
const HEADER_BYTES: u32 = 16 * 1024;
/// What of one HTTP/1 connection is kept until its headers are whole, in bytes; hyper's own bound is 26 times that.
const BUFFER_BYTES: usize = 16 * 1024;
/// What may arrive ahead of being read: of one request, and on one connection, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How long requests under way may take when the process stops.
const DRAIN: Duration = Duration::from_secs(10);
/// accept(2) fails when descriptors are short: wait for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop.
pub async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    routes: Router,
    bounds: Bounds,
    stop: watch::Receiver<bool>,
) {
    let tls = TlsAcceptor::from(Arc::new(tls));
    let connections = Connections::new(bounds);
    let graceful = GracefulShutdown::new();
    let mut stopped = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let Some((stream, client)) = accepted else { continue };
        let place = connections.admit(client.ip(), Instant::now());
        let connection = connection(stream, place.clone(), tls.clone(), routes.clone(), graceful.watcher());
        tokio::spawn(async move {
            tokio::select! {
                () = connection => {}
                () = place.evicted() => tracing::debug!(%client, "closed: others need its place"),
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("stopped with requests under way");
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!("accept: {error}");
            pause(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    place: Arc<Place>,
    tls: TlsAcceptor,
    routes: Router,
    graceful: Watcher,
) {
    match handshake(stream, &tls).await {
        Ok(stream) => speak_http(stream, place, routes, graceful).await,
        Err(error) => {
            metrics().server.handshakes_failed.inc();
            tracing::debug!("TLS: {error}");
        }
    }
}

async fn handshake(stream: TcpStream, tls: &TlsAcceptor) -> std::io::Result<TlsStream<TcpStream>> {
    tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await?
}

async fn speak_http(stream: TlsStream<TcpStream>, place: Arc<Place>, routes: Router, graceful: Watcher) {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request| {
        let (busy, answer) = (place.busy(), routes.call(request));
        async move {
            let _busy = busy;
            answer.await
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = graceful.watch(connection).await {
        tracing::debug!("HTTP: {error}");
    }
}
