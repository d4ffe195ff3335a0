//! What commands tell about a workload's sidecars: which pods have none, and whose view is served.

use std::fs;

use mirrord_protocol::control::Obstacle;
use mirrord_session::{SessionStatus, TargetReport};
use serde_json::{Value, json};

use super::{
    api_server::Answer,
    in_place::{Stage, text},
    sidecar::World,
};

#[test]
fn whoever_gets_the_sidecars_own_view_is_told_why_and_once() {
    let environment = b"GREETING=from the pod\0".to_vec();
    let obstacle = Some(Obstacle::Capabilities);
    let stage = Stage::with(World { environment, obstacle, ..World::default() });
    let (_, _, cold) = text(&stage.exec(&["true"]).output().unwrap());
    let change = "securityContext.capabilities.drop: [ALL] of container app changes that\n";
    assert!(
        cold.contains("the program has capabilities, and the sidecar has none; ") && cold.contains(change),
        "{cold}"
    );
    let (_, _, warm) = text(&stage.exec(&["true"]).output().unwrap());
    assert!(!warm.contains("capabilities"), "{warm}");
    let listed = stage.sessions();
    assert_eq!(
        (&listed["local"][0]["view"], &listed["local"][0]["obstacle"]),
        (&json!("twin"), &json!("capabilities"))
    );
}

#[test]
fn pods_older_than_the_webhook_are_counted_with_the_line_that_restarts_them() {
    let stage = Stage::new();
    stage.api.answers(Answer::Status(Box::new(SessionStatus {
        running: 3,
        injected: 2,
        without_sidecar: vec!["checkout-0".to_owned()],
        ..stage.sidecar.status()
    })));
    let (_, _, err) = text(&stage.exec(&["true"]).output().unwrap());
    assert!(err.contains("1 of 3 pods of deployment/checkout have no sidecar (checkout-0)"), "{err}");
    assert!(err.contains("kubectl rollout restart deployment/checkout -n shop\n"), "{err}");
    assert!(!err.contains("process"), "the view is live, and nothing is to be said of it: {err}");
}

#[test]
fn a_listing_says_how_processes_are_seen_and_which_pods_have_no_sidecar() {
    let stage = Stage::new();
    let report = TargetReport {
        target: "statefulset/db".to_owned(),
        containers: vec!["db".to_owned()],
        pods: 2,
        injected: 1,
        features: vec!["env".to_owned()],
        process_namespace: "isolated".to_owned(),
        without_sidecar: vec!["db-0".to_owned()],
        opted_out: false,
    };
    let out =
        TargetReport { target: "job/batch".to_owned(), pods: 1, opted_out: true, ..TargetReport::default() };
    let targets = vec![report, out];
    stage.api.answers(Answer::Status(Box::new(SessionStatus { targets, ..stage.sidecar.status() })));
    let (_, out, err) = text(&stage.mirrord().arg("ls").output().unwrap());
    let row: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["statefulset/db", "db", "2", "1", "isolated", "env"]);
    let row: Vec<&str> = out.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(row, ["job/batch", "-", "1", "opted", "out", "-", "-"]);
    assert!(
        err.ends_with("(db-0); to give them one: kubectl rollout restart statefulset/db -n shop\n"),
        "{err}"
    );
    let (_, out, _) = text(&stage.mirrord().args(["ls", "-o", "json"]).output().unwrap());
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed[0]["processNamespace"], "isolated");
    assert_eq!(listed[0]["withoutSidecar"], json!(["db-0"]));
}

#[test]
fn every_command_looks_where_the_configuration_says() {
    let stage = Stage::new();
    fs::create_dir(stage.folder.path().join(".mirrord")).unwrap();
    let config = r#"{"target": {"deployment": "checkout", "namespace": "till"}}"#;
    fs::write(stage.folder.path().join(".mirrord/mirrord.json"), config).unwrap();
    for (arguments, asked) in [(&["ls"][..], "POST"), (&["session", "ls"], "GET")] {
        let _ = stage.mirrord().args(arguments).output().unwrap();
        let path = format!("{asked} /apis/mirrord.dev/v1alpha1/namespaces/till/sessions");
        assert_eq!(stage.api.count(&path), 1, "{arguments:?}");
    }
}

#[test]
fn a_namespace_that_nobody_named_is_the_first_thing_to_look_at() {
    let stage = Stage::new();
    let answer = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 403, "reason": "Forbidden",
        "message": "sessions.mirrord.dev is forbidden: User \"dev\" cannot create resource \"sessions\"",
    });
    stage.api.answers(Answer::Error(403, answer));
    let hint = "help: namespace \"shop\" is the context's: was another meant? -n NAMESPACE chooses it\n";
    let (code, _, err) = text(&stage.exec(&["true"]).output().unwrap());
    assert!(code == 77 && err.contains(hint) && err.contains("create rolebinding"), "{err}");
    let (code, _, err) = text(&stage.mirrord().args(["ls", "-n", "shop"]).output().unwrap());
    assert!(code == 77 && !err.contains("was another meant"), "{err}");
}
