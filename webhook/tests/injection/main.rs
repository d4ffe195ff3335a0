//! The injection as the API server sees it: a review in, an answer out, the answer's patch applied.

mod goldens;
mod pods;
mod properties;
mod reviews;
mod speed;
mod support;

use base64::{Engine, engine::general_purpose::STANDARD};
use mirrord_webhook::injection::{Authorities, LimitRangeItem, Limits, Reviewed, Settings, review};
use serde_json::{Value, json};

/// The settings of all tests here.
fn settings() -> Settings {
    let authorities = Authorities::new(&[b"first authority", b"other authority"]);
    Settings::new("registry.example/mirrord-agent:0.1.0", "mirrord", authorities)
}

/// What the API server posts for a pod.
fn admission_review(pod: &Value) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": []},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

/// The answer to a pod's review.
struct Answered {
    label: &'static str,
    warnings: Vec<String>,
    patch: Option<Value>,
}

fn reviewed(pod: &Value, limit_ranges: &[LimitRangeItem]) -> Answered {
    reviewed_within(pod, Limits::of(limit_ranges))
}

fn reviewed_within(pod: &Value, limits: Limits) -> Answered {
    let body = serde_json::to_vec(&admission_review(pod)).unwrap();
    answered(&review(&body, &settings(), |namespace| {
        assert_eq!(namespace, "shop");
        limits
    }))
}

/// Takes an answer apart, as strictly as the API server does.
fn answered(reviewed: &Reviewed) -> Answered {
    let answer: Value = serde_json::from_slice(&reviewed.body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = &answer["response"];
    assert_eq!(response["allowed"], true);
    let patch = response.get("patch").map(|patch| {
        assert_eq!(response["patchType"], "JSONPatch");
        serde_json::from_slice(&STANDARD.decode(patch.as_str().unwrap()).unwrap()).unwrap()
    });
    assert_eq!(patch.is_some(), response.get("patchType").is_some());
    let warnings: Vec<String> = response
        .get("warnings")
        .map(|list| serde_json::from_value(list.clone()).unwrap())
        .unwrap_or_default();
    assert!(warnings.iter().all(|warning| warning.len() <= 120), "{warnings:?}");
    Answered { label: reviewed.label(), warnings, patch }
}

/// The pod after the patch.
fn patched(pod: &Value, patch: &Value) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    patched
}
