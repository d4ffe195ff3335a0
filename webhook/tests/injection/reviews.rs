//! Reviews and pods out of the ordinary: each gets an answer that allows.

use mirrord_telemetry::log::Format;
use mirrord_webhook::injection::{Limits, NamespaceFacts, Outcome, Settings, SkipReason, inject, review};
use serde_json::{Value, json, value::to_raw_value};

use crate::{Answered, admission_review, answered, patched, reviewed, settings};

/// A pod as small as can be, with something set in it.
fn pod_with(pointer: &str, value: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "app", "labels": {}, "annotations": {}},
        "spec": {"containers": [{"name": "app", "image": "app"}], "volumes": [], "initContainers": []},
    });
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/");
    pod.pointer_mut(parent).unwrap()[key] = value;
    pod
}

fn skipped(pod: &Value) -> Answered {
    let answer = reviewed(pod, &[]);
    assert!(answer.patch.is_none(), "{pod} was injected");
    answer
}

#[test]
fn every_reason_to_skip_a_pod_is_met_by_a_pod() {
    let ports: Vec<_> = (20_000..30_000).map(|port| json!({"containerPort": port})).collect();
    let mount = json!([{"name": "x", "mountPath": "/.mirrord/bin/x"}]);
    for (pointer, value, reason) in [
        ("/metadata/labels/mirrord.dev~1inject", json!("disabled"), SkipReason::OptedOut),
        ("/metadata/annotations/kubernetes.io~1config.mirror", json!("1"), SkipReason::MirrorPod),
        ("/spec/os", json!({"name": "windows"}), SkipReason::Windows),
        ("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"}), SkipReason::Windows),
        ("/spec/hostNetwork", json!(true), SkipReason::HostNetwork),
        ("/spec/containers", json!(null), SkipReason::NoContainers),
        ("/metadata/annotations/mirrord.dev~1containers", json!("app,web"), SkipReason::UnknownContainer),
        ("/metadata/annotations/mirrord.dev~1containers", json!(" , "), SkipReason::UnknownContainer),
        ("/spec/volumes", json!([{"name": "mirrord-bin"}]), SkipReason::NameTaken),
        ("/spec/initContainers", json!([{"name": "mirrord-copy"}]), SkipReason::NameTaken),
        ("/spec/containers/0", json!({"name": "mirrord"}), SkipReason::NameTaken),
        ("/spec/ephemeralContainers", json!([{"name": "mirrord"}]), SkipReason::NameTaken),
        ("/spec/containers/0", json!({"name": "app", "volumeMounts": mount}), SkipReason::PathTaken),
        ("/spec/containers/0", json!({"name": "app", "ports": ports}), SkipReason::NoFreePort),
    ] {
        let pod = if pointer == "/spec/containers/0" {
            pod_with("/spec/containers", json!([value]))
        } else {
            pod_with(pointer, value)
        };
        let answer = skipped(&pod);
        assert_eq!(answer.label, reason.label());
        assert_eq!(answer.warnings.is_empty(), !reason.warns(), "{reason}");
    }
}

#[test]
fn a_sidecar_logs_as_the_control_plane_does() {
    let body = serde_json::to_vec(&admission_review(&pod_with("/spec/nodeName", json!("n")))).unwrap();
    let command = |settings: &Settings| -> Vec<String> {
        let patch = answered(&review(&body, settings, |_| Limits::default())).patch.unwrap();
        let pod = patched(&pod_with("/spec/nodeName", json!("n")), &patch);
        serde_json::from_value(pod["spec"]["initContainers"][1]["command"].clone()).unwrap()
    };
    let plain = command(&settings());
    assert!(!plain.iter().any(|word| word.starts_with("--log")), "{plain:?}");
    let json = command(&Settings { log_format: Format::Json, ..settings() });
    assert!(json.windows(2).any(|pair| pair == ["--log-format", "json"]), "{json:?}");
}

#[test]
fn where_namespaces_are_watched_the_pods_own_label_still_wins() {
    let pod = pod_with("/spec/nodeName", json!("n"));
    let labelled = pod_with("/metadata/labels/mirrord.dev~1inject", json!("enabled"));
    for (pod, opted_in, injected) in [
        (&pod, Some(false), false),
        (&pod, Some(true), true),
        (&pod, None, true),
        (&labelled, Some(false), true),
    ] {
        let namespace = NamespaceFacts { name: "shop", opted_in, limits: Limits::default() };
        match inject(&to_raw_value(pod).unwrap(), &namespace, &settings()) {
            Outcome::Injected { .. } => assert!(injected),
            outcome => assert!(!injected && matches!(outcome, Outcome::Skipped(SkipReason::NotOptedIn))),
        }
    }
}

