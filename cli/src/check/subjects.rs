//! Who was given what: subjects that have half of what a session takes, bindings that lead nowhere, and who may use mirrord
//! at all.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use kube::ResourceExt;
use mirrord_protocol::{DOMAIN, feature::Feature};

use super::{
    finding::{Finding, Topic, some_of},
    found::Rights,
    rules::{SESSIONS, WORKLOADS},
};

const ALL: &str = "*";
/// The role for developers.
const USER: &str = "mirrord-user";

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Who {
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// What somebody has somewhere.
#[derive(Clone, Debug, Default)]
struct Grant {
    /// Whether a rule names our group, not just all groups.
    named: bool,
    creates: bool,
    features: BTreeSet<&'static str>,
}

/// A binding of either kind.
struct Binding<'a> {
    place: String,
    /// `None`: everywhere.
    namespace: Option<String>,
    role: &'a RoleRef,
    subjects: &'a [Subject],
}

/// By subject, then by namespace; `None` is everywhere.
type Grants = BTreeMap<Who, BTreeMap<Option<String>, Grant>>;

/// Judges all bindings.
#[must_use]
pub fn check(rights: &Rights) -> Vec<Finding> {
    let bindings = bindings(rights);
    let mut grants = Grants::new();
    let mut findings = Vec::new();
    for binding in &bindings {
        let Some(rules) = rules(rights, binding) else {
            findings.extend(leads_nowhere(binding));
            continue;
        };
        let grant = grant(rules);
        for subject in binding.subjects {
            let of_subject = grants.entry(Who::from(subject)).or_default();
            of_subject.entry(binding.namespace.clone()).or_default().add(&grant);
        }
    }
    findings.extend(grants.iter().flat_map(|(who, grants)| halves(who, grants)));
    findings.push(users(&bindings));
    findings
}

fn bindings(rights: &Rights) -> Vec<Binding<'_>> {
    let everywhere = rights.cluster_role_bindings.iter().map(|binding| Binding {
        place: format!("clusterrolebinding/{}", binding.name_any()),
        namespace: None,
        role: &binding.role_ref,
        subjects: binding.subjects.as_deref().unwrap_or_default(),
    });
    let somewhere = rights.role_bindings.iter().map(|binding| {
        let namespace = binding.namespace().unwrap_or_default();
        Binding {
            place: format!("rolebinding/{} -n {namespace}", binding.name_any()),
            namespace: Some(namespace),
            role: &binding.role_ref,
            subjects: binding.subjects.as_deref().unwrap_or_default(),
        }
    });
    everywhere.chain(somewhere).collect()
}

fn rules<'a>(rights: &'a Rights, binding: &Binding<'_>) -> Option<&'a [PolicyRule]> {
    let rules = match binding.role.kind.as_str() {
        "ClusterRole" => {
            &rights.cluster_roles.iter().find(|role| role.name_any() == binding.role.name)?.rules
        }
        _ => {
            let here = |role: &&k8s_openapi::api::rbac::v1::Role| {
                role.name_any() == binding.role.name && role.namespace() == binding.namespace
            };
            &rights.roles.iter().find(here)?.rules
        }
    };
    Some(rules.as_deref().unwrap_or_default())
}

fn grant(rules: &[PolicyRule]) -> Grant {
    let mut grant = Grant::default();
    for rule in rules {
        let has =
            |list: &Option<Vec<String>>, word: &str| list.iter().flatten().any(|it| it == word || it == ALL);
        if !has(&rule.api_groups, DOMAIN) {
            continue;
        }
        let named = rule.api_groups.iter().flatten().any(|group| group == DOMAIN);
        let may = |verb: &str| rule.verbs.iter().any(|it| it == verb || it == ALL);
        let limited = rule.resource_names.as_ref().is_some_and(|names| !names.is_empty());
        if has(&rule.resources, SESSIONS) {
            grant.named |= named;
            grant.creates |= may("create") && !limited;
        }
        if has(&rule.resources, WORKLOADS) {
            grant.named |= named;
            grant.features.extend(Feature::ALL.iter().map(|feature| feature.verb()).filter(|verb| may(verb)));
        }
    }
    grant
}

