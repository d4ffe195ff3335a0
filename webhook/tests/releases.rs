//! What supported releases left in the API server's store (`protocol/recorded`), read by the present control plane.

use k8s_openapi::{
    api::{authentication::v1::UserInfo, core::v1::Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use mirrord_protocol::feature::Feature;
use mirrord_recorded::{Release, releases};
use mirrord_session::{Session, SessionStatus, definition};
use mirrord_webhook::{
    boot::desired::{Change, Desired, Rules},
    certificates::bundle::Configuration,
    injection::{Authorities, Limits, Settings, review},
    sessions::{sidecars, wish},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<T: DeserializeOwned>(release: &Release, file: &str) -> T {
    serde_json::from_str(&release.text(file))
        .unwrap_or_else(|error| panic!("{} {file}: {error}", release.name()))
}

/// A stored Session, its status, and a moment at which it was in use.
fn session(release: &Release) -> (Session, SessionStatus, u64) {
    let session: Session = object(release, "session.json");
    let status = session.status.clone().unwrap();
    let moment = status.expires_at - 10;
    (session, status, moment)
}

#[test]
fn a_stored_session_is_announced_to_the_sidecar_that_its_release_chose() {
    for release in releases() {
        let (session, status, moment) = session(&release);
        let pod: Pod = object(&release, "pod.json");
        let configuration = Configuration { agrees: true, created: Some(0) };
        let rules = Rules { configuration, grace: 600, per_user: 1 };
        let mut desired = Desired::default();
        desired.apply(Change::Listed(vec![session], 1));
        assert!(desired.garbage(moment, rules).is_empty());
        let twins: Vec<_> = desired.twins(moment, rules).into_values().collect();
        let [(twin, announcements)] = twins.as_slice() else { panic!("{twins:?}") };
        assert_eq!(Some(&twin.pod_uid), pod.metadata.uid.as_ref());
        assert_eq!(twin.route.to_string(), status.pods[0].route);
        assert_eq!(twin.address.ip().to_string(), pod.status.unwrap().pod_ip.unwrap());
        assert_eq!(announcements[0].features, Feature::ALL);
        assert_eq!(
            (announcements[0].expires_at, announcements[0].deadline),
            (status.expires_at, status.deadline)
        );
    }
}

#[test]
fn a_session_of_an_older_client_is_admitted_and_renewed_for_who_made_it() {
    for release in releases() {
        let (old, status, moment) = session(&release);
        let wished = wish::creation(&old).unwrap();
        assert_eq!(wished.target.to_string(), "deployment/app");
        let user = UserInfo { username: Some(status.creator.username.clone()), ..UserInfo::default() };
        let mut new = old.clone();
        new.spec.renewal = Some(moment);
        let wish::Update::Renew(renewed) = wish::update(&user, &old, &new, moment).unwrap() else {
            panic!("{}: a renewal is none", release.name())
        };
        assert_eq!((renewed.target, renewed.container), (wished.target, Some(status.container)));
    }
}

#[test]
fn an_older_pod_serves_and_is_not_injected_again() {
    for release in releases() {
        let (_, status, _) = session(&release);
        let pod: Pod = object(&release, "pod.json");
        let choice = sidecars::choose(&[pod], None, None).unwrap();
        assert_eq!(choice.container, status.container);
        assert_eq!(choice.pods[0].route.to_string(), status.pods[0].route);
        assert_eq!(choice.pods[0].port, status.pods[0].port);

        let pod: Value = object(&release, "pod.json");
        let body = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop",
                "operation": "CREATE", "object": pod,
            },
        });
        let settings = Settings::new("agent:later", "mirrord", Authorities::new(&[b"later"]));
        let reviewed = review(body.to_string().as_bytes(), &settings, |_| Limits::of(&[]));
        assert_eq!(reviewed.label(), "already_injected");
    }
}

/// Whether all that the older schema has is in the newer, of the same type, and nothing more is required.
fn only_grew(older: &Value, newer: &Value, at: &str) {
    assert_eq!(older["type"], newer["type"], "{at}");
    for (name, schema) in older["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        assert!(!newer["properties"][name].is_null(), "{at} is gone: the API server would drop it");
        only_grew(schema, &newer["properties"][name], &at);
    }
    if !older["items"].is_null() {
        only_grew(&older["items"], &newer["items"], &format!("{at}[]"));
    }
    for name in newer["required"].as_array().into_iter().flatten() {
        assert!(
            older["required"].as_array().is_some_and(|all| all.contains(name)),
            "{at}.{name} is required"
        );
    }
}

#[test]
fn the_definition_of_sessions_only_grew() {
    let schema = |definition: &CustomResourceDefinition| {
        let version = definition.spec.versions.iter().find(|version| version.name == "v1alpha1").unwrap();
        serde_json::to_value(version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap()
    };
    for release in releases() {
        let older: CustomResourceDefinition = object(&release, "crd.json");
        only_grew(&schema(&older), &schema(&definition()), &release.name());
    }
}
