//! What commands tell about a workload's sidecars: which pods have none, and whose view is served.

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
    };
    stage
        .api
        .answers(Answer::Status(Box::new(SessionStatus { targets: vec![report], ..stage.sidecar.status() })));
    let (_, out, err) = text(&stage.mirrord().arg("ls").output().unwrap());
    let row: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["statefulset/db", "db", "2", "1", "isolated", "env"]);
    assert!(
        err.ends_with("(db-0); to give them one: kubectl rollout restart statefulset/db -n shop\n"),
        "{err}"
    );
    let (_, out, _) = text(&stage.mirrord().args(["ls", "-o", "json"]).output().unwrap());
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed[0]["processNamespace"], "isolated");
    assert_eq!(listed[0]["withoutSidecar"], json!(["db-0"]));
}
