use std::{collections::BTreeMap, fs, time::Duration};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    developer::Developer,
    namespace::{Namespace, USUAL},
    run::{Run, until},
};
use mirrord_telemetry::{
    exposition::{self, Family},
    page::{self, RELEASE},
};
use serde_json::Value;

/// Replicas hear of a session's end, and of what its sidecar did, soon after.
const SOON: Duration = Duration::from_secs(30);

/// What each pod of a part shows, as an admin reaches it without Prometheus.
fn scrapes(part: &str) -> Vec<Vec<Family>> {
    let selector = format!("app.kubernetes.io/component={part}");
    let pods = cluster().get(&["pods", "--namespace", "mirrord", "--selector", &selector]);
    let running =
        |pod: &&Value| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
    let scrape = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let path = format!("/api/v1/namespaces/mirrord/pods/{name}:8080/proxy/metrics");
        // A pod that has just gone, as in a rollout by another test, shows nothing.
        let answer = Run::of(&mut cluster().kubectl(&["get", "--raw", &path]));
        answer.status.success().then(|| exposition::parse(&answer.text()).unwrap())
    };
    pods["items"].as_array().unwrap().iter().filter(running).filter_map(scrape).collect()
}

/// The sum over a part's replicas.
fn total(part: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    scrapes(part).iter().filter_map(|families| exposition::sum(families, name, labels)).sum()
}

/// Lines of a log, each of which must be JSON.
fn log(arguments: &[&str]) -> Vec<Value> {
    let log = cluster().run(&[&["logs", "--tail=-1"][..], arguments].concat()).text();
    log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line)).collect()
}

/// Audit lines of all replicas about a session.
fn audit(session: &str) -> Vec<Value> {
    let selector = ["--namespace", "mirrord", "--selector", "app.kubernetes.io/component=webhook"];
    let lines = log(&[&["--max-log-requests=20"][..], &selector].concat());
    let ours = |line: &Value| line["target"] == "mirrord::audit" && line["session"] == session;
    lines.into_iter().filter(ours).collect()
}

fn events(namespace: &str, kind: &str, reason: &str) -> Vec<Value> {
    let all = cluster().list("events.events.k8s.io", namespace);
    all.into_iter().filter(|event| event["regarding"]["kind"] == kind && event["reason"] == reason).collect()
}

/// The only one of a list.
#[track_caller]
fn only(mut list: Vec<Value>) -> Value {
    assert_eq!(list.len(), 1, "{list:?}");
    list.remove(0)
}

