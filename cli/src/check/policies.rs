//! NetworkPolicies that keep the control plane and the router from sidecars. Packets are dropped in silence, so this is the one
//! way to be told why sessions of a namespace don't come about.
//!
//! Pods that no policy for incoming traffic selects take everything; others take what one of those policies lists. Whether the
//! cluster enforces policies at all can't be seen. Blocks of addresses are taken to hold our pods: better no finding than a
//! wrong one.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::Pod,
        networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    finding::{Finding, Topic, some_of},
    found::Found,
    injection::{Attempt, Verdict, status},
};

type Labels = BTreeMap<String, String>;

/// Who has to reach sidecars, and why.
const PARTS: [&str; 2] = ["webhook", "ingress"];
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Judges the policies of the pods that would be injected.
#[must_use]
pub fn check(found: &Found, attempts: &[Attempt<'_>]) -> Vec<Finding> {
    let own = own_labels(found);
    let mut cut: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for attempt in attempts {
        let Verdict::Injected(pod) = attempt.verdict() else { continue };
        let namespace = attempt.workload.namespace.as_str();
        let here =
            found.policies.iter().flatten().filter(|policy| policy.namespace().as_deref() == Some(namespace));
        let policies: Vec<&NetworkPolicy> =
            here.filter(|policy| rules_incoming(policy, pod.labels())).collect();
        if !policies.is_empty() && !is_open(&policies, namespace, &own, &pod) {
            cut.entry(namespace).or_default().push(attempt.workload.target());
        }
    }
    cut.into_iter().map(|(namespace, targets)| told(found.namespace(), namespace, &targets)).collect()
}

/// The labels of the control plane's namespace, as far as they are known.
fn own_labels(found: &Found) -> Labels {
    let own = found.namespace();
    let read = found.namespaces.iter().flatten().find(|namespace| namespace.name_any() == own);
    let mut labels = read.map(|namespace| namespace.labels().clone()).unwrap_or_default();
    labels.insert(NAMESPACE_NAME.to_owned(), own.to_owned());
    labels
}

/// Whether a policy says what a pod may take.
fn rules_incoming(policy: &NetworkPolicy, labels: &Labels) -> bool {
    let Some(spec) = &policy.spec else { return false };
    // Unset means at least incoming traffic.
    let incoming = spec.policy_types.as_ref().is_none_or(|types| types.iter().any(|it| it == "Ingress"));
    incoming && spec.pod_selector.as_ref().is_none_or(|selector| matches(selector, labels))
}

/// Whether all our parts reach all sidecars of a pod.
fn is_open(policies: &[&NetworkPolicy], namespace: &str, own: &Labels, pod: &Pod) -> bool {
    let ports: Vec<u16> =
        status(pod).map(|it| it.containers.iter().map(|it| it.port).collect()).unwrap_or_default();
    let rules =
        || policies.iter().flat_map(|it| it.spec.iter()).flat_map(|spec| spec.ingress.iter().flatten());
    let beside = own.get(NAMESPACE_NAME).is_some_and(|name| name == namespace);
    PARTS.iter().all(|part| {
        let labels = [("app.kubernetes.io/name", "mirrord"), ("app.kubernetes.io/component", *part)];
        let labels: Labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        ports.iter().all(|port| {
            rules().any(|rule| {
                let from = rule.from.as_deref().unwrap_or_default();
                let to = rule.ports.as_deref().unwrap_or_default();
                (from.is_empty() || from.iter().any(|peer| is_peer(peer, beside, own, &labels)))
                    && (to.is_empty() || to.iter().any(|range| holds(range, *port)))
            })
        })
    })
}

fn is_peer(peer: &NetworkPolicyPeer, beside: bool, namespace: &Labels, pod: &Labels) -> bool {
    if peer.ip_block.is_some() {
        return true;
    }
    // Without a selector of namespaces, the policy's own is meant.
    let near = peer.namespace_selector.as_ref().map_or(beside, |selector| matches(selector, namespace));
    near && peer.pod_selector.as_ref().is_none_or(|selector| matches(selector, pod))
}

fn holds(range: &NetworkPolicyPort, port: u16) -> bool {
    let port = i32::from(port);
    range.protocol.as_deref() == Some("UDP")
        && match &range.port {
            None => true,
            Some(IntOrString::Int(first)) => (*first..=range.end_port.unwrap_or(*first)).contains(&port),
            // Sidecars have no named ports.
            Some(IntOrString::String(_)) => false,
        }
}

/// As the API server matches labels.
fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    let expressions = selector.match_expressions.iter().flatten();
    equal
        && expressions.into_iter().all(|it| {
            let value = labels.get(&it.key);
            let listed = value.is_some_and(|value| it.values.iter().flatten().any(|one| one == value));
            match it.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

fn told(own: &str, namespace: &str, targets: &[String]) -> Finding {
    let what = format!(
        "NetworkPolicies keep the control plane and the ingress from sidecars of {}: where policies are enforced, sessions on \
         them don't come about",
        some_of(targets)
    );
    let from = json!([{ "namespaceSelector": { "matchLabels": { NAMESPACE_NAME: own } } }]);
    let ports = json!([{ "protocol": "UDP", "port": 20_000, "endPort": 29_999 }]);
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "mirrord", "namespace": namespace },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{ "from": from, "ports": ports }] },
    });
    let finding = Topic::Injection.warning(format!("namespace {namespace}"), what);
    finding.fix(format!("echo '{policy}' | kubectl apply -f -"))
}

