use mirrord_certs::Authority;
use serde_json::{Value, json};

use super::*;
use crate::check::finding::Severity;

const NOW: u64 = 1_800_000_000;
const STATUS: &str = r#"{"version":1,"containers":[{"name":"check","sidecar":"mirrord","port":20001}]}"#;

fn now() -> i64 {
    i64::try_from(NOW).unwrap()
}

fn base64(authority: &Authority) -> String {
    authority.certificate_pem().lines().filter(|line| !line.starts_with('-')).collect()
}

/// The chart's configuration with these authorities, after a change.
fn configured(authority: Option<&Authority>, change: impl FnOnce(&mut Value)) -> Found {
    let bundle = authority.map(|authority| k8s_openapi::ByteString(authority.certificate_pem().into()));
    let webhooks = ENTRIES.map(|(name, policy)| {
        json!({
            "name": name, "failurePolicy": policy, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {
                "caBundle": bundle, "service": { "name": WEBHOOK, "namespace": "tools" },
            },
        })
    });
    let mut configuration = json!({ "metadata": { "name": CONFIGURATION }, "webhooks": webhooks });
    change(&mut configuration);
    Found { configuration: Some(Some(serde_json::from_value(configuration).unwrap())), ..Found::default() }
}

#[test]
fn a_configuration_as_the_webhook_keeps_it_is_fine() {
    let authority = Authority::create(NOW).unwrap();
    let findings = check(&configured(Some(&authority), |_| ()), now());
    assert!(findings.len() == 1 && findings[0].severity == Severity::Ok, "{findings:?}");
}

#[test]
fn an_entry_that_is_missing_or_fails_otherwise_is_an_error() {
    let authority = Authority::create(NOW).unwrap();
    let findings =
        check(&configured(Some(&authority), |it| it["webhooks"][0]["failurePolicy"] = "Fail".into()), now());
    assert!(
        findings[0].severity == Severity::Error && findings[0].what.contains("no opted-in pod could start")
    );
    let findings =
        check(&configured(Some(&authority), |it| drop(it["webhooks"].as_array_mut().unwrap().pop())), now());
    assert!(findings[0].what.contains("sessions.mirrord.dev is missing"), "{findings:?}");
    assert_eq!(
        findings[0].fix.as_deref(),
        Some("helm upgrade mirrord charts/mirrord -n tools --reuse-values"),
        "the namespace is the configuration's"
    );
}

#[test]
fn authorities_that_are_missing_or_differ_are_errors() {
    let findings = check(&configured(None, |_| ()), now());
    assert!(
        findings[0].severity == Severity::Error && findings[0].what.contains("no caBundle"),
        "{findings:?}"
    );
    let (one, other) = (Authority::create(NOW).unwrap(), Authority::create(NOW).unwrap());
    let bundle = serde_json::to_value(k8s_openapi::ByteString(other.certificate_pem().into())).unwrap();
    let findings =
        check(&configured(Some(&one), |it| it["webhooks"][1]["clientConfig"]["caBundle"] = bundle), now());
    assert!(findings[0].what.contains("different authorities"), "{findings:?}");
}

#[test]
fn no_configuration_is_an_error() {
    let findings = check(&Found { configuration: Some(None), ..Found::default() }, now());
    assert!(
        findings[0].severity == Severity::Error && findings[0].what.contains("no pod is injected"),
        "{findings:?}"
    );
}

fn injected(authority: &Authority) -> Answer {
    let pod = json!({
        "metadata": { "annotations": { "mirrord.dev/status": STATUS } },
        "spec": { "containers": [], "initContainers": [
            { "name": "mirrord-copy", "image": "agent:1" },
            { "name": "mirrord", "command": ["a", "serve", "--ca", base64(authority)] },
        ]},
    });
    Answer::Admitted { pod: Box::new(pod), warnings: vec![] }
}

#[test]
fn the_canary_says_what_injection_does_now() {
    let authority = Authority::create(NOW).unwrap();
    let (finding, current) = canary(&configured(Some(&authority), |_| ()), "default", &injected(&authority));
    assert_eq!(finding.severity, Severity::Ok);
    let authorities = vec![authority.certificate().to_vec()];
    let bundle = authorities.clone();
    assert_eq!(current, Some(Current { agent_image: Some("agent:1".to_owned()), authorities, bundle }));
}

#[test]
fn a_canary_with_another_authority_than_the_bundle_is_an_error() {
    let (one, other) = (Authority::create(NOW).unwrap(), Authority::create(NOW).unwrap());
    let (finding, _) = canary(&configured(Some(&one), |_| ()), "default", &injected(&other));
    assert!(finding.severity == Severity::Error && finding.what.contains("another authority"), "{finding:?}");
}

#[test]
fn a_canary_that_comes_back_as_it_went_shows_that_nobody_was_asked() {
    let bare = |warnings: &[&str]| Answer::Admitted {
        pod: Box::new(json!({ "spec": { "containers": [] } })),
        warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
    };
    let found = configured(None, |_| ());
    let (finding, current) = canary(&found, "default", &bare(&[]));
    assert!(
        finding.severity == Severity::Error && finding.what.contains("doesn't reach the webhook"),
        "{finding:?}"
    );
    assert_eq!(current, None);
    let (finding, _) = canary(&found, "default", &bare(&["mirrord: not injected: no authority yet"]));
    assert!(finding.what.contains("injects nothing: no authority yet"), "{finding:?}");
    let (finding, _) = canary(&found, "default", &Answer::Refused("quota".to_owned()));
    assert!(finding.severity == Severity::Warning && finding.what.contains("not checked"), "{finding:?}");
}

#[test]
fn a_part_without_replicas_or_endpoints_is_an_error() {
    let deployment = |available: i32| {
        json!({
            "metadata": { "name": WEBHOOK }, "spec": { "replicas": 2, "selector": {}, "template": {} },
            "status": { "availableReplicas": available },
        })
    };
    let found = |available: i32, ready: bool| {
        let slice = json!({
            "metadata": { "labels": { "kubernetes.io/service-name": WEBHOOK } }, "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }],
        });
        Found {
            deployments: Some(vec![serde_json::from_value(deployment(available)).unwrap()]),
            services: Some(vec![serde_json::from_value(json!({ "metadata": { "name": WEBHOOK } })).unwrap()]),
            endpoints: Some(vec![serde_json::from_value(slice).unwrap()]),
            ..Found::default()
        }
    };
    let severities = |available, ready| -> Vec<Severity> {
        part(&found(available, ready), Topic::Webhook, WEBHOOK)
            .into_iter()
            .map(|finding| finding.severity)
            .collect()
    };
    assert_eq!(severities(2, true), [Severity::Ok, Severity::Ok]);
    assert_eq!(severities(1, true), [Severity::Warning, Severity::Ok]);
    assert_eq!(severities(0, false), [Severity::Error, Severity::Error]);
}

#[test]
fn a_right_that_is_missing_for_the_dry_run_is_no_fault_of_the_webhook() {
    let severity = |exit| session("shop", &Err(Problem::new(exit, "no"))).severity;
    assert_eq!(severity(Exit::NotGranted), Severity::Warning);
    assert_eq!(severity(Exit::Unreachable), Severity::Error);
    assert_eq!(session("shop", &Ok(2)).severity, Severity::Ok);
}
