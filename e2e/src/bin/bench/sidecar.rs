//! What a sidecar costs while nobody uses it: before its first session, and after its last.

use std::{fs, time::Duration};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    developer::Developer,
    measure::{Against, Report},
    run::{eventually, until},
    shop::{CHECKOUT, NAMESPACE},
};
use serde_json::Value;

use crate::process::Process;

const RSS_KIB: Against = Against::Limit(1536.0);
const ANONYMOUS_KIB: Against = Against::Limit(250.0);
/// How long wake-ups are counted.
const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn sizes(report: &mut Report) {
    for (name, program, limit) in [
        ("image_sidecar_agent_bytes", "sidecar-agent/mirrord-agent", Against::Limit(3.0e6)),
        ("image_webhook_bytes", "webhook/mirrord-webhook", Against::Nothing),
        ("image_ingress_bytes", "ingress/mirrord-ingress", Against::Nothing),
    ] {
        let size = |path: &str| {
            fs::metadata(checkout().join("target/dist").join(path)).map_or(f64::NAN, |it| it.len() as f64)
        };
        // The image is this one file (FROM scratch).
        report.add(name, size(&format!("images/{program}")), "bytes", limit);
    }
    let layer = fs::metadata(checkout().join("target/dist/libmirrord_layer_preload.so"));
    report.add("layer_bytes", layer.map_or(f64::NAN, |it| it.len() as f64), "bytes", Against::Limit(3.0e5));
}

/// A sidecar that never had a session (of `inventory`, which nobody may use), and one whose last session is over.
pub(crate) fn dormant(report: &mut Report) {
    cluster().run(&["rollout", "restart", "deployment/inventory", "--namespace", NAMESPACE]);
    cluster().run(&["rollout", "status", "deployment/inventory", "--namespace", NAMESPACE, "--timeout=55s"]);
    let untouched = sidecar_of("inventory");
    let before = untouched.wake_ups();
    report.add("dormant_sidecar_rss_kib", untouched.kibibytes("Rss:"), "kib", RSS_KIB);
    report.add("dormant_sidecar_anonymous_kib", untouched.kibibytes("Anonymous:"), "kib", ANONYMOUS_KIB);
    report.add("dormant_sidecar_working_set_kib", working_set("inventory"), "kib", Against::Nothing);
    report.add("dormant_sidecar_threads", untouched.threads(), "threads", Against::Limit(1.0));

    let _ = Developer::new(NAMESPACE).exec(CHECKOUT, ["true"]).succeeded();
    let used = sidecar_of("checkout");
    until(MINUTE, "the sidecar to go to sleep again", || used.children().is_empty().then_some(()));
    report.add("rested_sidecar_rss_kib", used.kibibytes("Rss:"), "kib", RSS_KIB);
    report.add("rested_sidecar_anonymous_kib", used.kibibytes("Anonymous:"), "kib", ANONYMOUS_KIB);

    let _ = eventually(MINUTE, || false);
    report.add("dormant_sidecar_wake_ups", untouched.wake_ups() - before, "per_minute", Against::Nothing);
}

/// The main process of the sidecar of an app's pod.
fn sidecar_of(app: &str) -> Process {
    Process::of_container(&status_of(&pod_of(app)))
}

/// The pod of an app that serves sessions: the oldest.
fn pod_of(app: &str) -> Value {
    let mut pods = cluster().list("pods", NAMESPACE);
    pods.retain(|pod| {
        pod["metadata"]["labels"]["app"] == app && pod["metadata"]["deletionTimestamp"].is_null()
    });
    pods.sort_by_key(|pod| {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        (text("creationTimestamp"), text("name"))
    });
    pods.swap_remove(0)
}

/// The status of a pod's sidecar.
fn status_of(pod: &Value) -> Value {
    let statuses = pod["status"]["initContainerStatuses"].as_array().expect("it is injected");
    let running = statuses.iter().find(|status| status["state"]["running"].is_object());
    running.expect("its sidecar runs").clone()
}

/// What the kubelet charges a sidecar with: its control group's memory but for file pages that can go. It looks every few
/// seconds.
fn working_set(app: &str) -> f64 {
    let pod = pod_of(app);
    let name = status_of(&pod)["name"].clone();
    until(MINUTE, "the kubelet to look", || {
        let summary = cluster().run(&["get", "--raw", "/api/v1/nodes/node/proxy/stats/summary"]);
        let summary: Value = serde_json::from_slice(&summary.stdout).ok()?;
        let found =
            summary["pods"].as_array()?.iter().find(|it| it["podRef"]["uid"] == pod["metadata"]["uid"])?;
        let container = found["containers"].as_array()?.iter().find(|it| it["name"] == name)?;
        container["memory"]["workingSetBytes"].as_f64().map(|bytes| bytes / 1024.0)
    })
}
