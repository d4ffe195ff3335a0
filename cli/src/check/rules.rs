//! Rules of Roles and ClusterRoles that speak of us: those that grant nothing, and those that grant more than thought. RBAC
//! takes any word for a group, a resource or a verb, and never says that it means nothing.

use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::ResourceExt;
use mirrord_protocol::{DOMAIN, feature::Feature};
use mirrord_session::TargetKind;
use serde_json::json;

use super::{
    finding::{Finding, Topic},
    found::Rights,
    workload::Workload,
};
use crate::nearest::{ALMOST_CERTAIN, LIKELY, nearest};

pub(super) const WORKLOADS: &str = "workloads";
pub(super) const SESSIONS: &str = "sessions";
const ALL: &str = "*";
const RESOURCES: [&str; 2] = [WORKLOADS, SESSIONS];
const SESSION_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A rule and where it stands.
struct Place<'a> {
    kind: &'static str,
    name: String,
    namespace: Option<String>,
    index: usize,
    rule: &'a PolicyRule,
}

/// Judges all rules. `workloads`: what there is, where that is known.
#[must_use]
pub fn check(rights: &Rights, workloads: Option<&[Workload]>) -> Vec<Finding> {
    let mut places = Vec::new();
    for role in &rights.roles {
        for (index, rule) in role.rules.iter().flatten().enumerate() {
            places.push(Place {
                kind: "role",
                name: role.name_any(),
                namespace: role.namespace(),
                index,
                rule,
            });
        }
    }
    // What aggregates others repeats their rules.
    for role in rights.cluster_roles.iter().filter(|role| role.aggregation_rule.is_none()) {
        for (index, rule) in role.rules.iter().flatten().enumerate() {
            places.push(Place { kind: "clusterrole", name: role.name_any(), namespace: None, index, rule });
        }
    }
    places.iter().flat_map(|place| judge(place, workloads)).collect()
}

fn judge(place: &Place<'_>, workloads: Option<&[Workload]>) -> Vec<Finding> {
    if let Some(finding) = wrong_group(place) {
        return vec![finding];
    }
    if !place.groups().iter().any(|group| group == DOMAIN) {
        return Vec::new();
    }
    let mut findings: Vec<Finding> =
        [wrong_resources(place), wrong_verbs(place), all_verbs(place), create_by_name(place)]
            .into_iter()
            .flatten()
            .collect();
    findings.extend(wrong_names(place, workloads));
    findings.extend(nothing_there(place, workloads));
    findings
}

impl Place<'_> {
    fn groups(&self) -> &[String] {
        self.rule.api_groups.as_deref().unwrap_or_default()
    }

    fn resources(&self) -> &[String] {
        self.rule.resources.as_deref().unwrap_or_default()
    }

    fn names(&self) -> &[String] {
        self.rule.resource_names.as_deref().unwrap_or_default()
    }

    fn covers(&self, resource: &str) -> bool {
        self.resources().iter().any(|it| it == resource || it == ALL)
    }

    /// Whether other groups stand beside ours, so that words may be meant for them.
    fn is_mixed(&self) -> bool {
        self.groups().iter().any(|group| group != DOMAIN)
    }

    fn place(&self) -> String {
        let namespace = self.namespace.iter().map(|namespace| format!(" -n {namespace}"));
        namespace.fold(format!("{}/{}", self.kind, self.name), |place, namespace| place + &namespace)
    }

    /// The line that replaces a list of the rule.
    fn replace(&self, field: &str, values: &[String]) -> String {
        let at = format!("/rules/{}/{field}", self.index);
        let patch = json!([{ "op": "replace", "path": at, "value": values }]);
        format!("kubectl patch {} --type=json -p '{patch}'", self.place())
    }

    /// The line that replaces a list of the rule by what was meant, if that is clear; else the one to edit it by hand.
    fn mend(&self, field: &str, values: &[String], meant: impl Fn(&str) -> Option<String>) -> String {
        let mended: Option<Vec<String>> = values.iter().map(|value| meant(value)).collect();
        match mended {
            Some(mut mended) => {
                mended.dedup();
                self.replace(field, &mended)
            }
            None => format!("kubectl edit {}", self.place()),
        }
    }

    fn warning(&self, what: impl Into<String>) -> Finding {
        Topic::Rights.warning(self.place(), what)
    }
}

