//! What kubelet asks: `/livez` (does it answer at all?) and `/readyz` (does it know the routes, and wants to stay?).

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::socket::no_ipv6;

/// What readiness depends on. (Without a gate key the router doesn't even start.)
#[derive(Debug, Default)]
pub struct Health {
    listed: AtomicBool,
    stopping: AtomicBool,
}

impl Health {
    /// The first list of Sessions is in.
    pub fn listed(&self) {
        self.listed.store(true, Relaxed);
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
pub async fn serve(listener: TcpListener, health: Arc<Health>) -> io::Result<()> {
    let app =
        Router::new().route("/livez", get(|| async { "ok" })).route("/readyz", get(ready)).with_state(health);
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
