//! What holds for every pod, also for those that nobody would write.

use std::sync::LazyLock;

use mirrord_webhook::injection::{Limits, review};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use crate::{
    answered,
    goldens::{Golden, goldens},
    patched, reviewed, settings,
};

/// Any JSON, with the keys of pods among its own.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        select(vec!["", "app", "mirrord", "1", "100m", "Always", "\u{e9}\"\\", "/.mirrord"])
            .prop_map(Value::from),
    ];
    let key = select(vec![
        "name",
        "metadata",
        "spec",
        "containers",
        "annotations",
        "mirrord.dev/status",
        "resources",
        "limits",
        "cpu",
        "env",
        "volumeMounts",
        "mountPath",
        "valueFrom",
        "resourceFieldRef",
        "command",
    ]);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key.clone(), inner), 0..4).prop_map(|entries| {
                Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

fn resources() -> impl Strategy<Value = Value> {
    let amounts = || {
        let amount = || option::of(select(vec!["10m", "1", "1500m", "64Mi", "2Gi"]));
        (amount(), amount(), amount()).prop_map(|(cpu, memory, device)| {
            object([("cpu", cpu), ("memory", memory), ("example.com/device", device)])
        })
    };
    (amounts(), amounts()).prop_map(|(requests, limits)| json!({"requests": requests, "limits": limits}))
}

fn object<T: Into<Value>, const N: usize>(entries: [(&str, Option<T>); N]) -> Value {
    let entries = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn container(name: &'static str) -> impl Strategy<Value = Value> {
    let env = json!([{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]);
    let mounts = json!([{"name": "data", "mountPath": "/data", "mountPropagation": "None", "newer": [1.0]}]);
    (
        option::of(Just(env)),
        option::of(Just(mounts)),
        resources(),
        option::of(20_000_u16..20_004),
        option::of(0_u32..3),
        option::of(select(vec!["/init", "sh", "server"])),
    )
        .prop_map(move |(env, mounts, resources, port, user, command)| {
            let mut container = object([
                ("env", env),
                ("volumeMounts", mounts),
                ("ports", port.map(|port| json!([{"containerPort": port}]))),
                ("securityContext", user.map(|user| json!({"runAsUser": user, "privileged": true}))),
                ("command", command.map(|command| json!([command]))),
            ]);
            container["name"] = json!(name);
            container["image"] = json!("app:1");
            container["resources"] = resources;
            container
        })
}

fn pod() -> impl Strategy<Value = Value> {
    let annotations = (
        option::of(select(vec!["a", "b,a", "c"])),
        option::of(select(vec!["auto", "shared", "isolated", "?"])),
        option::of(select(vec!["cache", ""])),
    )
        .prop_map(|(containers, mode, evictable)| {
            object([
                ("mirrord.dev/containers", containers),
                ("mirrord.dev/process-namespace", mode),
                ("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", evictable),
            ])
        });
    (
        option::of(annotations),
        container("a"),
        container("b"),
        option::of(vec(container("earlier"), 0..2)),
        option::of(any::<bool>()),
        option::of(Just(json!([{"name": "data", "emptyDir": {}}]))),
        any_json(),
    )
        .prop_map(|(annotations, a, b, init, share, volumes, newer)| {
            let mut metadata = object([("annotations", annotations)]);
            metadata["generateName"] = json!("app-");
            let mut spec = object([
                ("initContainers", init.map(Value::from)),
                ("shareProcessNamespace", share.map(Value::from)),
                ("volumes", volumes),
            ]);
            spec["containers"] = json!([a, b]);
            spec["newerThanThisBuild"] = newer;
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec})
        })
}

/// Whether everything that was there still is, the two values aside that are extended or overruled on demand.
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
        (Value::Bool(true), Value::Bool(false)) => path == "/spec/shareProcessNamespace",
        (after, before) => after == before,
    }
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
    fn a_patch_only_adds_and_no_application_container_changes(pod in pod()) {
        let Some(patch) = reviewed(&pod, &[]).patch else { return Ok(()) };
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
    fn asked_again_about_its_own_work_it_changes_nothing(pod in pod()) {
        let Some(patch) = reviewed(&pod, &[]).patch else { return Ok(()) };
        let again = reviewed(&patched(&pod, &patch), &[]);
        prop_assert_eq!(again.label, "already_injected");
        prop_assert!(again.patch.is_none() && again.warnings.is_empty());
    }

    #[test]
    fn sidecars_have_names_and_ports_of_their_own(pod in pod()) {
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
