//! Whether anything moved in a namespace.

use std::collections::HashSet;

use crate::cluster::cluster;

/// Everything that can be told about a namespace's objects, but for Sessions and Events: mirrord makes the former, and
/// the latter come and go by themselves. Equal means: nothing was made, changed, restarted or removed.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(String);

/// What is looked at.
const KINDS: &str = "pods,deployments,replicasets,statefulsets,daemonsets,jobs,services,endpointslices,configmaps,secrets,\
                     serviceaccounts,networkpolicies,roles,leases";

impl Snapshot {
    /// How the namespace is now.
    #[must_use]
    pub fn of(namespace: &str) -> Self {
        let objects = cluster().get(&[KINDS, "--namespace", namespace, "--sort-by={.metadata.uid}"]);
        Self(serde_json::to_string_pretty(&objects).expect("JSON stays JSON"))
    }

    /// The lines that differ from a later look, for people.
    #[must_use]
    pub fn differences(&self, later: &Self) -> Vec<String> {
        if self == later {
            return Vec::new();
        }
        let only_in = |one: &Self, other: &Self, sign: char| {
            let there: HashSet<&str> = other.0.lines().collect();
            let lines = one.0.lines().filter(|line| !there.contains(line));
            lines.map(|line| format!("{sign} {}", line.trim())).collect::<Vec<_>>()
        };
        let differences = [only_in(self, later, '-'), only_in(later, self, '+')].concat();
        if differences.is_empty() { vec!["lines are in another order".to_owned()] } else { differences }
    }
}
