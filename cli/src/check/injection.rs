//! Whether every opted-in workload can be injected: its pod is created in a dry run, and once more opted out where that is
//! refused, to tell whose fault it is.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use mirrord_session::{InjectionStatus, STATUS_ANNOTATION};
use serde_json::Value;

use super::{
    dry_run::Answer,
    finding::{Finding, Topic, some_of},
    workload::Workload,
};

/// The init container that brings the agent.
const COPY: &str = "mirrord-copy";
/// How admission warnings of ours begin.
const NOT_INJECTED: &str = "mirrord: not injected: ";

/// A workload and what the API server said to its pod.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// To its pod.
    pub answer: Answer,
    /// To the same pod opted out, where the first was refused.
    pub opted_out: Option<Answer>,
}

/// What that means.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It gets its sidecar; the pod as it would be.
    Injected(Box<Pod>),
    /// It gets none, for this reason.
    Skipped(String),
    /// It gets none, and nobody says why.
    Silent,
    /// It is refused, and would not be without the sidecar.
    RefusedForUs(String),
    /// It is refused in any case.
    Refused(String),
    /// It could not be asked.
    Unknown(String),
}

/// The pod, if its sidecars are really there. (Anybody can write an annotation.)
#[must_use]
pub fn sidecar_of(pod: &Value) -> Option<Pod> {
    let pod: Pod = serde_json::from_value(pod.clone()).ok()?;
    has_sidecar(&pod).then_some(pod)
}

/// Whether a pod has the sidecars that its annotation speaks of.
#[must_use]
pub fn has_sidecar(pod: &Pod) -> bool {
    let Some(status) = status(pod) else { return false };
    let init: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .map(|it| it.name.as_str())
        .collect();
    !status.containers.is_empty() && status.containers.iter().all(|it| init.contains(&it.sidecar.as_str()))
}

/// What injection wrote down.
#[must_use]
pub fn status(pod: &Pod) -> Option<InjectionStatus> {
    serde_json::from_str(pod.annotations().get(STATUS_ANNOTATION)?).ok()
}

/// The image that brought a pod's agent.
#[must_use]
pub fn agent_image(pod: &Pod) -> Option<String> {
    let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.find(|container| container.name == COPY)?.image.clone()
}

/// Why nothing was injected, by the webhook's own words.
#[must_use]
pub fn reason(warnings: &[String]) -> Option<&str> {
    warnings.iter().find_map(|warning| warning.strip_prefix(NOT_INJECTED))
}

impl Attempt<'_> {
    /// Judges the answers.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match &self.answer {
            Answer::Admitted { pod, warnings } => match (sidecar_of(pod), reason(warnings)) {
                (Some(pod), _) => Verdict::Injected(Box::new(pod)),
                (None, Some(reason)) => Verdict::Skipped(reason.to_owned()),
                (None, None) => {
                    self.unasked().map_or(Verdict::Silent, |reason| Verdict::Skipped(reason.to_owned()))
                }
            },
            Answer::Refused(message) => match &self.opted_out {
                Some(Answer::Admitted { .. }) => Verdict::RefusedForUs(message.clone()),
                _ => Verdict::Refused(message.clone()),
            },
            Answer::Failed(message) => Verdict::Unknown(message.clone()),
        }
    }

    /// Why the API server doesn't even ask the webhook (the chart's matchConditions).
    fn unasked(&self) -> Option<&'static str> {
        let spec = &self.workload.template()["spec"];
        if spec["hostNetwork"] == true {
            Some("with hostNetwork the sidecar's UDP port would be the node's")
        } else if spec["os"]["name"] == "windows" {
            Some("the sidecar runs on Linux only")
        } else {
            None
        }
    }
}

