//! Where clients reach the ingress: what its LoadBalancer Service got, unless the operator says otherwise.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use tokio::sync::watch;

use crate::metrics::{Watch, metrics};

/// QUIC's usual port, where the Service doesn't say another.
const DEFAULT_PORT: i32 = 443;

/// Keeps the address of a Service up to date, for ever.
pub async fn follow(api: Api<Service>, name: &str, address_tx: &watch::Sender<Option<Arc<str>>>) {
    let mut states = std::pin::pin!(watch_object(api, name).default_backoff());
    while let Some(state) = states.next().await {
        let address = match state {
            Ok(service) => service.as_ref().and_then(public_address),
            Err(error) => {
                metrics().cluster.watch_restarts.of(Watch::Ingress).inc();
                tracing::warn!(service = name, "the ingress's Service can't be watched: {error}");
                continue;
            }
        };
        address_tx.send_if_modified(|current| {
            let changed = current.as_deref() != address.as_deref();
            if changed {
                tracing::info!(service = name, address = address.as_deref().unwrap_or("none yet"), "ingress");
                *current = address.map(Arc::from);
            }
            changed
        });
    }
}

/// `host:port` of a Service's load balancer, once it has one.
fn public_address(service: &Service) -> Option<String> {
    let given = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    let host = given.ip.as_ref().or(given.hostname.as_ref())?;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let udp = ports.into_iter().flatten().find(|port| port.protocol.as_deref() == Some("UDP"));
    let port = udp.map_or(DEFAULT_PORT, |port| port.port);
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(ingress: &Value) -> Service {
        let ports = json!([{ "port": 80, "protocol": "TCP" }, { "port": 8443, "protocol": "UDP" }]);
        let service =
            json!({ "spec": { "ports": ports }, "status": { "loadBalancer": { "ingress": ingress } } });
        serde_json::from_value(service).unwrap()
    }

    #[test]
    fn the_address_is_what_the_load_balancer_got_and_the_udp_port() {
        let address = |ingress| public_address(&service(&ingress));
        assert_eq!(address(json!([{ "ip": "203.0.113.7" }])).as_deref(), Some("203.0.113.7:8443"));
        assert_eq!(address(json!([{ "ip": "2001:db8::7" }])).as_deref(), Some("[2001:db8::7]:8443"));
        assert_eq!(address(json!([{ "hostname": "lb.example" }])).as_deref(), Some("lb.example:8443"));
        assert_eq!(address(json!([])), None);
        assert_eq!(address(Value::Null), None);
    }
}
