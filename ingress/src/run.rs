//! Puts the parts together: the watch feeds the forwarder, kubelet asks both how they are.

use std::{io, net::SocketAddr, sync::Arc};

use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use mirrord_session::Session;
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{
    forward::Forwarder,
    gate::{GateError, GateFolder},
    health::{self, Health},
    metrics,
    reason::Counters,
    router::Router,
    settings::Settings,
    socket::raise_descriptor_limit,
    watch,
};

/// Changes of Sessions that may wait for the forwarder.
const CHANGES: usize = 256;
/// Sessions per page of a list.
const PAGE: u32 = 500;

/// Why the router doesn't start.
#[derive(Debug, Error)]
pub enum RunError {
    /// No gate key.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// No socket.
    #[error("cannot listen on {address}: {error}; is another process there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// No API server.
    #[error(
        "no way to the API server: {0}; the router runs in a pod with a service account, or with KUBECONFIG set"
    )]
    Kubernetes(#[from] kube::Error),
    /// No signals.
    #[error("cannot wait for SIGTERM: {0}")]
    Signal(io::Error),
}

/// Runs until SIGTERM.
///
/// # Errors
/// See [`RunError`].
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let listen = |address| move |error| RunError::Listen { address, error };
    let (gate, keys) = GateFolder::open(settings.gate_keys.clone())?;
    let router = Router::new(settings.bounds(raise_descriptor_limit()), keys);
    let counters = Arc::new(Counters::default());
    let forwarder = Forwarder::bind(settings.listen, router, gate, Arc::clone(&counters))
        .map_err(listen(settings.listen))?;
    let probed = health::bind(settings.health_listen).await.map_err(listen(settings.health_listen))?;
    let address = forwarder.local_addr().map_err(listen(settings.listen))?;
    let health_address = probed.local_addr().map_err(listen(settings.health_listen))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let sessions = Api::<Session>::all(Client::try_default().await?);
    let events = watcher(sessions, watcher::Config::default().page_size(PAGE)).default_backoff();

    let health = Arc::new(Health::default());
    let (changes_tx, changes_rx) = mpsc::channel(CHANGES);
    let (stop_tx, stop_rx) = oneshot::channel();
    let registry = metrics::registry(&counters, &health);
    tokio::spawn(health::serve(probed, Arc::clone(&health), registry));
    let watched = Arc::clone(&health);
    tokio::spawn(async move { watch::follow(events, changes_tx, &watched).await });
    tokio::spawn(async move {
        terminate.recv().await;
        tracing::info!("stopping: forwarding goes on until clients have gone elsewhere");
        health.stopping();
        let _ = stop_tx.send(());
    });
    tracing::info!(listen = %address, health = %health_address, "forwarding");
    forwarder.run(changes_rx, stop_rx).await;
    Ok(())
}