/// Judges all attempts. `reached`: whether the webhook is known to inject; else silence is its finding, not the workloads'.
#[must_use]
pub fn check(attempts: &[Attempt<'_>], reached: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut injected: Vec<(&str, Vec<String>)> = Vec::new();
    for attempt in attempts {
        let workload = attempt.workload;
        match attempt.verdict() {
            Verdict::Injected(_) => {
                match injected.iter_mut().find(|(namespace, _)| *namespace == workload.namespace) {
                    Some((_, names)) => names.push(workload.target()),
                    None => injected.push((&workload.namespace, vec![workload.target()])),
                }
            }
            verdict => findings.extend(told(workload, &verdict, reached)),
        }
    }
    let fine = injected.into_iter().map(|(namespace, names)| {
        Topic::Injection
            .ok(format!("namespace {namespace}"), format!("pods get a sidecar: {}", some_of(&names)))
    });
    fine.chain(findings).collect()
}

fn told(workload: &Workload, verdict: &Verdict, reached: bool) -> Option<Finding> {
    let place = workload.place();
    Some(match verdict {
        Verdict::Injected(_) => return None,
        Verdict::Skipped(reason) => Topic::Injection
            .warning(place, format!("its pods get no sidecar: {reason}"))
            .fix(format!("{}   # opts it out, if that is all right", workload.opt_out())),
        Verdict::Silent if !reached => return None,
        Verdict::Silent => Topic::Injection
            .error(place, "its pods get no sidecar, and the webhook wasn't asked")
            .fix("kubectl get mutatingwebhookconfiguration mirrord -o yaml   # compare selectors with the labels"),
        Verdict::RefusedForUs(message) => Topic::Injection
            .error(place, format!("its next pods can't start because of the sidecar: {message}"))
            .fix(format!("{}   # until there is room for it", workload.opt_out())),
        Verdict::Refused(message) => {
            Topic::Injection.note(place, format!("not checked: its pods are refused without a sidecar as well: {message}"))
        }
        Verdict::Unknown(message) => Topic::Injection.warning(place, format!("not checked: {message}")),
    })
}

#[cfg(test)]
mod tests {
    use mirrord_session::TargetKind;
    use serde_json::json;

    use super::*;
    use crate::check::finding::Severity;

    fn workload(spec: &Value) -> Workload {
        let object = json!({ "metadata": { "name": "app", "namespace": "shop" }, "spec": { "template": { "spec": spec } } });
        Workload::new(TargetKind::Deployment, object).unwrap()
    }

    fn admitted(sidecar: bool, warnings: &[&str]) -> Answer {
        let status = r#"{"version":1,"containers":[{"name":"app","sidecar":"mirrord","port":20001}],"process_namespace":"shared"}"#;
        let mut pod = json!({
            "metadata": { "annotations": { STATUS_ANNOTATION: status } }, "spec": { "containers": [], "initContainers": [] },
        });
        if sidecar {
            pod["spec"]["initContainers"] =
                json!([{ "name": COPY, "image": "agent:1" }, { "name": "mirrord" }]);
        }
        Answer::Admitted {
            pod: Box::new(pod),
            warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn finding(spec: &Value, answer: Answer, opted_out: Option<Answer>) -> Finding {
        let workload = workload(spec);
        check(&[Attempt { workload: &workload, answer, opted_out }], true).remove(0)
    }

    #[test]
    fn an_annotation_without_the_sidecar_is_not_believed() {
        let spec = json!({});
        assert_eq!(finding(&spec, admitted(true, &[]), None).severity, Severity::Ok);
        assert_eq!(finding(&spec, admitted(false, &[]), None).severity, Severity::Error);
    }

    #[test]
    fn the_webhooks_own_reason_is_told() {
        let answer =
            admitted(false, &["deprecated: x", "mirrord: not injected: a LimitRange leaves no room"]);
        let finding = finding(&json!({}), answer, None);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.what.ends_with("get no sidecar: a LimitRange leaves no room"), "{finding:?}");
    }

    #[test]
    fn a_pod_on_the_nodes_network_is_not_the_webhooks_fault() {
        let finding = finding(&json!({ "hostNetwork": true }), admitted(false, &[]), None);
        assert!(finding.severity == Severity::Warning && finding.what.contains("hostNetwork"), "{finding:?}");
    }

    #[test]
    fn a_refusal_is_ours_only_where_the_pod_is_admitted_opted_out() {
        let refused = || Answer::Refused("exceeded quota".to_owned());
        let ours = finding(&json!({}), refused(), Some(admitted(false, &[])));
        assert!(
            ours.severity == Severity::Error && ours.what.contains("because of the sidecar: exceeded quota")
        );
        assert!(ours.fix.unwrap().starts_with("kubectl patch deployment/app -n shop"));
        let theirs = finding(&json!({}), refused(), Some(refused()));
        assert!(theirs.severity == Severity::Note && theirs.what.contains("not checked"), "{theirs:?}");
    }

    #[test]
    fn while_the_webhook_is_not_reached_no_workload_is_blamed() {
        let workload = workload(&json!({}));
        let attempt = Attempt { workload: &workload, answer: admitted(false, &[]), opted_out: None };
        assert!(check(&[attempt], false).is_empty());
    }
}
