use mirrord_e2e::{
    cluster::{checkout, cluster},
    run::Run,
};

fn helm(arguments: &[&str]) -> Run {
    Run::of(cluster().helm(arguments).current_dir(checkout()))
}

#[test]
fn the_chart_passes_helms_own_checks() {
    let _ = helm(&["lint", "--strict", "charts/mirrord"]).succeeded();
}

#[test]
fn a_value_that_does_not_exist_is_refused_by_name() {
    let _ =
        helm(&["template", "charts/mirrord", "--set", "webhook.replicsa=3"]).failed_with(1, &["replicsa"]);
    let _ = helm(&["template", "charts/mirrord", "--set", "sessions.ttlSeconds=soon"])
        .failed_with(1, &["ttlSeconds"]);
}

#[test]
fn every_value_can_be_set() {
    let values = "images.registry=registry.example.com/tools,images.pullSecrets[0].name=pull,webhook.nodeSelector.disk=fast,\
                  ingress.tolerations[0].operator=Exists,ingress.address=mirrord.example.com:443,\
                  ingress.service.loadBalancerClass=example.com/udp,ingress.service.annotations.a=b,rbac.aggregate=false,\
                  log.format=text,metrics.annotations=true,metrics.podMonitor.enabled=true,\
                  metrics.podMonitor.interval=15s,metrics.podMonitor.labels.team=a";
    let rendered =
        helm(&["template", "charts/mirrord", "--namespace", "tools", "--set", values]).succeeded().text();
    for expected in [
        "image: registry.example.com/tools/mirrord/webhook:0.1.0",
        "--agent-image=registry.example.com/tools/mirrord/sidecar-agent:0.1.0",
        "--ingress-address=mirrord.example.com:443",
        "loadBalancerClass: example.com/udp",
        "--log-format=text",
        r#"annotations: {prometheus.io/scrape: "true", prometheus.io/port: "8080", prometheus.io/path: /metrics}"#,
        "kind: PodMonitor",
        "interval: 15s",
        "team: a",
        r#"nodeSelector: {"disk":"fast"}"#,
        r#"tolerations: [{"operator":"Exists"}]"#,
        r#"imagePullSecrets: [{"name":"pull"}]"#,
        r#"values: ["kube-system","kube-public","kube-node-lease","tools"]"#,
    ] {
        assert!(rendered.contains(expected), "no {expected}");
    }
    let plain = helm(&["template", "charts/mirrord"]).succeeded().text();
    assert!(!plain.contains("prometheus.io/") && !plain.contains("PodMonitor"), "only where a value asks");
    assert!(!rendered.contains("aggregate-to-") && !rendered.contains("caBundle:"));
}

#[test]
fn an_authority_of_others_is_read_by_name_and_by_one_of_two_ways() {
    let template =
        |values: &str| helm(&["template", "charts/mirrord", "--namespace", "tools", "--set", values]);
    let own = helm(&["template", "charts/mirrord"]).succeeded().text();
    assert!(!own.contains("supplied") && !own.contains("startupProbe") && !own.contains("cert-manager.io"));
    let secret = template("certificates.secretName=corporate").succeeded().text();
    for expected in
        ["--supplied-ca-secret=corporate", "resourceNames: [corporate]\n    verbs: [get, list, watch]"]
    {
        assert!(secret.contains(expected), "no {expected}");
    }
    assert!(!secret.contains("cert-manager.io"));
    let issuer =
        "certificates.certManager.issuerRef.name=pki,certificates.certManager.issuerRef.kind=ClusterIssuer";
    let issued = template(issuer).succeeded().text();
    for expected in [
        "kind: Certificate",
        "namespace: tools",
        "secretName: mirrord-supplied-ca",
        "encoding: PKCS8",
        r#"issuerRef: {"group":"cert-manager.io","kind":"ClusterIssuer","name":"pki"}"#,
        "--supplied-ca-secret=mirrord-supplied-ca",
        "resourceNames: [mirrord-supplied-ca]",
    ] {
        assert!(issued.contains(expected), "no {expected}");
    }
    let both = format!("certificates.secretName=corporate,{issuer}");
    let _ = template(&both).failed_with(1, &["certificates"]);
}

#[test]
fn helm_test_passes_under_pod_security_restricted_and_leaves_nothing() {
    let passed =
        helm(&["test", "mirrord", "--namespace", "mirrord", "--logs", "--timeout", "50s"]).succeeded();
    for expected in [
        "ok: the webhook configuration carries an authority",
        "ok: mirrord-webhook.mirrord.svc:443 answers, and its certificate is of that authority",
        "ok: mirrord-ingress.mirrord.svc:443 refuses nothing (UDP)",
    ] {
        assert!(passed.text().contains(expected), "no {expected:?} in: {}", passed.story());
    }
    let namespace = cluster().get(&["namespace", "mirrord"]);
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    for object in ["clusterrole", "clusterrolebinding"] {
        let left = cluster().run(&["get", object, "mirrord-test", "--ignore-not-found", "--output", "name"]);
        assert_eq!(left.text(), "", "who may read the webhook's paths is gone with the test");
    }
}
