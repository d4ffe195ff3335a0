use serde_json::Value;

use super::*;
use crate::check::finding::Severity;

fn workload(kind: TargetKind, name: &str) -> Workload {
    Workload::new(kind, json!({ "metadata": { "name": name, "namespace": "shop" } })).unwrap()
}

/// Findings about a Role with one rule, in a namespace with a Deployment `checkout` and a StatefulSet `db`.
fn findings(rule: &Value) -> Vec<Finding> {
    let role = json!({ "metadata": { "name": "dev", "namespace": "shop" }, "rules": [rule] });
    let rights = Rights { roles: vec![serde_json::from_value(role).unwrap()], ..Rights::default() };
    let there = [workload(TargetKind::Deployment, "checkout"), workload(TargetKind::StatefulSet, "db")];
    check(&rights, Some(&there))
}

fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": groups, "resources": resources, "resourceNames": names, "verbs": verbs })
}

/// The one finding's sentence and fix.
#[track_caller]
fn only(rule: &Value) -> (String, String) {
    let found = findings(rule);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].severity, Severity::Warning, "{found:?}");
    (found[0].what.clone(), found[0].fix.clone().unwrap())
}

fn patched(field: &str, value: &str) -> String {
    format!(
        r#"kubectl patch role/dev -n shop --type=json -p '[{{"op":"replace","path":"/rules/0/{field}","value":{value}}}]'"#
    )
}

#[test]
fn rules_that_grant_what_they_say_are_not_mentioned() {
    for rule in [
        rule(&["mirrord.dev"], &["workloads"], &[], &["env", "files", "outgoing", "secrets"]),
        rule(
            &["mirrord.dev"],
            &["workloads"],
            &["deployment.checkout", "statefulset.db", "pod.any"],
            &["env"],
        ),
        rule(&["mirrord.dev"], &["sessions"], &[], &["create", "get", "list", "patch", "delete", "watch"]),
        rule(&["mirrord.dev"], &["sessions", "workloads"], &[], &["create", "env"]),
        rule(&["apps", "mirrord.dev"], &["deployments", "workloads"], &[], &["get", "env"]),
        rule(&["kueue.x-k8s.io"], &["workloads"], &["checkout"], &["get"]),
        rule(&["*"], &["*"], &[], &["*"]),
        rule(&[""], &["pods"], &[], &["get"]),
    ] {
        assert_eq!(findings(&rule), [], "{rule}");
    }
}

#[test]
fn subresources_of_workloads_grant_nothing() {
    let (what, fix) = only(&rule(&["mirrord.dev"], &["workloads/*"], &[], &["env"]));
    assert!(what.contains("\"workloads/*\" grants nothing"), "{what}");
    assert_eq!(fix, patched("resources", r#"["workloads"]"#));
}

#[test]
fn a_verb_that_does_not_exist_is_named_with_the_one_that_was_meant() {
    let (what, fix) = only(&rule(&["mirrord.dev"], &["workloads"], &[], &["env", "file"]));
    assert!(what.contains("the verb \"file\" grants nothing, did you mean \"files\"?"), "{what}");
    assert_eq!(fix, patched("verbs", r#"["env","files"]"#));
    let (what, fix) = only(&rule(&["mirrord.dev"], &["workloads"], &[], &["get"]));
    assert!(what.contains("the verb \"get\" grants nothing: on workloads there are env"), "{what}");
    assert_eq!(fix, "kubectl edit role/dev -n shop");
}

#[test]
fn another_group_grants_nothing_of_ours() {
    for group in ["mirrord", "mirrord.dev/v1alpha1", "", "apps"] {
        let (what, fix) = only(&rule(&[group], &["workloads"], &[], &["env"]));
        assert!(what.contains("the group is mirrord.dev"), "{what}");
        assert_eq!(fix, patched("apiGroups", r#"["mirrord.dev"]"#));
    }
}

#[test]
fn names_have_the_shape_that_the_webhook_asks_for() {
    for (name, meant) in [
        ("checkout", "deployment.checkout"),
        ("deployment/checkout", "deployment.checkout"),
        ("deploy.checkout", "deployment.checkout"),
        ("sts/db", "statefulset.db"),
    ] {
        let (what, fix) = only(&rule(&["mirrord.dev"], &["workloads"], &[name], &["env"]));
        assert!(what.contains(&format!("the name {name:?} grants nothing")), "{what}");
        assert_eq!(fix, patched("resourceNames", &format!("[{meant:?}]")));
    }
    let (_, fix) = only(&rule(&["mirrord.dev"], &["workloads"], &["nobody"], &["env"]));
    assert_eq!(fix, "kubectl edit role/dev -n shop");
}

#[test]
fn a_name_of_nothing_that_is_there_is_named_with_its_neighbour() {
    let (what, fix) = only(&rule(&["mirrord.dev"], &["workloads"], &["deployment.chekout"], &["env"]));
    assert!(what.contains("did you mean deployment.checkout?"), "{what}");
    assert_eq!(fix, patched("resourceNames", r#"["deployment.checkout"]"#));
}

#[test]
fn a_line_to_be_run_never_grants_another_workload_by_a_guess() {
    let (what, fix) = only(&rule(&[DOMAIN], &["workloads"], &["deployment.orders"], &["env"]));
    assert!(!what.contains("did you mean"), "{what}");
    assert!(fix.starts_with("kubectl edit "), "{fix}");
}

#[test]
fn sessions_can_not_be_created_by_name() {
    let (what, _) = only(&rule(&["mirrord.dev"], &["sessions"], &["s-1"], &["create"]));
    assert!(what.contains("create with resourceNames grants nothing"), "{what}");
}

#[test]
fn the_star_is_a_note_that_lists_what_there_is_now() {
    let found = findings(&rule(&["mirrord.dev"], &["workloads"], &[], &["*"]));
    assert!(found.len() == 1 && found[0].severity == Severity::Note, "{found:?}");
    assert!(found[0].what.contains("mounted Secrets"), "{found:?}");
    assert_eq!(found[0].fix.as_deref().unwrap(), patched("verbs", r#"["env","files","secrets","outgoing"]"#));
}

#[test]
fn a_role_where_nothing_runs_is_a_note() {
    let role = json!({
        "metadata": { "name": "dev", "namespace": "empty" },
        "rules": [rule(&["mirrord.dev"], &["workloads"], &[], &["env"])],
    });
    let rights = Rights { roles: vec![serde_json::from_value(role).unwrap()], ..Rights::default() };
    let found = check(&rights, Some(&[workload(TargetKind::Deployment, "checkout")]));
    assert!(found.len() == 1 && found[0].severity == Severity::Note, "{found:?}");
    assert_eq!(check(&rights, None), [], "where workloads could not be read, nothing is claimed");
}

#[test]
fn aggregated_roles_are_judged_where_their_rules_come_from() {
    let role = |aggregation: Value| {
        let rules = [rule(&["mirrord.dev"], &["workloads"], &[], &["file"])];
        serde_json::from_value(
            json!({ "metadata": { "name": "r" }, "aggregationRule": aggregation, "rules": rules }),
        )
        .unwrap()
    };
    let rights = Rights { cluster_roles: vec![role(json!({})), role(Value::Null)], ..Rights::default() };
    assert_eq!(check(&rights, None).len(), 1);
}
