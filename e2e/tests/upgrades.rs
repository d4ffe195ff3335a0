//! The chart is upgraded, rolled back, uninstalled and installed again beneath pods that were injected before, a workload at work
//! and a developer who uses it. This concerns everybody, so it is a program of its own.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, time::Duration};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    developer::Developer,
    outage::{self, Dropped},
    run::{Run, eventually, until},
    scene::Scene,
};
use serde_json::{Value, json};

const SECRETS: [&str; 2] = ["mirrord-ca", "mirrord-gate"];

fn helm(arguments: &[&str]) -> Run {
    let mut helm = cluster().helm(arguments);
    Run::of(helm.args(["--namespace", "mirrord"]).current_dir(checkout()))
}

/// The installation as it was found, values and keys; it is so again in the end.
struct Installation {
    values: tempfile::NamedTempFile,
    secrets: Vec<Value>,
}

impl Installation {
    fn found() -> Self {
        let values = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            values.path(),
            helm(&["get", "values", "mirrord", "--output", "json"]).succeeded().stdout,
        )
        .unwrap();
        Self { values, secrets: SECRETS.map(secret).to_vec() }
    }

    fn install(&self, more: &[&str]) -> Run {
        let values = self.values.path().to_str().unwrap();
        let usual = [
            "upgrade",
            "--install",
            "mirrord",
            "charts/mirrord",
            "--values",
            values,
            "--wait",
            "--timeout",
            "55s",
        ];
        helm(&[&usual[..], more].concat())
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = self.install(&[]).succeeded();
        for (name, data) in SECRETS.iter().zip(&self.secrets) {
            if secret(name) == *data {
                continue;
            }
            let patch = json!({ "data": data }).to_string();
            cluster().run(&[
                "patch",
                "secret",
                name,
                "--namespace",
                "mirrord",
                "--type=merge",
                "--patch",
                &patch,
            ]);
            let restart =
                ["deployment/mirrord-webhook", "deployment/mirrord-ingress", "--namespace", "mirrord"];
            cluster().run(&[&["rollout", "restart"][..], &restart].concat());
            cluster().run(&["rollout", "status", restart[0], "--namespace", "mirrord", "--timeout=55s"]);
            cluster().run(&["rollout", "status", restart[1], "--namespace", "mirrord", "--timeout=55s"]);
        }
    }
}

fn secret(name: &str) -> Value {
    cluster().get(&["secret", name, "--namespace", "mirrord"])["data"].clone()
}

/// All objects of the cluster that bear our name, in any namespace, but Events and what is about to end.
fn ours() -> BTreeSet<String> {
    let kinds = cluster().run(&["api-resources", "--verbs=list", "--output=name"]).text();
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,\
                   ENDS:.metadata.deletionTimestamp";
    let get = ["get", &kinds.join(","), "--all-namespaces", "--no-headers", "--output", columns];
    let all = cluster().run(&get).text();
    let ours = all.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, namespace, name, "<none>"] = words.as_slice() else { return None };
        let is_ours = name.contains("mirrord")
            || (*namespace == "mirrord" && *kind != "ConfigMap" && *name != "default");
        is_ours.then(|| format!("{kind} {name}"))
    });
    ours.collect()
}

#[test]
fn pods_of_before_are_used_through_upgrade_rollback_and_reinstallation_and_named_when_their_keys_are_gone() {
    if !cluster().has_node("taking the whole installation away") {
        return;
    }
    let installation = Installation::found();
    let scene = Scene::begin("upgrades");
    let developer = Developer::new(scene.namespace.name());

    // Both parts are rolled out anew.
    let change = ["--set", "webhook.log=debug,ingress.log=debug"];
    let _ = installation.install(&change).succeeded();
    scene.program.goes_on();
    let _ = helm(&["rollback", "mirrord", "--wait", "--timeout", "55s"]).succeeded();
    scene.program.goes_on();
    assert_eq!(scene.program.failures(), [""; 0], "a rollout is no outage");
    developer.sees_the_pods_file("deployment/app");

    let _ = helm(&["uninstall", "mirrord", "--wait", "--timeout", "55s"]).succeeded();
    // The ingress goes in the same moment. Where the sidecar's farewell is lost by that, the client hears it from the API server.
    let end = scene.program.end(Duration::from_secs(50));
    assert!(end.contains("was deleted") || end.contains("mirrord is no longer installed"), "{end}");
    let documented = [
        "APIService v1alpha1.mirrord.dev",
        "CustomResourceDefinition sessions.mirrord.dev",
        "Namespace mirrord",
        "Secret mirrord-ca",
        "Secret mirrord-gate",
    ];
    // Of `helm test`, which another test ran; it isn't part of the release.
    cluster().run(&["delete", "pod", "mirrord-test", "--namespace", "mirrord", "--ignore-not-found"]);
    // What ends by itself may take a moment.
    let _ = eventually(Duration::from_secs(40), || ours().iter().map(String::as_str).eq(documented));
    assert_eq!(ours().into_iter().collect::<Vec<_>>(), documented, "the chart's README lists what stays");
    let refused = developer.exec("deployment/app", ["true"]);
    let _ = refused.failed_with(69, &["without asking mirrord's webhook", "uninstalled"]);
    scene.pod_was_left_alone();

    let _ = installation.install(&[]).succeeded();
    outage::until_asked();
    assert_eq!(SECRETS.map(secret).to_vec(), installation.secrets, "the same keys");
    developer.sees_the_pods_file("deployment/app");

    let program = scene.another_program();
    let (address, port) = scene.sidecar_door();
    let unheard = Dropped::words(&address, port);
    let _ = helm(&["uninstall", "mirrord", "--wait", "--timeout", "55s"]).succeeded();
    let end = program.end(Duration::from_secs(50));
    assert!(end.contains("mirrord is no longer installed"), "no farewell comes through: {end}");
    drop(unheard);
    program.saw_nothing_wrong();
    cluster().run(&["delete", "secret", "mirrord-ca", "mirrord-gate", "--namespace", "mirrord"]);
    let _ = installation.install(&[]).succeeded();
    outage::until_asked();
    let restart = format!("kubectl rollout restart deployment/app -n {}", scene.namespace.name());
    // API servers heed a new caBundle after a moment.
    let told = until(Duration::from_secs(40), "the API server to believe the new authority", || {
        let run = developer.exec("deployment/app", ["true"]);
        (run.status.code() != Some(69)).then_some(run)
    });
    let _ = told.failed_with(66, &["another certificate authority", &restart]);
    scene.pod_was_left_alone();
    scene.service_lost_nothing();
    scene.program.saw_nothing_wrong();
    let namespace = ["--namespace", scene.namespace.name()];
    cluster().run(&[&["rollout", "restart", "deployment/app"][..], &namespace].concat());
    cluster().run(&[&["rollout", "status", "deployment/app", "--timeout=55s"][..], &namespace].concat());
    developer.sees_the_pods_file("deployment/app");
}
