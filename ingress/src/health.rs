//! What kubelet asks: `/livez` (does it answer at all?) and `/readyz` (does it know the routes, and wants to stay?). And
//! `/metrics`, for who asks.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use mirrord_telemetry::{Registry, exposition};
use tokio::net::TcpListener;

use crate::socket::no_ipv6;

/// What readiness depends on. (Without a gate key the router doesn't even start.)
#[derive(Debug, Default)]
pub struct Health {
    listed: AtomicBool,
    stopping: AtomicBool,
    watch_failures: AtomicU64,
}

impl Health {
    /// The first list of Sessions is in.
    pub fn listed(&self) {
        self.listed.store(true, Relaxed);
    }

    /// The watch on Sessions failed, and is begun again.
    pub fn watch_failed(&self) {
        self.watch_failures.fetch_add(1, Relaxed);
    }

    /// How often it did.
    #[must_use]
    pub fn watch_failures(&self) -> u64 {
        self.watch_failures.load(Relaxed)
    }

    /// It is about to stop.
    pub fn stopping(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Whether packets should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.listed.load(Relaxed) && !self.stopping.load(Relaxed)
    }
}

/// Binds the socket that is asked; `[::]` stands for `0.0.0.0` where there is no IPv6.
///
/// # Errors
/// Where the address can't be bound.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if no_ipv6(&error) && address.ip().is_unspecified() => {
            TcpListener::bind(("0.0.0.0", address.port())).await
        }
        listener => listener,
    }
}

/// Answers for ever.
///
/// # Errors
/// None that axum documents.
pub async fn serve(listener: TcpListener, health: Arc<Health>, registry: Registry) -> io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .with_state(health)
        .merge(exposition::routes(registry));
    axum::serve(listener, app).await
}

async fn ready(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.is_ready() {
        (StatusCode::OK, "ok")
    } else if health.stopping.load(Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the list of Sessions")
    }
}