#[cfg(test)]
mod tests {
    use mirrord_session::TargetKind;
    use serde_json::Value;

    use super::*;
    use crate::check::{dry_run::Answer, workload::Workload};

    /// Findings about a Deployment with the label app=web, whose sidecar has port 20001, under policies with these specs.
    fn findings(specs: &[Value]) -> Vec<Finding> {
        let object = json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": {} });
        let workload = Workload::new(TargetKind::Deployment, object).unwrap();
        let status = r#"{"version":1,"containers":[{"name":"a","sidecar":"mirrord","port":20001}]}"#;
        let pod = json!({
            "metadata": { "labels": { "app": "web" }, "annotations": { "mirrord.dev/status": status } },
            "spec": { "containers": [], "initContainers": [{ "name": "mirrord" }] },
        });
        let policies = specs
            .iter()
            .map(|spec| json!({ "metadata": { "namespace": "shop", "name": "p" }, "spec": spec }));
        let policies = serde_json::from_value(policies.collect()).unwrap();
        let found = Found { policies: Some(policies), ..Found::default() };
        let answer = Answer::Admitted { pod: Box::new(pod), warnings: vec![] };
        check(&found, &[Attempt { workload: &workload, answer, opted_out: None }])
    }

    fn deny() -> Value {
        json!({ "podSelector": {}, "policyTypes": ["Ingress"] })
    }

    fn allow(from: &Value, ports: &Value) -> Value {
        json!({ "podSelector": {}, "ingress": [{ "from": from, "ports": ports }] })
    }

    #[test]
    fn a_namespace_that_denies_is_told_with_the_policy_that_it_needs() {
        let found = findings(&[deny()]);
        assert!(found.len() == 1 && found[0].what.contains("deployment/web"), "{found:?}");
        let fix = found[0].fix.as_ref().unwrap();
        let policy = fix.strip_prefix("echo '").unwrap().strip_suffix("' | kubectl apply -f -").unwrap();
        let policy: Value = serde_json::from_str(policy).unwrap();
        assert_eq!(findings(&[deny(), policy["spec"].clone()]), [], "the fix mends it");
    }

    #[test]
    fn pods_that_no_policy_selects_take_everything() {
        assert_eq!(findings(&[]), []);
        assert_eq!(findings(&[json!({ "podSelector": { "matchLabels": { "app": "db" } } })]), []);
        assert_eq!(findings(&[json!({ "podSelector": {}, "policyTypes": ["Egress"] })]), []);
    }

    #[test]
    fn what_lets_us_through_is_recognised() {
        let udp = |port: Value| json!([{ "protocol": "UDP", "port": port }]);
        let ours = json!([{ "namespaceSelector": { "matchLabels": { NAMESPACE_NAME: "mirrord" } } }]);
        let parts = json!([{
            "namespaceSelector": {}, "podSelector": { "matchLabels": { "app.kubernetes.io/name": "mirrord" } },
        }]);
        for (from, ports) in [
            (json!([]), json!([])),
            (ours.clone(), udp(json!(20_001))),
            (parts, udp(Value::Null)),
            (json!([{ "ipBlock": { "cidr": "10.0.0.0/8" } }]), json!([])),
        ] {
            assert_eq!(findings(&[deny(), allow(&from, &ports)]), [], "{from} {ports}");
        }
        let webhook = json!([{
            "namespaceSelector": {}, "podSelector": { "matchLabels": { "app.kubernetes.io/component": "webhook" } },
        }]);
        for (from, ports) in [
            (ours.clone(), udp(json!(20_002))),
            (ours.clone(), udp(json!("quic"))),
            (ours, json!([{ "protocol": "TCP" }])),
            (webhook, json!([])),
            (json!([{ "podSelector": {} }]), json!([])),
        ] {
            assert_eq!(findings(&[deny(), allow(&from, &ports)]).len(), 1, "{from} {ports}");
        }
    }

    #[test]
    fn selectors_match_as_the_api_server_does() {
        let labels: Labels = [("a".to_owned(), "1".to_owned())].into();
        let matches = |key: &str, operator: &str, values: &[&str]| {
            let expression = json!({ "key": key, "operator": operator, "values": values });
            let selector = json!({ "matchExpressions": [expression] });
            matches(&serde_json::from_value(selector).unwrap(), &labels)
        };
        assert!(
            matches("a", "In", &["1", "2"]) && !matches("a", "In", &["2"]) && !matches("b", "In", &["1"])
        );
        assert!(
            matches("a", "NotIn", &["2"]) && matches("b", "NotIn", &["1"]) && !matches("a", "NotIn", &["1"])
        );
        assert!(
            matches("a", "Exists", &[]) && !matches("b", "Exists", &[]) && matches("b", "DoesNotExist", &[])
        );
    }
}
