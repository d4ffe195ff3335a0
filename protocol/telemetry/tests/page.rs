//! `charts/mirrord/METRICS.md` is what the programs' registries say. `BLESS=1` writes it anew.

use std::{fs, path::Path};

use mirrord_telemetry::{exposition, page};

const HEAD: &str = "\
# Metrics

<!-- Made from webhook/src/metrics.rs and ingress/src/metrics.rs by `BLESS=1 cargo test -p mirrord-telemetry`. -->

`GET /metrics` on port 8080 of each pod of `mirrord-webhook` and `mirrord-ingress`, in OpenMetrics' text format. The values
`metrics.annotations` and `metrics.podMonitor.enabled` of the chart tell Prometheus where to ask. Labels hold words of closed sets
only: never a user, a namespace, a pod, a route or an address. A histogram has `_bucket`, `_sum` and `_count`.

## Control plane

Each replica counts what it did itself; sum over replicas, but take the greatest of gauges that describe the cluster (sessions,
sidecars, certificates). Sidecars listen to nobody but the control plane: what they did, they tell when it asks, and each thing to one
replica only. So `mirrord_sidecar_*` are sums over all sidecars, and over replicas they add up.

";

const INGRESS: &str = "
## Ingress

";

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/mirrord/METRICS.md");
    let webhook = page::table(&mirrord_webhook::metrics::registry()).unwrap();
    let ingress =
        page::table(&mirrord_ingress::metrics::registry(&Default::default(), &Default::default())).unwrap();
    let made = format!("{HEAD}{webhook}{INGRESS}{ingress}");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "METRICS.md differs: BLESS=1 cargo test -p mirrord-telemetry");
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let ingress = mirrord_ingress::metrics::registry(&Default::default(), &Default::default());
    let registries = [mirrord_webhook::metrics::registry(), ingress];
    for registry in &registries {
        for family in exposition::parse(&exposition::text(registry).unwrap()).unwrap() {
            let plain = |letter: char| letter.is_ascii_lowercase() || letter == '_';
            assert!(family.name.starts_with("mirrord_") && family.name.chars().all(plain), "{}", family.name);
            assert!(family.unit.is_empty() || family.name.ends_with(&family.unit), "{}", family.name);
            assert!(family.kind != "histogram" || family.unit == "seconds", "{}", family.name);
            assert!(family.help.len() > 10, "{} says nothing", family.name);
        }
    }
}
