//! NetworkPolicies are enforced on the test cluster's node, so all other tests prove that the chart's own let through what they
//! must. These prove that they cut, and what an opted-in namespace that denies everything needs.

use std::{fs, time::Duration};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    developer::Developer,
    namespace::{Namespace, USUAL},
    run::{Run, until},
};
use serde_json::{Value, json};

/// Answers TCP and UDP on the ports of its arguments.
const SERVER: &str = "
import socket, sys, threading
def tcp(port):
    listener = socket.create_server(('', port))
    while True:
        listener.accept()[0].close()
def udp(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('', port))
    while True:
        s.sendto(*s.recvfrom(64))
for word in sys.argv[1:]:
    kind, port = word.split(':')
    threading.Thread(target={'tcp': tcp, 'udp': udp}[kind], args=(int(port),)).start()
";

/// Ends with 0 if a TCP connection or a UDP answer comes within two seconds.
const CLIENT: &str = "
import socket, sys
kind, host, port = sys.argv[1:]
if kind == 'tcp':
    socket.create_connection((host, int(port)), 2).close()
else:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    s.sendto(b'?', (host, int(port)))
    s.recv(64)
";

fn serve(namespace: &Namespace, name: &str, labels: &Value, ports: &[&str]) -> String {
    namespace.deploy(name, |deployment| {
        let template = &mut deployment["spec"]["template"];
        labels.as_object().unwrap().iter().for_each(|(label, value)| {
            template["metadata"]["labels"][label] = value.clone();
        });
        let mut command = vec!["python3", "-c", SERVER];
        command.extend(ports);
        template["spec"]["containers"][0]["command"] = json!(command);
    });
    let pods = namespace.pods();
    let app = |pod: &&Value| pod["metadata"]["labels"]["app"] == *name;
    pods.iter().find(app).unwrap()["status"]["podIP"].as_str().unwrap().to_owned()
}

/// Whether a packet goes through, from a Deployment's pod.
fn reaches(namespace: &Namespace, from: &str, kind: &str, host: &str, port: u16) -> bool {
    let (deployment, port) = (format!("deployment/{from}"), port.to_string());
    let exec = [
        "exec",
        "-n",
        namespace.name(),
        &deployment,
        "-c",
        "app",
        "--",
        "python3",
        "-c",
        CLIENT,
        kind,
        host,
        &port,
    ];
    Run::of(&mut cluster().kubectl(&exec)).status.success()
}

#[test]
fn the_charts_policies_let_through_what_our_parts_need_and_cut_the_rest() {
    if !cluster().has_node("being sure that NetworkPolicies are enforced") {
        return;
    }
    let namespace = Namespace::plain("policies");
    let router = json!({"app.kubernetes.io/name": "mirrord", "app.kubernetes.io/component": "ingress"});
    let ours = serve(&namespace, "router", &router, &["udp:4433", "tcp:8080", "tcp:9999"]);
    let pod = serve(&namespace, "pod", &json!({}), &["udp:20000", "udp:29999", "udp:5353", "tcp:8080"]);
    assert!(reaches(&namespace, "router", "tcp", &pod, 8080), "before there are policies");

    let render =
        ["template", "charts/mirrord", "-n", namespace.name(), "-s", "templates/network-policies.yaml"];
    let policies = Run::of(cluster().helm(&render).current_dir(checkout())).succeeded();
    let _ =
        Run::with_input(&mut cluster().kubectl(&["apply", "--filename", "-"]), &policies.stdout).succeeded();
    until(Duration::from_secs(20), "the policies to be enforced", || {
        (!reaches(&namespace, "router", "tcp", &pod, 8080)).then_some(())
    });

    for port in [20_000, 29_999] {
        assert!(reaches(&namespace, "router", "udp", &pod, port), "a sidecar's port {port}");
    }
    assert!(!reaches(&namespace, "router", "udp", &pod, 5353), "another UDP port of a pod");
    let slice = &cluster().get(&["endpointslice", "kubernetes", "-n", "default"]);
    let (address, port) = (&slice["endpoints"][0]["addresses"][0], &slice["ports"][0]["port"]);
    let port = u16::try_from(port.as_u64().unwrap()).unwrap();
    assert!(reaches(&namespace, "router", "tcp", address.as_str().unwrap(), port), "the API server");

    assert!(reaches(&namespace, "pod", "udp", &ours, 4433), "clients");
    assert!(reaches(&namespace, "pod", "tcp", &ours, 8080), "probes");
    assert!(!reaches(&namespace, "pod", "tcp", &ours, 9999), "any other port of ours");
}

#[test]
fn an_opted_in_namespace_that_denies_everything_needs_the_policy_of_the_readme() {
    if !cluster().has_node("being sure that NetworkPolicies are enforced") {
        return;
    }
    let namespace = Namespace::opted_in("denies");
    namespace.deploy("app", |_| ());
    namespace.allow("deployment.app", &USUAL);
    cluster().apply(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": namespace.name()},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }));
    let developer = Developer::new(namespace.name());
    // The first attempts may be quicker than the enforcer.
    let refused = until(Duration::from_secs(50), "sessions to fail", || {
        let run = developer.exec("deployment/app", ["true"]);
        (!run.status.success()).then_some(run)
    });
    let _ = refused.failed_with(69, &["didn't answer"]);

    let told = || Run::of(&mut cluster().mirrord(&["check", "-n", namespace.name()]));
    assert!(told().text().contains("NetworkPolicies keep the control plane"), "{}", told().story());

    let readme = fs::read_to_string(checkout().join("charts/mirrord/README.md")).unwrap();
    let (_, snippet) = readme.split_once("```yaml\n").expect("the README has the policy");
    let (snippet, _) = snippet.split_once("```").unwrap();
    let snippet = snippet.replace("namespace: shop", &format!("namespace: {}", namespace.name()));
    let _ = Run::with_input(&mut cluster().kubectl(&["apply", "--filename", "-"]), snippet.as_bytes())
        .succeeded();
    until(Duration::from_secs(50), "sessions to work again", || {
        developer.exec("deployment/app", ["true"]).status.success().then_some(())
    });
    assert!(!told().text().contains("NetworkPolicies keep"), "{}", told().story());
}
