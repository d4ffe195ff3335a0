//! Exit codes are those of `mirrord --help`: 64 usage, 66 target, 69 unreachable, 77 not granted.

use std::fs;

use mirrord_e2e::{
    cluster::cluster,
    developer::Developer,
    namespace::{Namespace, USUAL},
    run::Run,
    shop::{CHECKOUT, NAMESPACE},
};
use serde_json::json;

#[test]
fn without_a_target_mirrord_says_how_to_name_one() {
    let developer = Developer::new(NAMESPACE);
    let run = Run::of(&mut developer.mirrord(["exec", "-n", NAMESPACE, "--", "true"]));
    let _ = run.failed_with(64, &["target", "-t"]);
}

#[test]
fn a_target_that_is_not_there_is_named_with_its_neighbour() {
    let run = Developer::new(NAMESPACE).exec("deployment/chekout", ["true"]);
    let _ = run.failed_with(66, &["deployment/chekout", "did you mean deployment/checkout"]);
}

#[test]
fn a_namespace_that_never_opted_in_gets_both_lines_that_mend_it() {
    let namespace = Namespace::plain("no-label");
    namespace.allow("deployment.app", &USUAL);
    namespace.deploy("app", |_| ());
    let run = Developer::new(namespace.name()).exec("deployment/app", ["true"]);
    let label = format!("kubectl label namespace {} mirrord.dev/inject=enabled", namespace.name());
    let restart = format!("kubectl rollout restart deployment/app -n {}", namespace.name());
    let _ = run.failed_with(66, &[&label, &restart]);
}

#[test]
fn pods_older_than_the_label_need_a_restart_and_mirrord_says_so() {
    let namespace = Namespace::plain("no-restart");
    namespace.allow("deployment.app", &USUAL);
    namespace.deploy("app", |_| ());
    cluster().run(&["label", "namespace", namespace.name(), "mirrord.dev/inject=enabled"]);
    let run = Developer::new(namespace.name()).exec("deployment/app", ["true"]);
    let restart = format!("kubectl rollout restart deployment/app -n {}", namespace.name());
    let _ = run.failed_with(66, &["has a mirrord sidecar", &restart]);
}

#[test]
fn a_verb_that_was_not_granted_is_named() {
    let namespace = Namespace::opted_in("few-rights");
    namespace.deploy("app", |_| ());
    namespace.allow("deployment.other", &USUAL);
    let run = Developer::new(namespace.name()).exec("deployment/app", ["true"]);
    let _ = run.failed_with(77, &["developer", "deployment.app"]);
}

#[test]
fn whoever_may_not_create_sessions_is_told_which_right_is_missing() {
    let namespace = Namespace::opted_in("no-rights");
    let run = Developer::new(namespace.name()).exec("deployment/app", ["true"]);
    let _ = run.failed_with(77, &["create sessions.mirrord.dev", namespace.name()]);
}

#[test]
fn mounted_secrets_and_tokens_take_the_verb_secrets() {
    let namespace = Namespace::opted_in("secrets");
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": namespace.name()},
        "stringData": {"key": "sk-1234"},
    }));
    namespace.deploy("app", |deployment| {
        let pod = &mut deployment["spec"]["template"]["spec"];
        pod["volumes"] = json!([{"name": "key", "secret": {"secretName": "key"}}]);
        pod["containers"][0]["volumeMounts"] = json!([{"name": "key", "mountPath": "/etc/key"}]);
    });
    namespace.allow("deployment.app", &USUAL);
    let developer = Developer::new(namespace.name());
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    for path in ["/etc/key/key", "/etc/key/..data/key", token] {
        let denied = developer.exec("deployment/app", ["cat", path]);
        assert!(denied.status.code() == Some(1) && denied.stdout.is_empty(), "{}", denied.story());
    }
    namespace.allow("deployment.app", &["env", "files", "outgoing", "secrets"]);
    let granted = developer.exec("deployment/app", ["cat", "/etc/key/key"]).succeeded();
    assert_eq!(granted.text(), "sk-1234");
}

#[test]
fn the_kernels_file_systems_devices_and_pipes_of_the_pod_stay_closed() {
    let namespace = Namespace::opted_in("paths");
    namespace.deploy("app", |deployment| {
        let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
        let script = "mkfifo /tmp/pipe; ln -s /proc/self/environ /srv-link; mkfifo /var/lib/checkout/pipe; \
                      ln -s /proc/1/environ /var/lib/checkout/environ; ln -s /dev/zero /var/lib/checkout/zero; \
                      echo fine >/var/lib/checkout/file; exec sleep infinity";
        container["command"] = json!(["sh", "-c", script]);
    });
    namespace.allow("deployment.app", &["env", "files", "secrets", "outgoing"]);
    let developer = Developer::new(namespace.name());
    let fine = developer.exec("deployment/app", ["cat", "/var/lib/checkout/file"]).succeeded();
    assert_eq!(fine.text(), "fine\n", "what the application wrote is seen");
    for name in ["pipe", "environ", "zero"] {
        let path = format!("/var/lib/checkout/{name}");
        let refused = developer.exec("deployment/app", ["timeout", "10", "head", "-c", "8", &path]);
        assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{}", refused.story());
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_named() {
    let developer = Developer::new(NAMESPACE);
    let kubeconfig = fs::read_to_string(cluster().developer_kubeconfig()).unwrap();
    let elsewhere = developer.home().join("elsewhere.kubeconfig");
    // Nothing listens on that port of anybody's machine.
    let line = |line: &str| match line.split_once("server:") {
        Some((indent, _)) => format!("{indent}server: https://127.0.0.1:1\n"),
        None => format!("{line}\n"),
    };
    fs::write(&elsewhere, kubeconfig.lines().map(line).collect::<String>()).unwrap();
    let developer = developer.with_kubeconfig(&elsewhere);
    let _ = developer
        .exec(CHECKOUT, ["true"])
        .failed_with(69, &["the API server https://127.0.0.1:1 (", "can't be reached", "refused"]);
}

#[test]
fn a_cluster_whose_certificate_is_anothers_is_not_trusted() {
    let developer = Developer::new(NAMESPACE);
    let kubeconfig = fs::read_to_string(cluster().developer_kubeconfig()).unwrap();
    let elsewhere = developer.home().join("elsewhere.kubeconfig");
    let other = other_authority();
    let line = |line: &str| match line.split_once("certificate-authority-data:") {
        Some((indent, _)) => format!("{indent}certificate-authority-data: {other}\n"),
        None => format!("{line}\n"),
    };
    fs::write(&elsewhere, kubeconfig.lines().map(line).collect::<String>()).unwrap();
    let developer = developer.with_kubeconfig(&elsewhere);
    let run = developer.exec(CHECKOUT, ["true"]);
    assert!(
        matches!(run.status.code(), Some(65 | 69)) && run.stderr.contains("certificate"),
        "{}",
        run.story()
    );
}

/// The base64 of some other authority's certificate: that of our webhook.
fn other_authority() -> String {
    let secret = cluster().get(&["secret", "mirrord-ca", "--namespace", "mirrord"]);
    secret["data"]["tls.crt"].as_str().unwrap().to_owned()
}