/// Something of ours in a group that isn't ours.
fn wrong_group(place: &Place<'_>) -> Option<Finding> {
    if place.groups().iter().any(|group| group == DOMAIN || group == ALL) {
        return None;
    }
    let ours = |resource: &String| {
        resource == WORKLOADS || resource.starts_with("workloads/") || resource.ends_with(".mirrord.dev")
    };
    // Other projects have a resource `workloads` too, in groups of theirs; these two haven't.
    let core = place.groups().iter().any(|group| group.is_empty() || group == "apps");
    let named = place.groups().iter().any(|group| group.contains("mirrord"));
    if !(named || (core && place.resources().iter().any(ours))) {
        return None;
    }
    let what =
        format!("grants nothing of mirrord: the group is {DOMAIN}, not {:?}", place.groups().join(", "));
    let only_ours = named || place.resources().iter().all(ours);
    let fix = match only_ours {
        true => place.replace("apiGroups", &[DOMAIN.to_owned()]),
        false => format!("kubectl edit {}", place.place()),
    };
    Some(place.warning(what).fix(fix))
}

fn wrong_resources(place: &Place<'_>) -> Option<Finding> {
    let known = |resource: &str| resource == ALL || RESOURCES.contains(&resource);
    let meant = |resource: &str| match () {
        () if known(resource) => Some(resource.to_owned()),
        () if resource.starts_with("workload") => Some(WORKLOADS.to_owned()),
        () if resource.starts_with("session") => Some(SESSIONS.to_owned()),
        () => None,
    };
    let wrong: Vec<&String> = place
        .resources()
        .iter()
        .filter(|resource| !known(resource) && (!place.is_mixed() || meant(resource).is_some()))
        .collect();
    let first = wrong.first()?;
    let what = format!(
        "{first:?} grants nothing: the resources of {DOMAIN} are workloads and sessions, without subresources"
    );
    Some(place.warning(what).fix(place.mend("resources", place.resources(), meant)))
}

/// Verbs that no resource of the rule has.
fn wrong_verbs(place: &Place<'_>) -> Option<Finding> {
    let mut known: Vec<&str> = Vec::new();
    if place.covers(WORKLOADS) {
        known.extend(Feature::ALL.iter().map(|feature| feature.verb()));
    }
    if place.covers(SESSIONS) || place.is_mixed() {
        known.extend(SESSION_VERBS);
    }
    if known.is_empty() {
        return None;
    }
    let wrong = place.rule.verbs.iter().find(|verb| *verb != ALL && !known.contains(&verb.as_str()))?;
    // A guess becomes a line to be run only where it is almost certain.
    let meant = |verb: &str| match known.contains(&verb) || verb == ALL {
        true => Some(verb.to_owned()),
        false => nearest(verb, known.iter().copied(), ALMOST_CERTAIN).map(str::to_owned),
    };
    let near = nearest(wrong, known.iter().copied(), LIKELY);
    let near = near.map_or_else(String::new, |near| format!(", did you mean {near:?}?"));
    let what = format!(
        "the verb {wrong:?} grants nothing{near} On {} there are {}",
        place.resources().join(", "),
        known.join(", ")
    );
    Some(place.warning(what.replace("nothing On", "nothing: on")).fix(place.mend(
        "verbs",
        &place.rule.verbs,
        meant,
    )))
}

fn all_verbs(place: &Place<'_>) -> Option<Finding> {
    let all = place.covers(WORKLOADS) && place.rule.verbs.iter().any(|verb| verb == ALL);
    let verbs: Vec<String> = Feature::ALL.iter().map(|feature| feature.verb().to_owned()).collect();
    all.then(|| {
        let what =
            "the verb \"*\" on workloads grants mounted Secrets as well, and every feature of later releases";
        Topic::Rights.note(place.place(), what).fix(match place.resources() {
            [only] if only == WORKLOADS => place.replace("verbs", &verbs),
            _ => format!("kubectl edit {}", place.place()),
        })
    })
}

