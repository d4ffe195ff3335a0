//! The installation's keys are replaced beneath pods that were injected before, a workload at work and a developer who uses it.
//! This concerns everybody, so it is a program of its own.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    developer::Developer,
    namespace::{Namespace, USUAL},
    outage,
    run::{Run, until},
    scene::Scene,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

/// Nothing here takes longer, but where a slow kubelet is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// A kubelet looks at a pod's Secrets once a minute, and a half more by chance; or when the pod changes.
const KUBELET: Duration = Duration::from_secs(100);

fn secret(name: &str) -> Value {
    cluster().get(&["secret", name, "--namespace", "mirrord"])
}

fn annotate(secret: &str, annotation: &str) {
    cluster().run(&["annotate", "secret", secret, annotation, "--overwrite", "--namespace", "mirrord"]);
}

/// Waits until a Secret that an admin wants rotated holds something else under a key, and gives both values.
fn rotated(name: &str, key: &str) -> (Value, Value) {
    let before = secret(name)["data"][key].clone();
    annotate(name, "mirrord.dev/rotate=now");
    let after = until(PATIENCE, "another key", || {
        let now = secret(name);
        let done = now["metadata"]["annotations"].get("mirrord.dev/rotate").is_none();
        (done && now["data"][key] != before).then(|| now["data"][key].clone())
    });
    (before, after)
}

/// Waits until the webhooks' configuration starts with this certificate: base64 of its PEM.
fn until_the_bundle_starts_with(certificate: &Value) {
    until(PATIENCE, "the webhook configuration to carry the new authority", || {
        let configuration = cluster().get(&["mutatingwebhookconfiguration", "mirrord"]);
        let mut entries = configuration["webhooks"].as_array().unwrap().iter();
        let certificate = certificate.as_str().unwrap().trim_end_matches('=');
        let starts = |entry: &Value| {
            entry["clientConfig"]["caBundle"]
                .as_str()
                .is_some_and(|it| it.starts_with(&certificate[..certificate.len() - 4]))
        };
        entries.all(starts).then_some(())
    });
}

/// Puts an authority as of a company's PKI, without our constraints, into a Secret.
fn supply(name: &str) -> Value {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Example Ltd.");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).unwrap().pem();
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": "mirrord"},
        "stringData": {"tls.crt": certificate, "tls.key": key.serialize_pem()},
    }));
    secret(name)["data"]["tls.crt"].clone()
}

/// Has others make the authority, or us again.
fn supplied_by(name: &str) {
    let value = format!("certificates.secretName={name}");
    let arguments =
        ["upgrade", "mirrord", "charts/mirrord", "--namespace", "mirrord", "--reuse-values", "--set", &value];
    let waiting = ["--wait", "--timeout", "60s"];
    let mut helm = cluster().helm(&[&arguments[..], &waiting].concat());
    let _ = Run::of(helm.current_dir(checkout())).succeeded();
}

/// Authorities on the command lines of a namespace's sidecars, by app.
fn trusted(namespace: &str) -> BTreeMap<String, String> {
    let pods = cluster().get(&["pods", "--namespace", namespace]);
    let trusted = pods["items"].as_array().unwrap().iter().filter_map(|pod| {
        let containers = pod["spec"]["initContainers"].as_array()?;
        let command = containers.iter().find(|it| it["name"] == "mirrord")?["command"].as_array()?;
        let at = command.iter().position(|word| word == "--ca")?;
        let app = pod["metadata"]["labels"]["app"].as_str()?;
        Some((app.to_owned(), command[at + 1].as_str()?.to_owned()))
    });
    trusted.collect()
}

/// How many of the routers' folders hold a key of this name, as kubelet has put it there.
fn folders_with(key: &str) -> usize {
    let find =
        format!("ls /var/lib/kubelet/pods/*/volumes/kubernetes.io~projected/gate/{key} 2>/dev/null || :");
    cluster().on_node(&["sh", "-c", &find]).text().lines().count()
}

#[test]
fn new_keys_are_taken_on_by_all_and_sessions_and_old_pods_go_on() {
    if !cluster().has_node("looking into the routers' folders") {
        return;
    }
    let scene = Scene::begin("rotation");
    let namespace = &scene.namespace;
    // Nothing of another session's is used.
    let works = |workload: &str| Developer::new(namespace.name()).sees_the_pods_file(workload);

    let (old, new) = rotated("mirrord-ca", "tls.crt");
    until_the_bundle_starts_with(&new);
    assert_eq!(secret("mirrord-ca")["data"]["previous.crt"], old);
    scene.program.goes_on();
    works("deployment/app");
    namespace.deploy("later", |_| ());
    namespace.allow_all(&USUAL);
    let trusted = trusted(namespace.name());
    assert_ne!(trusted["app"], trusted["later"], "a new pod trusts the new authority");
    works("deployment/later");

    // Who starts now has never seen the old key.
    outage::kill("webhook");
    outage::until_asked();
    works("deployment/app");
    works("deployment/later");

    let (current, next) = {
        let before = secret("mirrord-gate")["data"]["current"].clone();
        (before, rotated("mirrord-gate", "next").1)
    };
    assert_eq!(secret("mirrord-gate")["data"]["current"], current, "it doesn't sign before it is known");
    works("deployment/app");
    let routers = ["-l", "app.kubernetes.io/component=ingress", "--namespace", "mirrord"];
    cluster().run(&[&["annotate", "pods", "--overwrite", "e2e/look=now"][..], &routers].concat());
    until(KUBELET, "both routers to have the next key", || (folders_with("next") == 2).then_some(()));
    cluster().run(&[&["annotate", "pods", "e2e/look-"][..], &routers].concat());
    // As if it had been there for an hour.
    let hour_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 3600;
    annotate("mirrord-gate", &format!("mirrord.dev/rotated={}", rfc3339(hour_ago)));
    until(PATIENCE, "the next key to sign", || {
        let data = &secret("mirrord-gate")["data"];
        (data["current"] == next && data["previous"] == current).then_some(())
    });
    scene.program.goes_on();
    works("deployment/app");
    works("deployment/later");

    others_take_over_renew_and_hand_back(namespace, &works);
    scene.program.goes_on();
    assert_eq!(scene.program.failures(), [""; 0], "a session that stands notices nothing");
    scene.pod_was_left_alone();
    scene.service_lost_nothing();
    scene.program.saw_nothing_wrong();
}

/// As where a company's PKI has to make the authority.
fn others_take_over_renew_and_hand_back(namespace: &Namespace, works: &dyn Fn(&str)) {
    let of_others = "corporate-ca";
    let first = supply(of_others);
    supplied_by(of_others);
    until_the_bundle_starts_with(&first);
    works("deployment/app");
    works("deployment/later");
    namespace.deploy("latest", |_| ());
    namespace.allow_all(&USUAL);
    works("deployment/latest");
    let second = supply(of_others);
    until_the_bundle_starts_with(&second);
    works("deployment/app");
    works("deployment/latest");
    supplied_by("");
    assert_eq!(secret("mirrord-ca")["data"]["tls.crt"], second, "what is in use stays");
    let (_, own) = rotated("mirrord-ca", "tls.crt");
    until_the_bundle_starts_with(&own);
    works("deployment/app");
    works("deployment/latest");
    cluster().run(&["delete", "secret", of_others, "--namespace", "mirrord"]);
}

/// A moment as Kubernetes writes it.
fn rfc3339(seconds: u64) -> String {
    let date = std::process::Command::new("date")
        .args(["--utc", "--date", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}
