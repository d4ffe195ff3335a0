//! What opted in, and labels that look like it and mean nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use mirrord_session::INJECT_LABEL;

use super::{
    finding::{Finding, Topic},
    found::{Found, excluded},
    workload::Workload,
};

const ENABLED: &str = "enabled";
const DISABLED: &str = "disabled";

/// The namespaces whose pods injection looks at, with their labels.
fn looked_at(found: &Found) -> BTreeMap<String, Option<String>> {
    let excluded = found.configuration().map(excluded).unwrap_or_default();
    let namespaces = found.namespaces.iter().flatten();
    namespaces
        .filter(|namespace| !excluded.contains(namespace.name_any().as_str()))
        .map(|namespace| (namespace.name_any(), label(namespace)))
        .collect()
}

fn label(namespace: &Namespace) -> Option<String> {
    namespace.labels().get(INJECT_LABEL).cloned()
}

/// Namespaces that opted in and are looked at.
#[must_use]
pub fn namespaces(found: &Found) -> Vec<String> {
    let enabled = |label: &Option<String>| label.as_deref() == Some(ENABLED);
    looked_at(found).into_iter().filter(|(_, label)| enabled(label)).map(|(name, _)| name).collect()
}

/// Workloads whose pods are to have a sidecar: a pod's label wins over its namespace's.
#[must_use]
pub fn workloads(found: &Found) -> Vec<&Workload> {
    let namespaces = looked_at(found);
    let wants = |workload: &&Workload| {
        let Some(namespace) = namespaces.get(&workload.namespace) else { return false };
        let own = workload.label();
        let enabled =
            own == Some(ENABLED) || (namespace.as_deref() == Some(ENABLED) && own != Some(DISABLED));
        enabled && !workload.done
    };
    found.workloads.iter().flatten().filter(wants).collect()
}

/// Judges labels.
#[must_use]
pub fn check(found: &Found) -> Vec<Finding> {
    let excluded = found.configuration().map(excluded).unwrap_or_default();
    let mut findings = Vec::new();
    for namespace in found.namespaces.iter().flatten() {
        let name = namespace.name_any();
        let place = format!("namespace {name}");
        match label(namespace).as_deref() {
            Some(ENABLED) if excluded.contains(name.as_str()) => {
                let what = format!(
                    "labelled {INJECT_LABEL}={ENABLED}, but pods of this namespace are never looked at"
                );
                findings.push(
                    Topic::Injection
                        .warning(place, what)
                        .fix(format!("kubectl label namespace {name} {INJECT_LABEL}-")),
                );
            }
            Some(ENABLED | DISABLED) | None => {}
            Some(other) => {
                let what = format!(
                    "the value {other:?} of {INJECT_LABEL} means nothing: only enabled or disabled does"
                );
                let fix = format!("kubectl label namespace {name} {INJECT_LABEL}={ENABLED} --overwrite");
                findings.push(Topic::Injection.warning(place, what).fix(fix));
            }
        }
    }
    for workload in found.workloads.iter().flatten() {
        if let Some(other) = workload.label().filter(|label| ![ENABLED, DISABLED].contains(label)) {
            let what = format!(
                "the value {other:?} of {INJECT_LABEL} in its template means nothing: only enabled or disabled does"
            );
            let fix = workload.opt_out().replace(DISABLED, ENABLED);
            findings.push(Topic::Injection.warning(workload.place(), what).fix(fix));
        }
    }
    if let Some(namespaces) = &found.namespaces
        && workloads(found).is_empty()
    {
        let asked = found.asked.as_deref().filter(|_| !namespaces.is_empty());
        let place = asked.map_or_else(|| "this cluster".to_owned(), |name| format!("namespace {name}"));
        let fix =
            format!("kubectl label namespace {} {INJECT_LABEL}={ENABLED}", asked.unwrap_or("NAMESPACE"));
        findings.push(Topic::Injection.note(place, "nothing that makes pods has opted in").fix(fix));
    }
    findings
}

#[cfg(test)]
mod tests {
    use mirrord_session::TargetKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::check::finding::Severity;

    fn found(namespaces: &[(&str, Option<&str>)], workloads: &[(&str, &str, Option<&str>)]) -> Found {
        let namespaces = namespaces.iter().map(|(name, label)| {
            let labels = label.map(|label| json!({ INJECT_LABEL: label }));
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
        });
        let workloads = workloads.iter().map(|(namespace, name, label)| {
            let labels = label.map_or(Value::Null, |label| json!({ INJECT_LABEL: label }));
            let template = json!({ "metadata": { "labels": labels }, "spec": {} });
            let object =
                json!({ "metadata": { "namespace": namespace, "name": name }, "spec": { "template": template } });
            Workload::new(TargetKind::Deployment, object).unwrap()
        });
        let selector = json!({ "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "mirrord"] },
        ]});
        let configuration = json!({ "webhooks": [{
            "name": "inject.mirrord.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": { "service": { "name": "mirrord-webhook", "namespace": "mirrord" } },
            "namespaceSelector": selector,
        }]});
        Found {
            namespaces: Some(namespaces.collect()),
            workloads: Some(workloads.collect()),
            configuration: Some(Some(serde_json::from_value(configuration).unwrap())),
            ..Found::default()
        }
    }

    #[test]
    fn the_pods_label_wins_over_its_namespaces() {
        let found = found(
            &[("shop", Some("enabled")), ("tools", None), ("kube-system", Some("enabled"))],
            &[
                ("shop", "in", None),
                ("shop", "out", Some("disabled")),
                ("tools", "not", None),
                ("tools", "wants", Some("enabled")),
                ("kube-system", "never", Some("enabled")),
            ],
        );
        let names: Vec<&str> = workloads(&found).into_iter().map(|workload| workload.name.as_str()).collect();
        assert_eq!(names, ["in", "wants"]);
        assert_eq!(namespaces(&found), ["shop"]);
    }

    #[test]
    fn labels_that_mean_nothing_are_named_with_the_line_that_mends_them() {
        let found = found(
            &[("shop", Some("true")), ("kube-system", Some("enabled"))],
            &[("shop", "app", Some("yes"))],
        );
        let findings = check(&found);
        let said = |what: &str, fix: &str| {
            findings.iter().any(|it| {
                it.severity == Severity::Warning
                    && it.what.contains(what)
                    && it.fix.as_deref().unwrap().contains(fix)
            })
        };
        assert!(
            said("\"true\"", "kubectl label namespace shop mirrord.dev/inject=enabled --overwrite"),
            "{findings:?}"
        );
        assert!(
            said("never looked at", "kubectl label namespace kube-system mirrord.dev/inject-"),
            "{findings:?}"
        );
        assert!(said("\"yes\"", r#""mirrord.dev/inject":"enabled""#), "{findings:?}");
    }

    #[test]
    fn a_cluster_where_nobody_opted_in_is_told_how() {
        let finding = check(&found(&[("shop", None)], &[("shop", "app", None)])).remove(0);
        assert_eq!(
            finding.fix.as_deref(),
            Some("kubectl label namespace NAMESPACE mirrord.dev/inject=enabled")
        );
    }
}
