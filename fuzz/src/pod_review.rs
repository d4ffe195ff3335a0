//! Reviews of pods: whatever is posted, the answer allows; and what is injected takes nothing from the application.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use mirrord_webhook::injection::{Authorities, Limits, Outcome, Reviewed, Settings, SkipReason, review};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    Settings::new("registry.example/mirrord-agent", "mirrord", Authorities::new(&[b"authority"]))
});

/// The body of a review; where it isn't one, a pod that is put into one.
pub fn pod_review(data: &[u8]) {
    let posted = reviewed(data);
    match serde_json::from_slice::<Posted<'_>>(data) {
        Ok(posted_pod) => injected(&posted, posted_pod.request.object),
        Err(_) => {
            let Ok(pod) = serde_json::from_slice::<&RawValue>(data) else { return };
            injected(&reviewed(&around(pod.get())), pod);
        }
    }
}

/// As much of a review as has the pod in it.
#[derive(Deserialize)]
struct Posted<'a> {
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
}

/// A review of this pod, as the API server posts it.
fn around(pod: &str) -> Vec<u8> {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u-1",
        "kind":{{"group":"","version":"v1","kind":"Pod"}},"namespace":"shop","operation":"CREATE","object":{pod}}}}}"#
    )
    .into_bytes()
}

/// The answer, which the API server takes, whatever it says.
fn reviewed(body: &[u8]) -> Reviewed {
    let reviewed = review(body, &SETTINGS, |_| Limits::default());
    let answer: Value = serde_json::from_slice(&reviewed.body).expect("JSON");
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&"admission.k8s.io/v1".into(), &"AdmissionReview".into())
    );
    let response = &answer["response"];
    assert_eq!(response["allowed"], true);
    assert!(response["uid"].is_string());
    let injected = matches!(reviewed.outcome, Outcome::Injected { .. });
    assert_eq!(injected, response.get("patch").is_some());
    assert_eq!(injected, response.get("patchType").is_some_and(|kind| kind == "JSONPatch"));
    for warning in response.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        assert!(warning.as_str().is_some_and(|text| text.len() <= 120), "{warning}");
    }
    reviewed
}

/// A patch applies, adds, leaves the application's containers as they were, and is not asked for twice.
fn injected(reviewed: &Reviewed, pod: &RawValue) {
    let Outcome::Injected { patch, .. } = &reviewed.outcome else { return };
    let answer: Value = serde_json::from_slice(&reviewed.body).expect("JSON");
    let answered = answer["response"]["patch"].as_str().and_then(|text| STANDARD.decode(text).ok());
    let json = patch.to_json().expect("it was written before");
    assert_eq!(answered.as_ref(), Some(&json));
    let operations: json_patch::Patch = serde_json::from_slice(&json).expect("a patch");
    assert!(operations.iter().all(|operation| matches!(operation, json_patch::PatchOperation::Add(_))));

    // A number beyond all floats, where the review doesn't look: no API server takes such a pod from anybody.
    let Ok(before) = serde_json::from_str::<Value>(pod.get()) else { return };
    let mut after = before.clone();
    json_patch::patch(&mut after, &operations).unwrap_or_else(|error| panic!("{error}: {before}"));
    assert_eq!(after["spec"]["containers"].to_string(), before["spec"]["containers"].to_string());
    assert!(contains(&after, &before, ""), "something is gone: {before} became {after}");
    let again = review(&around(&after.to_string()), &SETTINGS, |_| Limits::default());
    assert!(
        matches!(again.outcome, Outcome::Skipped(SkipReason::AlreadyInjected)),
        "{}: {after}",
        again.label()
    );
}

/// Whether all that was there still is, but for what is extended, asked to be overruled, or a false word of ours.
fn contains(after: &Value, before: &Value, path: &str) -> bool {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => before.iter().all(|(key, value)| {
            after.get(key).is_some_and(|after| contains(after, value, &format!("{path}/{key}")))
        }),
        (Value::Array(after), Value::Array(before))
            if ["/spec/initContainers", "/spec/volumes"].contains(&path) =>
        {
            after.starts_with(before)
        }
        (Value::String(after), Value::String(before)) if path.ends_with("/safe-to-evict-local-volumes") => {
            after.starts_with(before.as_str())
        }
        (Value::String(_), Value::String(_)) if path == "/metadata/annotations/mirrord.dev/status" => true,
        (Value::Bool(true), Value::Bool(false)) => path == "/spec/shareProcessNamespace",
        (_, Value::Null) => true,
        (after, before) => after == before,
    }
}