#[test]
fn a_session_is_counted_audited_and_told_of_where_people_look() {
    let namespace = Namespace::opted_in("observed");
    namespace.allow("deployment.app", &USUAL);
    let injected = total("webhook", "mirrord_webhook_pod_reviews_total", &[("result", "injected")]);
    namespace.deploy("app", |_| ());
    until(SOON, "the pod's review to be counted", || {
        let now = total("webhook", "mirrord_webhook_pod_reviews_total", &[("result", "injected")]);
        (now > injected).then_some(())
    });
    let counted = |name: &'static str, labels: &'static [(&'static str, &'static str)]| {
        let part = if name.starts_with("mirrord_ingress") { "ingress" } else { "webhook" };
        (part, name, labels, total(part, name, labels))
    };
    let before = [
        counted("mirrord_webhook_session_reviews_total", &[("verdict", "granted")]),
        counted("mirrord_webhook_boot_calls_total", &[("call", "announce"), ("result", "answered")]),
        counted("mirrord_webhook_events_total", &[("occasion", "session_started"), ("result", "written")]),
        counted("mirrord_sidecar_sessions_total", &[]),
        counted("mirrord_sidecar_requests_total", &[("request", "environment"), ("result", "served")]),
        counted("mirrord_sidecar_reports_total", &[("view", "live"), ("obstacle", "none")]),
        counted("mirrord_ingress_flows_opened_total", &[]),
        counted("mirrord_ingress_to_clients_bytes_total", &[]),
    ];

    let developer = Developer::new(namespace.name()).with_lingering_proxies();
    let _ = developer.exec("deployment/app", ["printenv", "GREETING"]).succeeded();
    let session = only(namespace.sessions());
    let name = session["metadata"]["name"].as_str().unwrap().to_owned();
    let line = only(audit(&name));
    assert_eq!((&line["verdict"], &line["user"]), (&"granted".into(), &"developer".into()), "{line}");
    assert_eq!((&line["workload"], &line["pods"]), (&"deployment.app".into(), &1.into()), "{line}");
    let token = session["status"]["pods"][0]["gateToken"].as_str().unwrap();
    assert!(!line.to_string().contains(token), "no token in the log");

    let twin = log(&["--namespace", namespace.name(), "deployment/app", "--container", "mirrord"]);
    let begins = |line: &&Value| line["message"] == "session begins" && line["session"] == *name;
    assert_eq!(twin.iter().filter(begins).count(), 1, "{twin:?}");

    for kind in ["Deployment", "Session"] {
        let event = only(until(SOON, "an Event of the start", || {
            Some(events(namespace.name(), kind, "SessionStarted")).filter(|events| !events.is_empty())
        }));
        assert!(event["note"].as_str().unwrap().starts_with("\"developer\" started session"), "{event}");
    }
    let described = cluster().run(&["describe", "deployment", "app", "--namespace", namespace.name()]).text();
    assert!(described.contains("SessionStarted"), "{described}");

    cluster().run(&["delete", "session", &name, "--namespace", namespace.name()]);
    let lines = until(SOON, "the line of its end", || Some(audit(&name)).filter(|lines| lines.len() > 1));
    // In whichever replica's log they are.
    let verdicts = |verdict: &str| lines.iter().filter(|line| line["verdict"] == verdict).count();
    assert_eq!((lines.len(), verdicts("granted"), verdicts("ended")), (2, 1, 1), "{lines:?}");
    assert!(lines.iter().any(|line| line["reason"] == "it was deleted"), "{lines:?}");
    let event = only(until(SOON, "an Event of the end", || {
        Some(events(namespace.name(), "Deployment", "SessionEnded")).filter(|events| !events.is_empty())
    }));
    assert!(event["note"].as_str().unwrap().contains(&name), "{event}");
    for (part, name, labels, before) in before {
        until(SOON, &format!("{name} {labels:?} to be more than {before}"), || {
            (total(part, name, labels) > before).then_some(())
        });
    }
}

/// The page of metrics: name, as one asks for it, to its labels and their values.
fn documented() -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let page = fs::read_to_string(checkout().join("charts/mirrord/METRICS.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let label = |label: &str| {
            let (name, values) = label.split_once(": ").expect(row);
            let values = values.split(", ").map(str::to_owned).collect();
            (name.trim_matches('`').to_owned(), values)
        };
        let labels = cells[4].split("; ").filter(|label| !label.is_empty()).map(label);
        (cells[1].trim_matches('`').to_owned(), labels.collect())
    })
    .collect()
}

#[test]
fn metrics_are_those_of_the_page_and_labels_hold_nothing_but_words_of_closed_sets() {
    let documented = documented();
    let mut shown = BTreeMap::new();
    for families in [scrapes("webhook"), scrapes("ingress")].concat() {
        for family in families {
            let name = page::queried(&family);
            let labels = documented.get(&name).unwrap_or_else(|| panic!("{name} is not on the page"));
            for sample in &family.samples {
                for (label, value) in sample.labels.iter().filter(|(label, _)| *label != "le") {
                    let known = labels.get(label).unwrap_or_else(|| panic!("{name}: no label {label}"));
                    let of_release = known == &[RELEASE] && value == env!("CARGO_PKG_VERSION");
                    assert!(
                        of_release || known.contains(value),
                        "{name} {label}: {value:?} is no word of its set"
                    );
                }
            }
            shown.insert(name, ());
        }
    }
    let hidden: Vec<_> = documented.keys().filter(|name| !shown.contains_key(*name)).collect();
    assert!(hidden.is_empty(), "on the page only: {hidden:?}");
}
