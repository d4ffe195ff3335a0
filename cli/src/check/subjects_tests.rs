use serde_json::{Value, json};

use super::*;
use crate::check::finding::Severity;

const CREATE: &str = "sessions:create";
const ENV: &str = "workloads:env";

/// Roles by name (what they grant), and who is bound to them where.
fn rights(roles: &[(&str, &[&str])], bindings: &[(&str, Option<&str>, &str)]) -> Rights {
    let rules = |grants: &[&str]| -> Value {
        grants
            .iter()
            .map(|grant| {
                let (resource, verb) = grant.split_once(':').unwrap();
                json!({ "apiGroups": ["mirrord.dev"], "resources": [resource], "verbs": [verb] })
            })
            .collect()
    };
    let cluster_roles = roles.iter().map(|(name, grants)| {
        serde_json::from_value(json!({ "metadata": { "name": name }, "rules": rules(grants) })).unwrap()
    });
    let binding = |(role, namespace, user): &(&str, Option<&str>, &str)| {
        json!({
            "metadata": { "name": "b", "namespace": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        })
    };
    let of = |everywhere: bool| -> Value {
        bindings.iter().filter(|(_, namespace, _)| namespace.is_none() == everywhere).map(binding).collect()
    };
    Rights {
        roles: vec![],
        cluster_roles: cluster_roles.collect(),
        role_bindings: serde_json::from_value(of(false)).unwrap(),
        cluster_role_bindings: serde_json::from_value(of(true)).unwrap(),
    }
}

fn warnings(rights: &Rights) -> Vec<Finding> {
    check(rights).into_iter().filter(|finding| finding.severity == Severity::Warning).collect()
}

#[test]
fn whoever_has_both_halves_is_not_mentioned() {
    let roles: [(&str, &[&str]); 3] = [("both", &[CREATE, ENV]), ("create", &[CREATE]), ("env", &[ENV])];
    for bindings in [
        &[("both", Some("shop"), "ann")][..],
        &[("create", Some("shop"), "ann"), ("env", Some("shop"), "ann")],
        &[("create", None, "ann"), ("env", Some("shop"), "ann")],
        &[("env", None, "ann"), ("create", Some("shop"), "ann")],
    ] {
        assert_eq!(warnings(&rights(&roles, bindings)), [], "{bindings:?}");
    }
}

#[test]
fn a_half_is_named_with_the_line_that_completes_it() {
    let roles: [(&str, &[&str]); 2] = [("create", &[CREATE]), ("env", &[ENV])];
    let found = warnings(&rights(&roles, &[("create", Some("shop"), "ann"), ("env", Some("tools"), "ann")]));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].what.contains("may create sessions, but has no feature"), "{found:?}");
    assert!(found[1].what.contains("has env on workloads, but may not create sessions"), "{found:?}");
    let fix = "kubectl create rolebinding mirrord-user --clusterrole=mirrord-user --user=ann -n shop";
    assert_eq!(found[0].fix.as_deref(), Some(fix));
}

#[test]
fn a_binding_to_a_role_that_is_not_there_leads_nowhere() {
    let found = warnings(&rights(&[], &[("mirrord-users", Some("shop"), "ann")]));
    assert!(
        found.len() == 1 && found[0].what.contains("there is no ClusterRole \"mirrord-users\""),
        "{found:?}"
    );
    assert_eq!(warnings(&rights(&[], &[("others", Some("shop"), "ann")])), []);
}

#[test]
fn it_is_told_who_may_use_mirrord() {
    let roles: [(&str, &[&str]); 1] = [(USER, &[CREATE, ENV])];
    let found = check(&rights(&roles, &[(USER, Some("shop"), "ann"), (USER, None, "bob")]));
    assert!(found[0].what.contains("user bob in all namespaces, user ann in shop"), "{found:?}");
    let nobody = check(&rights(&roles, &[]));
    assert!(nobody[0].severity == Severity::Note && nobody[0].what.contains("bound to nobody"), "{nobody:?}");
}

#[test]
fn rules_for_everything_of_everybody_are_no_half() {
    let mut rights = rights(&[("all-create", &[])], &[("all-create", None, "controller")]);
    let rule = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["create"] }]);
    rights.cluster_roles[0].rules = Some(serde_json::from_value(rule).unwrap());
    assert_eq!(warnings(&rights), []);
}
