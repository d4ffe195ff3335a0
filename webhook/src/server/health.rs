//! Health, in plain HTTP for the kubelet: alive while it answers, ready while the API server can trust it. And metrics for
//! who asks.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use mirrord_telemetry::{Registry, exposition};
use tokio::{net::TcpListener, sync::watch};

use crate::certificates::bundle::Configuration;

/// What readiness depends on.
#[derive(Clone)]
pub struct Health {
    /// Whether `caBundle` carries our authority: before, the API server refuses our certificate.
    pub configuration: watch::Receiver<Configuration>,
    /// Whether all LimitRanges are known: before, a sidecar could break one.
    pub limit_ranges: watch::Receiver<bool>,
    /// Whether the process is about to end.
    pub stopping: watch::Receiver<bool>,
}

impl Health {
    /// What is missing; `None` when ready.
    fn missing(&self) -> Option<&'static str> {
        let checks = [
            (*self.stopping.borrow(), "stopping"),
            (!self.configuration.borrow().agrees, "caBundle of the webhook configuration is not ours yet"),
            (!*self.limit_ranges.borrow(), "LimitRanges are not known yet"),
        ];
        checks.into_iter().find(|(missing, _)| *missing).map(|(_, reason)| reason)
    }
}

/// Answers the kubelet and Prometheus, for ever.
pub async fn serve(listener: TcpListener, health: Health, registry: Registry) {
    let routes = Router::new()
        .route("/livez", get(|| async { "alive" }))
        .route("/readyz", get(ready))
        .with_state(health)
        .merge(exposition::routes(registry));
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!("the health listener ended: {error}");
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    match health.missing() {
        None => (StatusCode::OK, "ready"),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_waits_for_all_and_ends_with_the_process() {
        let (configuration_tx, configuration) = watch::channel(Configuration::default());
        let (limits_tx, limit_ranges) = watch::channel(false);
        let (stopping_tx, stopping) = watch::channel(false);
        let health = Health { configuration, limit_ranges, stopping };
        assert!(health.missing().unwrap().contains("caBundle"));
        configuration_tx.send_replace(Configuration { agrees: true, created: Some(1) });
        assert!(health.missing().unwrap().contains("LimitRanges"));
        limits_tx.send_replace(true);
        assert_eq!(health.missing(), None);
        stopping_tx.send_replace(true);
        assert_eq!(health.missing(), Some("stopping"));
    }
}
