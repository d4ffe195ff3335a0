//! The webhook's own goldens, before injection, sent to a real API server: admitted, and started where they can be.

use std::{fs, thread};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    namespace::Namespace,
    run::Run,
    shop,
};
use serde_json::{Value, json};

struct Golden {
    kind: String,
    about: Value,
    pod: Value,
}

fn goldens() -> Vec<Golden> {
    let folder = checkout().join("webhook/tests/goldens");
    let read =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap() };
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kinds = names.filter_map(|name| Some(name.strip_suffix(".pod.json")?.to_owned()));
    kinds
        .map(|kind| Golden {
            about: read(&format!("{kind}.about.json")),
            pod: read(&format!("{kind}.pod.json")),
            kind,
        })
        .collect()
}

#[test]
fn the_commonest_kinds_of_pods_are_admitted_and_start() {
    let goldens = goldens();
    assert!(goldens.len() >= 10, "the goldens are where they were");
    thread::scope(|scope| {
        let all: Vec<_> =
            goldens.iter().map(|golden| (golden, scope.spawn(|| admitted_and_started(golden)))).collect();
        let failed: Vec<_> = all
            .into_iter()
            .filter_map(|(golden, thread)| thread.join().is_err().then_some(&golden.kind))
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    });
}

fn admitted_and_started(golden: &Golden) {
    let labels =
        json!({"mirrord.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": golden.about["level"]});
    let namespace = Namespace::with_labels(&format!("golden-{}", golden.kind.replace('_', "-")), &labels);
    prepare(golden, namespace.name());
    let pod = at_home(&golden.pod, namespace.name()).to_string();

    let mut dry = cluster().kubectl(&["create", "--dry-run=server", "--output", "json", "--filename", "-"]);
    let answer = Run::with_input(&mut dry, pod.as_bytes()).succeeded();
    let admitted: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let injected = admitted.pointer("/metadata/annotations/mirrord.dev~1status").is_some();
    assert_eq!(injected, golden.about["outcome"] == "injected", "{}: {}", golden.kind, answer.story());

    if golden.about["start"] == true {
        let mut create = cluster().kubectl(&["create", "--filename", "-"]);
        let _ = Run::with_input(&mut create, pod.as_bytes()).succeeded();
        let condition = match golden.pod["spec"]["restartPolicy"].as_str() {
            Some("Never" | "OnFailure") => "--for=jsonpath={.status.phase}=Succeeded",
            _ => "--for=condition=Ready",
        };
        let wait = ["wait", condition, "pod/golden", "--namespace", namespace.name(), "--timeout=55s"];
        let waited = Run::of(&mut cluster().kubectl(&wait));
        if !waited.status.success() {
            let pod = cluster().run(&["describe", "pod", "golden", "--namespace", namespace.name()]);
            panic!("{}: {}\n{}", golden.kind, waited.story(), pod.text());
        }
    }
}

/// Objects that the pod mounts, and the namespace's LimitRange.
fn prepare(golden: &Golden, namespace: &str) {
    for need in golden.about["needs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (kind, name) = need.split_once('/').unwrap();
        let kind = match kind {
            "configmap" => "ConfigMap",
            "secret" => "Secret",
            "persistentvolumeclaim" => {
                claim(name, namespace);
                continue;
            }
            _ => continue,
        };
        cluster().apply(&json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "data": keys(golden)
        }));
    }
    if golden.about["limit_ranges"].is_array() {
        cluster().apply(&json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits", "namespace": namespace},
            "spec": {"limits": golden.about["limit_ranges"]},
        }));
    }
}

/// A volume of the node, and a claim to it.
fn claim(name: &str, namespace: &str) {
    // Left, and bound to a claim that is gone, by an earlier run.
    cluster().run(&["delete", "persistentvolume", namespace, "--ignore-not-found"]);
    let capacity = json!({"storage": "1Mi"});
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace},
        "spec": {
            "capacity": capacity, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "hostPath": {"path": format!("/run/{namespace}"), "type": "DirectoryOrCreate"},
        },
    }));
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "resources": {"requests": capacity}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "volumeName": namespace,
        },
    }));
}

/// Every key that the golden's containers name, with a value that is valid base64 too.
fn keys(golden: &Golden) -> Value {
    let mut keys = json!({});
    for variable in golden.pod["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["env"].as_array())
        .flatten()
    {
        for reference in ["secretKeyRef", "configMapKeyRef"] {
            if let Some(key) = variable["valueFrom"][reference]["key"].as_str() {
                keys[key] = "aGVsbG8=".into();
            }
        }
    }
    // A key that is mounted as a file, and missing, would become a folder.
    for mount in golden.pod["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["volumeMounts"].as_array())
        .flatten()
    {
        if let Some(key) = mount["subPath"].as_str() {
            keys[key] = "aGVsbG8=".into();
        }
    }
    keys
}

/// The pod as it may stand in this cluster: in our namespace, without the owner that isn't here, from an image that is,
/// and doing nothing.
fn at_home(pod: &Value, namespace: &str) -> Value {
    let mut pod = pod.clone();
    let metadata = &mut pod["metadata"];
    metadata["namespace"] = namespace.into();
    metadata["name"] = "golden".into();
    for field in ["generateName", "ownerReferences"] {
        metadata.as_object_mut().unwrap().remove(field);
    }
    let image = cluster().image_of("checkout", shop::NAMESPACE);
    let ends = matches!(pod["spec"]["restartPolicy"].as_str(), Some("Never" | "OnFailure"));
    for (list, first) in [("containers", true), ("initContainers", false)] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let stays = if first { !ends } else { container["restartPolicy"] == "Always" };
            container["image"] = image.clone().into();
            container["command"] = if stays { json!(["sleep", "infinity"]) } else { json!(["true"]) };
            let container = container.as_object_mut().unwrap();
            for field in
                ["args", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "imagePullPolicy"]
            {
                container.remove(field);
            }
        }
    }
    pod["spec"].as_object_mut().unwrap().remove("imagePullSecrets");
    pod
}