#[test]
fn reviews_that_ask_for_something_else_are_allowed_as_they_are() {
    for (pointer, value, label) in [
        ("/request/operation", json!("UPDATE"), "not_a_pod_creation"),
        ("/request/kind/kind", json!("Deployment"), "not_a_pod_creation"),
        ("/request/subResource", json!("ephemeralcontainers"), "not_a_pod_creation"),
        ("/request/object", json!(null), "not_a_pod_creation"),
        ("/request/namespace", json!("kube-system"), "system_namespace"),
        ("/request/namespace", json!("mirrord"), "system_namespace"),
        ("/apiVersion", json!("admission.k8s.io/v1beta1"), "unreadable_review"),
        ("/request/operation", json!(7), "unreadable_review"),
        ("/request/object", json!({"spec": {"containers": "many"}}), "unreadable_pod"),
        ("/request/object", json!("pod"), "unreadable_pod"),
        ("/request/object", json!({"spec": {"containers": [{"name": "app"}]}}), "unreadable_pod"),
        (
            "/request/object",
            json!({"metadata": null, "spec": {"containers": [{"name": "app"}]}}),
            "unreadable_pod",
        ),
    ] {
        let mut body = admission_review(&pod_with("/spec/nodeName", json!("n")));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[key] = value;
        let reviewed = review(body.to_string().as_bytes(), &settings(), |_| Limits::default());
        let answer = answered(&reviewed);
        assert_eq!(answer.label, label, "{pointer}");
        assert!(answer.patch.is_none());
        // A fault is told; and even then the answer carries the uid that makes the API server take it.
        assert_eq!(answer.warnings.len(), usize::from(label.starts_with("unreadable")), "{pointer}");
        let body: Value = serde_json::from_slice(&reviewed.body).unwrap();
        assert_eq!(body["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002", "{pointer}");
    }
}

#[test]
fn nothing_is_injected_before_there_is_an_authority() {
    let settings = settings();
    settings.authorities.replace::<&[u8]>(&[]);
    let body = admission_review(&pod_with("/spec/nodeName", json!("n"))).to_string();
    let answer = answered(&review(body.as_bytes(), &settings, |_| Limits::default()));
    assert_eq!((answer.label, answer.patch), ("no_authority", None));
    settings.clone().authorities.replace(&[b"new"]);
    let answer = answered(&review(body.as_bytes(), &settings, |_| Limits::default()));
    assert!(answer.patch.unwrap().to_string().contains("bmV3"));
}

#[test]
fn a_status_annotation_without_its_sidecar_is_not_believed() {
    let status = r#"{"version":1,"containers":[{"name":"app","sidecar":"mirrord","port":20000}],"process_namespace":"shared"}"#;
    let copied = pod_with("/metadata/annotations/mirrord.dev~1status", json!(status));
    let after = patched(&copied, &reviewed(&copied, &[]).patch.unwrap());
    assert_ne!(after["metadata"]["annotations"]["mirrord.dev/status"], json!(status));
    // Where the sidecar is there but listens elsewhere, its name is taken; we don't touch it.
    let mut forged = after;
    forged["metadata"]["annotations"]["mirrord.dev/status"] = json!(status);
    assert_eq!(skipped(&forged).label, "name_taken");
}

#[test]
fn fields_newer_than_this_build_reach_the_twin() {
    let mut pod = pod_with("/spec/nodeName", json!("n"));
    pod["spec"]["containers"][0] = json!({
        "name": "app",
        "image": "app",
        "env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "key": "k", "new": 1.50}}}],
        "envFrom": [{"futureRef": {"name": "x"}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "recursiveReadOnly": "Enabled", "mountPropagation": "None"}],
    });
    let after = patched(&pod, &reviewed(&pod, &[]).patch.unwrap());
    let twin = &after["spec"]["initContainers"][1];
    let application = &pod["spec"]["containers"][0];
    assert_eq!(twin["env"], application["env"]);
    assert_eq!(twin["envFrom"], application["envFrom"]);
    assert_eq!(
        twin["volumeMounts"][0],
        json!({"name": "v", "mountPath": "/v", "recursiveReadOnly": "Enabled"})
    );
}

#[test]
fn an_unknown_default_container_or_mode_is_told_and_the_rest_done() {
    for annotation in ["kubectl.kubernetes.io~1default-container", "mirrord.dev~1process-namespace"] {
        let answer = reviewed(&pod_with(&format!("/metadata/annotations/{annotation}"), json!("web")), &[]);
        assert!(answer.patch.is_some());
        assert_eq!(answer.warnings.len(), 1);
    }
}

#[test]
fn a_round_trip_reads_as_the_documentation_of_kubernetes_has_it() {
    let pod = pod_with("/spec/nodeName", json!("n"));
    let body = admission_review(&pod).to_string();
    let reviewed = review(body.as_bytes(), &settings(), |_| Limits::default());
    let mut answer: Value = serde_json::from_slice(&reviewed.body).unwrap();
    let patch = answer["response"].as_object_mut().unwrap().remove("patch").unwrap();
    assert!(patch.as_str().unwrap().len() > 1000);
    assert_eq!(
        answer,
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "allowed": true,
                "patchType": "JSONPatch",
            },
        })
    );
}
