//! Whether clients reach the ingress.
//!
//! The router drops in silence whatever isn't for a session that stands, so silence proves nothing. From here it can be seen
//! that nothing listens (the network says so), no more; who wants to know makes a session: `--probe` ([`super::probe`]).

use std::{io, net::SocketAddr, time::Duration};

use k8s_openapi::api::core::v1::Service;
use tokio::{
    net::{UdpSocket, lookup_host},
    time::timeout,
};

use super::{
    finding::{Finding, Topic},
    found::{Found, INGRESS, WEBHOOK},
    webhook,
};

/// How long its name may take.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Packets get lost, and kernels refuse one a second and sender only (`icmp_ratelimit`).
const KNOCKS: usize = 4;
const BETWEEN: Duration = Duration::from_millis(500);
/// Of the control plane's command.
const OPTION: &str = "--ingress-address=";

/// What came of knocking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Nothing came back: all that an ingress that works does.
    Silent,
    /// The network says that nothing listens there.
    Refused(String),
    /// The name means nothing here, or there is no way.
    NoWay(String),
}

/// Where clients go, as the control plane tells them.
#[must_use]
pub fn address(found: &Found) -> Option<String> {
    let spec = found.deployment(WEBHOOK).and_then(|deployment| deployment.spec.as_ref());
    let pod = spec.and_then(|spec| spec.template.spec.as_ref());
    let arguments = pod.into_iter().flat_map(|pod| &pod.containers).flat_map(|it| it.args.iter().flatten());
    let said = arguments.filter_map(|argument| argument.strip_prefix(OPTION)).next();
    said.map(str::to_owned).or_else(|| found.service(INGRESS).and_then(balanced))
}

/// The address of a Service's load balancer, as the control plane reads it.
fn balanced(service: &Service) -> Option<String> {
    let given = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    let host = given.ip.as_ref().or(given.hostname.as_ref())?;
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = ports.find(|port| port.protocol.as_deref() == Some("UDP")).map_or(443, |port| port.port);
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Judges what is stored, and what came of knocking at the address.
#[must_use]
pub fn check(found: &Found, knock: Option<&Knock>) -> Vec<Finding> {
    let mut findings = webhook::part(found, Topic::Ingress, INGRESS);
    let Some(service) = found.service(INGRESS) else { return findings };
    let namespace = found.namespace();
    let Some(address) = address(found) else {
        findings.push(no_address(service, namespace));
        return findings;
    };
    let place = format!("UDP {address}");
    findings.push(match knock {
        None => Topic::Ingress.note(place, "not asked"),
        Some(Knock::Silent) => Topic::Ingress
            .note(
                place,
                "nothing says that it is closed; whether packets arrive isn't checked without --probe",
            )
            .fix("mirrord check --probe KIND/NAME -n NAMESPACE"),
        Some(Knock::Refused(error)) => {
            let what = format!("nothing listens there: {error}");
            Topic::Ingress
                .error(place, what)
                .fix(format!("kubectl get service,endpointslices -n {namespace}"))
        }
        Some(Knock::NoWay(error)) => Topic::Ingress
            .error(place, format!("there is no way to it from this machine: {error}"))
            .fix("see whether a VPN is needed; chart value ingress.address tells clients another address"),
    });
    findings
}

fn no_address(service: &Service, namespace: &str) -> Finding {
    let place = format!("service/{INGRESS} -n {namespace}");
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP");
    let what = match kind {
        "LoadBalancer" => "its load balancer has no address yet, so no session can be opened".to_owned(),
        _ => format!("it is of type {kind} and ingress.address is not set, so no session can be opened"),
    };
    Topic::Ingress.error(place, what).fix(format!(
        "helm upgrade mirrord charts/mirrord -n {namespace} --reuse-values --set ingress.address=HOST:PORT"
    ))
}

/// Knocks at an address with a datagram that no router forwards.
pub async fn knock(address: &str) -> Knock {
    match timeout(PATIENCE, lookup_host(address)).await {
        Err(_) => Knock::NoWay("its name isn't resolved in time".to_owned()),
        Ok(Err(error)) => Knock::NoWay(error.to_string()),
        Ok(Ok(mut found)) => match found.next() {
            None => Knock::NoWay("its name has no address".to_owned()),
            Some(address) => listen(address).await.unwrap_or_else(|error| Knock::NoWay(error.to_string())),
        },
    }
}

async fn listen(address: SocketAddr) -> io::Result<Knock> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    for _ in 0..KNOCKS {
        // Too short to be QUIC. What was refused before is told by either call.
        let heard = match socket.send(&[0]).await {
            Ok(_) => timeout(BETWEEN, socket.recv(&mut [0; 64])).await,
            Err(error) => Ok(Err(error)),
        };
        match heard {
            Ok(Err(error)) => return Ok(Knock::Refused(error.to_string())),
            Ok(Ok(_)) => break,
            Err(_) => {}
        }
    }
    Ok(Knock::Silent)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::check::finding::Severity;

    fn found(status: &Value, args: &Value) -> Found {
        let service = json!({
            "metadata": { "name": INGRESS },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 443, "protocol": "UDP" }] }, "status": status,
        });
        let deployment = json!({
            "metadata": { "name": WEBHOOK },
            "spec": {
                "selector": {}, "template": { "spec": { "containers": [{ "name": "webhook", "args": args }] } },
            },
        });
        Found {
            services: Some(vec![serde_json::from_value(service).unwrap()]),
            deployments: Some(vec![serde_json::from_value(deployment).unwrap()]),
            ..Found::default()
        }
    }

    #[test]
    fn the_address_is_what_the_control_plane_tells_clients() {
        let given = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }] } });
        assert_eq!(address(&found(&given, &json!([]))).as_deref(), Some("203.0.113.7:443"));
        let said = json!(["--listen=[::]:8443", "--ingress-address=mirrord.example.com:8443"]);
        assert_eq!(address(&found(&given, &said)).as_deref(), Some("mirrord.example.com:8443"));
    }

    #[test]
    fn without_an_address_the_value_that_sets_it_is_named() {
        let findings = check(&found(&json!({}), &json!([])), None);
        let finding = findings.last().unwrap();
        assert!(
            finding.severity == Severity::Error && finding.what.contains("no address yet"),
            "{finding:?}"
        );
        assert!(finding.fix.as_ref().unwrap().contains("--set ingress.address=HOST:PORT"));
    }

    #[test]
    fn silence_is_told_as_what_it_is() {
        let given = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }] } });
        let found = found(&given, &json!([]));
        let last = |knock| check(&found, Some(&knock)).pop().unwrap();
        let silent = last(Knock::Silent);
        assert!(silent.severity == Severity::Note && silent.what.contains("isn't checked"), "{silent:?}");
        assert_eq!(last(Knock::Refused("refused".to_owned())).severity, Severity::Error);
        assert_eq!(last(Knock::NoWay("unreachable".to_owned())).severity, Severity::Error);
    }

    #[tokio::test]
    async fn a_closed_port_is_told_from_one_that_listens() {
        let listening = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = listening.local_addr().unwrap().to_string();
        assert_eq!(knock(&address).await, Knock::Silent);
        drop(listening);
        assert!(matches!(knock(&address).await, Knock::Refused(_)));
    }
}