impl Grant {
    fn add(&mut self, other: &Self) {
        self.named |= other.named;
        self.creates |= other.creates;
        self.features.extend(&other.features);
    }

    fn is_whole(&self) -> bool {
        self.creates && !self.features.is_empty()
    }
}

impl From<&Subject> for Who {
    fn from(subject: &Subject) -> Self {
        Self { kind: subject.kind.clone(), name: subject.name.clone(), namespace: subject.namespace.clone() }
    }
}

impl Who {
    fn words(&self) -> String {
        match (&*self.kind, &self.namespace) {
            ("ServiceAccount", Some(namespace)) => format!("serviceaccount {namespace}:{}", self.name),
            (kind, _) => format!("{} {}", kind.to_ascii_lowercase(), self.name),
        }
    }

    /// The option of `kubectl create rolebinding`.
    fn option(&self) -> String {
        match (&*self.kind, &self.namespace) {
            ("ServiceAccount", Some(namespace)) => format!("--serviceaccount={namespace}:{}", self.name),
            ("Group", _) => format!("--group={}", self.name),
            _ => format!("--user={}", self.name),
        }
    }
}

/// Where somebody may create sessions and nothing in them, or the other way round.
fn halves(who: &Who, grants: &BTreeMap<Option<String>, Grant>) -> Vec<Finding> {
    let everywhere = grants.get(&None).cloned().unwrap_or_default();
    let mut findings = Vec::new();
    for (namespace, grant) in grants {
        let mut all = everywhere.clone();
        all.add(grant);
        // Half of it everywhere, and the other half where it is needed, is a good way to do it.
        let completed = namespace.is_none()
            && grants.values().any(|other| {
                let mut both = grant.clone();
                both.add(other);
                both.is_whole()
            });
        if !all.named || all.is_whole() || completed || (!all.creates && all.features.is_empty()) {
            continue;
        }
        let (place, option) = match namespace {
            Some(namespace) => (format!("{} -n {namespace}", who.words()), format!(" -n {namespace}")),
            None => (who.words(), " -n NAMESPACE".to_owned()),
        };
        let what = if all.creates {
            "may create sessions, but has no feature (env, files, …) on any workload, unless by a group"
                .to_owned()
        } else {
            let features: Vec<&str> = all.features.iter().copied().collect();
            format!(
                "has {} on workloads, but may not create sessions, unless by a group",
                features.join(", ")
            )
        };
        let fix = format!("kubectl create rolebinding {USER} --clusterrole={USER} {}{option}", who.option());
        findings.push(Topic::Rights.warning(place, what).fix(fix));
    }
    findings
}

fn leads_nowhere(binding: &Binding<'_>) -> Option<Finding> {
    let RoleRef { kind, name, .. } = binding.role;
    name.contains("mirrord").then(|| {
        let what =
            format!("grants nothing: there is no {kind} {name:?}; the chart's are {USER} and mirrord-edit");
        // The role of a binding can't be changed.
        let fix =
            format!("kubectl delete {}   # and create it anew with --clusterrole={USER}", binding.place);
        Topic::Rights.warning(&binding.place, what).fix(fix)
    })
}

/// Who may use mirrord by the role for developers.
fn users(bindings: &[Binding<'_>]) -> Finding {
    let place = format!("clusterrole/{USER}");
    let to_users =
        bindings.iter().filter(|binding| binding.role.kind == "ClusterRole" && binding.role.name == USER);
    let names: Vec<String> = to_users
        .flat_map(|binding| {
            let namespace = binding.namespace.as_deref().unwrap_or("all namespaces");
            binding
                .subjects
                .iter()
                .map(move |subject| format!("{} in {namespace}", Who::from(subject).words()))
        })
        .collect();
    if names.is_empty() {
        return Topic::Rights
            .note(
                place,
                "bound to nobody: who isn't edit or admin of a namespace needs it, or a role of your own",
            )
            .fix(format!("kubectl create rolebinding {USER} --clusterrole={USER} --user=NAME -n NAMESPACE"));
    }
    Topic::Rights.ok(place, format!("bound to {}", some_of(&names)))
}

#[cfg(test)]
#[path = "subjects_tests.rs"]
mod tests;
