//! The kinds of pods, before and after. `BLESS=1 cargo test` rewrites what comes after.
//!
//! Beside `<kind>.pod.json`, as the webhook gets it, and `<kind>.patched.json`, as it leaves it, stands
//! `<kind>.about.json` for those who send the pairs to a real API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use mirrord_webhook::injection::{LimitRangeItem, Limits, Quota, quantity::Quantity};
use serde::Deserialize;
use serde_json::Value;

use crate::{Answered, patched, pods::quality, reviewed_within};

/// What one has to know of a golden.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    pub(crate) about: String,
    /// The strictest level of Pod Security that admits the pod, before and after.
    pub(crate) level: String,
    /// `injected`, or the label of the reason why not.
    pub(crate) outcome: String,
    /// Whether a node without preparation can run the pod, its image replaced and its needs met.
    pub(crate) start: bool,
    /// Objects that have to be there, and what the image has to be like.
    #[serde(rename = "needs")]
    _needs: Vec<String>,
    /// Files that a session reads as the application does.
    #[serde(rename = "reads", default)]
    _reads: Vec<String>,
    /// Whose view a session gets: `live`, or why not: `isolated`, `capabilities`.
    pub(crate) view: Option<String>,
    /// `pod` where only the pod is labelled, not its namespace.
    #[serde(rename = "opted_in", default)]
    _opted_in: Option<String>,
    /// `hard` of the namespace's ResourceQuota.
    #[serde(default)]
    quota: BTreeMap<String, Quantity>,
    /// Items of the namespace's LimitRange.
    #[serde(default)]
    limit_ranges: Vec<LimitRangeItem>,
    /// Resources of which an autoscaler computes the utilisation.
    #[serde(default)]
    autoscaled_on: Vec<String>,
}

impl About {
    /// The bounds of the namespace, with nothing in it yet.
    fn limits(&self) -> Limits {
        let quota = Quota { hard: self.quota.clone(), ..Quota::default() };
        Limits::of(&self.limit_ranges).left_by([&quota])
    }
}

pub(crate) struct Golden {
    pub(crate) kind: String,
    pub(crate) about: About,
    pub(crate) pod: Value,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn kinds(ending: &str) -> BTreeSet<String> {
    let files =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect()
}

fn read(kind: &str, ending: &str) -> String {
    let path = folder().join(format!("{kind}{ending}"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn goldens() -> Vec<Golden> {
    let golden = |kind: String| Golden {
        about: serde_json::from_str(&read(&kind, ".about.json")).unwrap(),
        pod: serde_json::from_str(&read(&kind, ".pod.json")).unwrap(),
        kind,
    };
    kinds(".pod.json").into_iter().map(golden).collect()
}

#[test]
fn each_kind_of_pod_comes_out_as_its_golden_says() {
    let bless = env::var_os("BLESS").is_some();
    for Golden { kind, about, pod } in goldens() {
        let Answered { label, patch, .. } = reviewed_within(&pod, about.limits());
        assert_eq!(label, about.outcome, "{kind}");
        let Some(patch) = patch else { continue };
        let after = patched(&pod, &patch);
        if bless {
            fs::write(folder().join(format!("{kind}.patched.json")), format!("{after:#}\n")).unwrap();
        } else {
            // As values: the order of keys is a feature of serde_json that any crate of a build can switch on.
            let golden: Value = serde_json::from_str(&read(&kind, ".patched.json")).unwrap();
            assert_eq!(after, golden, "{kind}: BLESS=1 rewrites it");
        }
    }
}

#[test]
fn every_file_belongs_to_a_golden() {
    let goldens = goldens();
    assert_eq!(kinds(".about.json"), goldens.iter().map(|golden| golden.kind.clone()).collect());
    let injected = goldens.iter().filter(|golden| golden.about.outcome == "injected");
    assert_eq!(kinds(".patched.json"), injected.map(|golden| golden.kind.clone()).collect());
    for Golden { kind, about, .. } in &goldens {
        assert!(["restricted", "baseline", "privileged"].contains(&about.level.as_str()), "{kind}");
    }
}

/// The pods of the goldens that are injected, before and after.
fn injected() -> impl Iterator<Item = (Golden, Value)> {
    goldens().into_iter().filter_map(|golden| {
        let patch = reviewed_within(&golden.pod, golden.about.limits()).patch?;
        let after = patched(&golden.pod, &patch);
        Some((golden, after))
    })
}

#[test]
fn every_kind_keeps_its_quality_of_service() {
    let mut met = BTreeSet::new();
    for (Golden { kind, pod, .. }, after) in injected() {
        assert_eq!(quality(&after), quality(&pod), "{kind}");
        met.insert(quality(&pod));
    }
    assert_eq!(met, BTreeSet::from(["BestEffort", "Burstable", "Guaranteed"]));
}

#[test]
fn an_autoscaler_finds_a_request_in_every_container_that_runs() {
    // Without one it can't compute a utilisation, and scales no more (calculatePodRequests in
    // k8s.io/kubernetes/pkg/controller/podautoscaler/replica_calculator.go).
    let mut met = 0;
    for (Golden { kind, about, .. }, after) in injected() {
        let spec = &after["spec"];
        let init = spec["initContainers"].as_array().unwrap().iter();
        let running =
            init.filter(|it| it["restartPolicy"] == "Always").chain(spec["containers"].as_array().unwrap());
        for container in running {
            for resource in &about.autoscaled_on {
                assert!(
                    container["resources"]["requests"][resource].is_string(),
                    "{kind}: {}",
                    container["name"]
                );
                met += 1;
            }
        }
    }
    assert!(met >= 3, "a golden is autoscaled");
}

#[test]
fn goldens_ask_for_nothing_that_restricted_forbids() {
    for Golden { kind, about, pod } in goldens() {
        let Some(patch) = reviewed_within(&pod, about.limits()).patch else { continue };
        let after = patched(&pod, &patch);
        let before = pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
        for container in &after["spec"]["initContainers"].as_array().unwrap()[before..] {
            let context = &container["securityContext"];
            assert_eq!(context["capabilities"]["drop"][0], "ALL", "{kind}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{kind}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{kind}");
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{kind}");
            for absent in
                ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "volumeDevices"]
            {
                assert!(container.get(absent).is_none(), "{kind}: {absent}");
            }
        }
    }
}
