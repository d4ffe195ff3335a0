//! What injection's choice of a process namespace means for workloads: who is process 1, and whether sessions see the
//! application as it runs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use mirrord_session::PROCESS_NAMESPACE_ANNOTATION;
use serde_json::{Value, json};

use super::{
    finding::{Finding, Topic, some_of},
    injection::{Attempt, Verdict, status},
    workload::Workload,
};

const SHARED: &str = "the application is not process 1 of its pods, which share their processes with the sidecar: `kill 1` in \
                      a hook, a probe or `kubectl exec` means the pause process";
const ISOLATED: &str = "sessions see environment and files as the pods' specification gives them, not what the application has \
                        changed since (no live view): an init system has to be process 1, and pods of StatefulSets are \
                        isolated by default";

/// Judges the pods that would be injected.
#[must_use]
pub fn check(attempts: &[Attempt<'_>]) -> Vec<Finding> {
    let mut groups: BTreeMap<(&str, bool), Vec<&Workload>> = BTreeMap::new();
    let mut findings = Vec::new();
    for attempt in attempts {
        let Verdict::Injected(pod) = attempt.verdict() else { continue };
        let Some(shared) = decided_by_us(attempt.workload, &pod) else { continue };
        groups.entry((&attempt.workload.namespace, shared)).or_default().push(attempt.workload);
        if shared {
            findings.extend(signals(attempt.workload));
        }
    }
    let grouped = groups.into_iter().map(|((namespace, shared), workloads)| {
        let names: Vec<String> = workloads.iter().map(|workload| workload.target()).collect();
        let (what, other) = if shared { (SHARED, "isolated") } else { (ISOLATED, "shared") };
        let finding =
            Topic::Processes.note(format!("namespace {namespace}"), format!("{what}: {}", some_of(&names)));
        workloads.first().map_or(finding.clone(), |first| finding.fix(annotate(first, other)))
    });
    grouped.collect::<Vec<_>>().into_iter().chain(findings).collect()
}

/// Whether processes are shared; `None` where the workload's author has said so.
fn decided_by_us(workload: &Workload, pod: &Pod) -> Option<bool> {
    if !workload.template()["spec"]["shareProcessNamespace"].is_null()
        || ["shared", "isolated"].iter().any(|mode| {
            pod.annotations().get(PROCESS_NAMESPACE_ANNOTATION).is_some_and(|annotation| annotation == mode)
        })
    {
        return None;
    }
    Some(status(pod)?.process_namespace == "shared")
}

/// The line that decides otherwise.
fn annotate(workload: &Workload, mode: &str) -> String {
    let annotations = json!({ PROCESS_NAMESPACE_ANNOTATION: mode });
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
    format!("kubectl patch {} -p '{patch}'   # restarts it", workload.place())
}

/// A workload whose own commands speak of process 1.
fn signals(workload: &Workload) -> Option<Finding> {
    let mut commands = Vec::new();
    for container in workload.template()["spec"]["containers"].as_array().into_iter().flatten() {
        commands.extend([words(&container["command"]), words(&container["args"])]);
        for at in [
            "/lifecycle/postStart/exec/command",
            "/lifecycle/preStop/exec/command",
            "/livenessProbe/exec/command",
            "/readinessProbe/exec/command",
            "/startupProbe/exec/command",
        ] {
            commands.extend(container.pointer(at).map(words));
        }
    }
    let command = commands.into_iter().find(|command| means_process_1(command))?;
    let what =
        format!("a command of its containers speaks of process 1, which is the pause process: `{command}`");
    Some(Topic::Processes.warning(workload.place(), what).fix(annotate(workload, "isolated")))
}

fn words(list: &Value) -> String {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

fn means_process_1(command: &str) -> bool {
    if command.contains("/proc/1/") {
        return true;
    }
    let separates = |letter: char| letter.is_whitespace() || ";&|()'\"`".contains(letter);
    let tokens: Vec<&str> = command.split(separates).filter(|token| !token.is_empty()).collect();
    let is_kill = |token: &str| token == "kill" || token.ends_with("/kill");
    tokens.iter().enumerate().filter(|(_, token)| is_kill(token)).any(|(at, _)| {
        let mut rest = tokens[at + 1..].iter();
        loop {
            match rest.next() {
                // Its signal follows.
                Some(&"-s") => drop(rest.next()),
                Some(option) if option.starts_with('-') => {}
                target => return target == Some(&"1"),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use mirrord_session::TargetKind;

    use super::*;
    use crate::check::{dry_run::Answer, finding::Severity};

    fn findings(kind: TargetKind, spec: &Value, process_namespace: &str) -> Vec<Finding> {
        let object = json!({ "metadata": { "name": "app", "namespace": "shop" }, "spec": { "template": { "spec": spec } } });
        let workload = Workload::new(kind, object).unwrap();
        let status = format!(
            r#"{{"version":1,"containers":[{{"name":"app","sidecar":"mirrord","port":1}}],"process_namespace":"{process_namespace}"}}"#
        );
        let pod = json!({
            "metadata": { "annotations": { "mirrord.dev/status": status } },
            "spec": { "containers": [], "initContainers": [{ "name": "mirrord" }] },
        });
        let answer = Answer::Admitted { pod: Box::new(pod), warnings: vec![] };
        check(&[Attempt { workload: &workload, answer, opted_out: None }])
    }

    #[test]
    fn sharing_is_a_note_with_the_line_that_ends_it() {
        let found = findings(TargetKind::Deployment, &json!({}), "shared");
        assert_eq!(found.len(), 1);
        assert!(found[0].severity == Severity::Note && found[0].what.contains("not process 1"), "{found:?}");
        assert!(found[0].fix.as_ref().unwrap().contains(r#""mirrord.dev/process-namespace":"isolated""#));
    }

    #[test]
    fn isolation_by_default_is_a_note_with_the_line_that_ends_it() {
        let found = findings(TargetKind::StatefulSet, &json!({}), "isolated");
        assert!(found[0].what.contains("no live view"), "{found:?}");
        assert!(found[0].fix.as_ref().unwrap().contains(r#""mirrord.dev/process-namespace":"shared""#));
    }

    #[test]
    fn what_the_author_decided_is_not_commented() {
        assert_eq!(findings(TargetKind::Deployment, &json!({ "shareProcessNamespace": true }), "shared"), []);
    }

    #[test]
    fn a_hook_that_signals_process_1_is_a_warning() {
        let hook = json!({ "preStop": { "exec": { "command": ["sh", "-c", "kill -s QUIT 1; sleep 5"] } } });
        let found =
            findings(TargetKind::Deployment, &json!({ "containers": [{ "lifecycle": hook }] }), "shared");
        assert!(
            found.iter().any(|it| it.severity == Severity::Warning && it.what.contains("kill -s QUIT 1")),
            "{found:?}"
        );
    }

    #[test]
    fn commands_that_mean_process_1_are_told_from_others() {
        for command in
            ["kill 1", "/bin/kill -TERM 1", "sh -c kill -9 1", "cat /proc/1/environ", "(kill -s HUP 1)"]
        {
            assert!(means_process_1(command), "{command}");
        }
        for command in
            ["kill 12", "skill 1", "sleep 1", "kill $(cat /run/pid)", "kill -1 77", "cat /proc/12/environ"]
        {
            assert!(!means_process_1(command), "{command}");
        }
    }
}
