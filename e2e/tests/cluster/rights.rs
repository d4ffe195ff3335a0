//! The full list of what our ServiceAccounts may do, from the cluster's own RBAC objects, against
//! `goldens/rights.txt`. `BLESS=1` writes that anew.

use std::{collections::BTreeSet, env, fs};

use mirrord_e2e::cluster::{Who, checkout, cluster};
use serde_json::Value;

const ACCOUNTS: [&str; 2] = ["mirrord-ingress", "mirrord-webhook"];

#[test]
fn our_service_accounts_may_do_this_and_nothing_else() {
    let lines: BTreeSet<String> = ACCOUNTS.iter().flat_map(|account| rights(account)).collect();
    let list = lines.into_iter().map(|line| line + "\n").collect::<String>();
    let golden = checkout().join("e2e/tests/goldens/rights.txt");
    if env::var_os("BLESS").is_some() {
        fs::write(&golden, &list).unwrap();
    }
    assert_eq!(list, fs::read_to_string(&golden).unwrap(), "BLESS=1 rewrites it");
}

#[test]
fn our_service_accounts_may_not_touch_pods_workloads_or_others_secrets() {
    let forbidden = [
        ("create", "pods/exec"),
        ("get", "pods/exec"),
        ("create", "pods/portforward"),
        ("create", "pods/attach"),
        ("get", "pods/log"),
        ("update", "pods/ephemeralcontainers"),
        ("patch", "pods/ephemeralcontainers"),
        ("create", "pods"),
        ("patch", "pods"),
        ("delete", "pods"),
        ("patch", "deployments.apps"),
        ("update", "statefulsets.apps"),
        ("patch", "daemonsets.apps"),
        ("create", "jobs.batch"),
        ("get", "secrets"),
        ("list", "secrets"),
        ("get", "secrets:orders-db"),
        ("get", "secrets:sh.helm.release.v1.mirrord.v1"),
        ("get", "configmaps"),
        ("create", "serviceaccounts/token"),
        ("impersonate", "users"),
        ("create", "sessions.mirrord.dev"),
        ("patch", "sessions.mirrord.dev"),
        ("list", "events.events.k8s.io"),
        ("delete", "events.events.k8s.io"),
        ("create", "events"),
    ];
    for account in ACCOUNTS {
        for namespace in ["shop", "mirrord", "kube-system"] {
            for (verb, what) in forbidden {
                let may = cluster().may(&Who::ServiceAccount(account), verb, what, namespace);
                assert!(!may, "{account} may {verb} {what} in {namespace}");
            }
        }
    }
}

#[test]
fn editors_and_admins_of_a_namespace_hold_and_can_delegate_our_verbs() {
    for role in ["edit", "admin"] {
        let role = cluster().get(&["clusterrole", role]);
        let ours: Vec<&Value> =
            rules(&role).filter(|rule| words(rule, "apiGroups") == ["mirrord.dev"]).collect();
        let verbs: BTreeSet<&str> = ours.iter().flat_map(|rule| words(rule, "verbs")).collect();
        assert!(
            verbs.is_superset(&BTreeSet::from(["env", "files", "outgoing", "secrets", "create"])),
            "{verbs:?}"
        );
    }
}

fn rights(account: &str) -> Vec<String> {
    let bound = |list: &Value| -> Vec<(String, Value)> {
        let items = list["items"].as_array().unwrap().iter();
        let ours = |binding: &&Value| {
            binding["subjects"].as_array().into_iter().flatten().any(|subject| {
                subject["kind"] == "ServiceAccount"
                    && subject["name"] == *account
                    && subject["namespace"] == "mirrord"
            })
        };
        let place =
            |binding: &Value| binding["metadata"]["namespace"].as_str().unwrap_or("everywhere").to_owned();
        items.filter(ours).map(|binding| (place(binding), binding["roleRef"].clone())).collect()
    };
    let mut lines = Vec::new();
    for kind in ["clusterrolebindings", "rolebindings"] {
        for (place, role) in bound(&cluster().get(&[kind, "--all-namespaces"])) {
            let name = role["name"].as_str().unwrap();
            let role = match role["kind"].as_str().unwrap() {
                "ClusterRole" => cluster().get(&["clusterrole", name]),
                _ => cluster().get(&["role", name, "--namespace", &place]),
            };
            for rule in rules(&role) {
                lines.extend(described(account, &place, rule));
            }
        }
    }
    lines
}

fn described(account: &str, place: &str, rule: &Value) -> Vec<String> {
    let names = words(rule, "resourceNames");
    let names = if names.is_empty() { String::new() } else { format!(" named {}", names.join(", ")) };
    let mut lines = Vec::new();
    for group in words(rule, "apiGroups") {
        let group = if group.is_empty() { "core" } else { group };
        for resource in words(rule, "resources") {
            let verbs = words(rule, "verbs").join(" ");
            lines.push(format!("{account} in {place}: {group}/{resource}{names}: {verbs}"));
        }
    }
    assert!(rule.get("nonResourceURLs").is_none() && !lines.is_empty(), "{rule}");
    lines
}

fn rules(role: &Value) -> impl Iterator<Item = &Value> {
    role["rules"].as_array().into_iter().flatten()
}

fn words<'a>(rule: &'a Value, list: &str) -> Vec<&'a str> {
    rule[list].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
