//! How long starting takes: of pods with and without sidecar, of commands cold and warm.

use std::time::Instant;

use mirrord_e2e::{
    developer::Developer,
    measure::{Against, Report, median, milliseconds},
    namespace::Namespace,
    run::Run,
    shop::{CHECKOUT, NAMESPACE},
};
use serde_json::Value;

pub(crate) fn pods(report: &mut Report) {
    let started = |namespace: &Namespace, round: usize| {
        let began = Instant::now();
        namespace.deploy(&format!("app-{round}"), |_| ());
        milliseconds(began.elapsed())
    };
    let (with, without) = (Namespace::opted_in("bench-with"), Namespace::plain("bench-without"));
    let pairs: Vec<(f64, f64)> =
        (0..5).map(|round| (started(&with, round), started(&without, round))).collect();
    let with = median(pairs.iter().map(|pair| pair.0).collect());
    let without = median(pairs.iter().map(|pair| pair.1).collect());
    report.add("pod_start_injected_ms", with, "ms", Against::Baseline("not injected", without));
    report.add("pod_start_added_ms", with - without, "ms", Against::Nothing);
}

/// Cold: the sidecar sleeps, no proxy runs, nothing is cached. The parts are what the proxy says of its start.
pub(crate) fn commands(report: &mut Report) {
    let mut parts: [Vec<f64>; 3] = Default::default();
    let cold = (0..9).map(|_| {
        let developer = Developer::new(NAMESPACE).with_lingering_proxies();
        let took = milliseconds(developer.exec(CHECKOUT, ["true"]).succeeded().took);
        let listed =
            Run::of(&mut developer.mirrord(["session", "ls", "-n", NAMESPACE, "-o", "json"])).succeeded();
        let start = start_of(&listed.text());
        for (part, name) in parts.iter_mut().zip(["client_ms", "session_ms", "tunnel_ms"]) {
            part.push(start[name].as_f64().unwrap_or(f64::NAN));
        }
        took
    });
    let cold = median(cold.collect());
    report.add("exec_cold_ms", cold, "ms", Against::Limit(30.0));
    for (part, name) in parts.into_iter().zip(["client", "session", "tunnel"]) {
        report.add(
            &format!("exec_cold_{name}_ms"),
            median(part),
            "ms",
            Against::Baseline("exec_cold_ms", cold),
        );
    }

    let developer = Developer::new(NAMESPACE).with_lingering_proxies();
    let _ = developer.exec(CHECKOUT, ["true"]).succeeded();
    let warm = (0..30).map(|_| milliseconds(developer.exec(CHECKOUT, ["true"]).succeeded().took));
    let warm = median(warm.collect());
    let alone = (0..30).map(|_| milliseconds(Run::of(&mut developer.command("true")).succeeded().took));
    report.add("exec_warm_ms", warm, "ms", Against::Baseline("the command alone", median(alone.collect())));
}

/// What a proxy of this machine says of its start.
fn start_of(listing: &str) -> Value {
    fn find(value: &Value) -> Option<&Value> {
        match value {
            Value::Object(fields) => fields.get("start").or_else(|| fields.values().find_map(find)),
            Value::Array(items) => items.iter().find_map(find),
            _ => None,
        }
    }
    let listing: Value = serde_json::from_str(listing).expect("JSON was asked for");
    find(&listing).cloned().unwrap_or_default()
}
