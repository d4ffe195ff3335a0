//! What holds for every pod, also for those that nobody would write.

use std::sync::LazyLock;

use mirrord_webhook::injection::{Limits, review};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use crate::{
    answered,
    goldens::{Golden, goldens},
    patched,
    pods::{any_json, limit_ranges, pod, quality},
    reviewed, settings,
};

/// Whether everything that was there still is, the values aside that are extended, overruled on demand, or our own.
fn contains(after: &Value, before: &Value, path: &str) -> bool {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => before.iter().all(|(key, value)| {
            after.get(key).is_some_and(|after| contains(after, value, &format!("{path}/{key}")))
        }),
        (Value::Array(after), Value::Array(before))
            if path == "/spec/initContainers" || path == "/spec/volumes" =>
        {
            after.starts_with(before)
        }
        (Value::String(after), Value::String(before)) if path.ends_with("safe-to-evict-local-volumes") => {
            after.starts_with(before.as_str())
        }
        // A claim that the pod doesn't bear out.
        (Value::String(_), Value::String(_)) if path.ends_with("/mirrord.dev/status") => true,
        (Value::Bool(true), Value::Bool(false)) => path == "/spec/shareProcessNamespace",
        (after, before) => after == before,
    }
}

/// A field of all entries of a list.
fn entries<'v>(list: &'v Value, field: &'v str) -> impl Iterator<Item = &'v Value> {
    list.as_array().into_iter().flatten().map(move |entry| &entry[field])
}

fn differ<'v>(values: impl Iterator<Item = &'v Value>) -> bool {
    let texts: Vec<String> = values.map(Value::to_string).collect();
    texts.iter().collect::<std::collections::BTreeSet<_>>().len() == texts.len()
}

/// The pointer to somewhere in a document.
fn place(document: &Value, steps: &[prop::sample::Index]) -> String {
    let mut pointer = String::new();
    let mut here = document;
    for step in steps {
        let next = match here {
            Value::Object(map) if !map.is_empty() => map.iter().nth(step.index(map.len())),
            _ => None,
        };
        let (key, below) = match (next, here) {
            (Some((key, below)), _) => (key.replace('~', "~0").replace('/', "~1"), below),
            (None, Value::Array(list)) if !list.is_empty() => {
                let at = step.index(list.len());
                (at.to_string(), &list[at])
            }
            _ => break,
        };
        pointer = format!("{pointer}/{key}");
        here = below;
    }
    pointer
}

proptest! {
    #[test]
    fn a_patch_only_adds_and_no_application_container_changes(pod in pod(), ranges in limit_ranges()) {
        let Some(patch) = reviewed(&pod, &ranges).patch else { return Ok(()) };
        prop_assert!(patch.as_array().unwrap().iter().all(|operation| operation["op"] == "add"));
        let after = patched(&pod, &patch);
        prop_assert!(contains(&after, &pod, ""));
        prop_assert_eq!(after["spec"]["containers"].to_string(), pod["spec"]["containers"].to_string());
        let overruled = after["spec"]["shareProcessNamespace"] != pod["spec"]["shareProcessNamespace"]
            && pod["spec"].get("shareProcessNamespace").is_some();
        let mode = &pod["metadata"]["annotations"]["mirrord.dev/process-namespace"];
        prop_assert!(!overruled || mode == "shared");
    }

    #[test]
    fn asked_again_about_its_own_work_it_changes_nothing(pod in pod(), ranges in limit_ranges()) {
        let Some(patch) = reviewed(&pod, &ranges).patch else { return Ok(()) };
        let mut after = patched(&pod, &patch);
        let again = reviewed(&after, &ranges);
        prop_assert_eq!(again.label, "already_injected");
        prop_assert!(again.patch.is_none() && again.warnings.is_empty());
        // Nor where another webhook has added a sidecar of its own in the meantime, before or behind ours.
        let theirs = json!({"name": "mesh", "image": "mesh", "restartPolicy": "Always"});
        let containers = after["spec"]["initContainers"].as_array_mut().unwrap();
        containers.insert(0, theirs.clone());
        containers.push(theirs);
        prop_assert_eq!(reviewed(&after, &ranges).label, "already_injected");
    }

    #[test]
    fn a_pod_keeps_its_quality_of_service(pod in pod(), ranges in limit_ranges()) {
        let Some(patch) = reviewed(&pod, &ranges).patch else { return Ok(()) };
        prop_assert_eq!(quality(&patched(&pod, &patch)), quality(&pod));
    }

    #[test]
    fn whoever_can_t_have_a_sidecar_is_admitted_as_is(pod in pod()) {
        let answer = reviewed(&pod, &[]);
        let never = pod["spec"]["hostNetwork"] == true
            || pod["spec"]["os"]["name"] == "windows"
            || pod["metadata"]["labels"]["mirrord.dev/inject"] == "disabled";
        prop_assert!(!never || answer.patch.is_none(), "{}", answer.label);
    }

    #[test]
    fn sidecars_have_names_ports_and_mounts_of_their_own(pod in pod()) {
        let Some(patch) = reviewed(&pod, &[]).patch else { return Ok(()) };
        let after = patched(&pod, &patch);
        let status = after["metadata"]["annotations"]["mirrord.dev/status"].as_str().unwrap();
        let status: Value = serde_json::from_str(status).unwrap();
        let declared: Vec<&Value> = ["a", "b"]
            .iter()
            .enumerate()
            .map(|(at, _)| &pod["spec"]["containers"][at]["ports"][0]["containerPort"])
            .collect();
        let twins = status["containers"].as_array().unwrap();
        for (at, twin) in twins.iter().enumerate() {
            prop_assert!(!declared.contains(&&twin["port"]));
            prop_assert!(twins[..at].iter().all(|other| other["port"] != twin["port"] && other["sidecar"] != twin["sidecar"]));
        }
        // The API server refuses two containers or volumes of one name, and two mounts at one place.
        let spec = &after["spec"];
        prop_assert!(differ(["initContainers", "containers"].iter().flat_map(|list| entries(&spec[*list], "name"))));
        prop_assert!(differ(entries(&spec["volumes"], "name")));
        for container in spec["initContainers"].as_array().unwrap() {
            prop_assert!(differ(entries(&container["volumeMounts"], "mountPath")));
        }
    }

    #[test]
    fn any_bytes_get_an_answer_that_allows(body in vec(any::<u8>(), 0..256)) {
        let answer = answered(&review(&body, &settings(), |_| Limits::default()));
        prop_assert_eq!(answer.label, "unreadable_review");
    }

    #[test]
    fn any_json_in_a_pods_place_gets_an_answer_that_allows(pod in any_json()) {
        reviewed(&pod, &[]);
    }

    #[test]
    fn any_json_anywhere_in_a_golden_gets_an_answer_that_allows(
        at in any::<prop::sample::Index>(),
        path in vec(any::<prop::sample::Index>(), 1..8),
        value in any_json(),
    ) {
        static GOLDENS: LazyLock<Vec<Golden>> = LazyLock::new(goldens);
        let mut pod = at.get(&GOLDENS).pod.clone();
        let place = place(&pod, &path);
        *pod.pointer_mut(&place).unwrap() = value;
        reviewed(&pod, &[]);
    }
}