/// RBAC knows no name when something is created.
fn create_by_name(place: &Place<'_>) -> Option<Finding> {
    let creates = place.rule.verbs.iter().any(|verb| verb == "create");
    (place.covers(SESSIONS) && creates && !place.names().is_empty()).then(|| {
        let what = "create with resourceNames grants nothing: a Session has no name yet when RBAC is asked. Limit workloads \
                    by name, not sessions";
        place.warning(what).fix(format!("kubectl edit {}   # a rule of its own for sessions", place.place()))
    })
}

/// Names that are no `deployment.checkout`, or of nothing that is there.
fn wrong_names(place: &Place<'_>, workloads: Option<&[Workload]>) -> Option<Finding> {
    if !place.covers(WORKLOADS) || place.is_mixed() || place.names().is_empty() {
        return None;
    }
    let all = workloads.unwrap_or_default();
    let here: Vec<&Workload> = all
        .iter()
        .filter(|it| place.namespace.as_ref().is_none_or(|namespace| *namespace == it.namespace))
        .collect();
    let meant = |name: &str| shaped(name, &here);
    if let Some(wrong) = place.names().iter().find(|name| meant(name).as_ref() != Some(name)) {
        let what = format!(
            "the name {wrong:?} grants nothing: workloads are named KIND.NAME, as in deployment.checkout"
        );
        return Some(place.warning(what).fix(place.mend("resourceNames", place.names(), meant)));
    }
    // Only in a namespace is it known what else there could be.
    workloads?;
    place.namespace.as_ref()?;
    let there = |name: &String| {
        let (kind, rest) = name.split_once('.').unwrap_or_default();
        kind == "pod" || here.iter().any(|it| it.kind.word() == kind && it.name == rest)
    };
    let gone = place.names().iter().find(|name| !there(name))?;
    // Of the same kind: its word alone would make any two names alike.
    let near = |name: &str, at_least| {
        let (kind, rest) = name.split_once('.')?;
        let alike = here.iter().filter(|it| it.kind.word() == kind).map(|it| it.name.as_str());
        nearest(rest, alike, at_least).map(|rest| format!("{kind}.{rest}"))
    };
    let meant = |name: &str| match there(&name.to_owned()) {
        true => Some(name.to_owned()),
        false => near(name, ALMOST_CERTAIN),
    };
    let near = near(gone, LIKELY).map_or_else(String::new, |near| format!("; did you mean {near}?"));
    let what = format!("{gone:?} grants nothing now: there is no such workload in the namespace{near}");
    Some(place.warning(what).fix(place.mend("resourceNames", place.names(), meant)))
}

/// The name as it should be written; `None` where that can't be guessed.
fn shaped(name: &str, here: &[&Workload]) -> Option<String> {
    let (kind, rest) = match name.split_once(['.', '/']) {
        Some((kind, rest)) if TargetKind::from_word(kind).is_some() => (TargetKind::from_word(kind)?, rest),
        // A bare name: of the one workload that is called so.
        _ => {
            let mut called = here.iter().filter(|workload| workload.name == name);
            let only = called.next().filter(|_| called.next().is_none())?;
            (only.kind, name)
        }
    };
    (!rest.is_empty()).then(|| format!("{}.{rest}", kind.word()))
}

/// A Role for workloads in a namespace that has none.
fn nothing_there(place: &Place<'_>, workloads: Option<&[Workload]>) -> Option<Finding> {
    let namespace =
        place.namespace.as_ref().filter(|_| place.covers(WORKLOADS) && place.names().is_empty())?;
    let none = !workloads?.iter().any(|workload| workload.namespace == *namespace);
    none.then(|| Topic::Rights.note(place.place(), "grants nothing now: the namespace has no workloads"))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
