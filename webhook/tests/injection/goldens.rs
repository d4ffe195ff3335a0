//! The commonest kinds of pods, before and after. `BLESS=1 cargo test` rewrites what comes after.
//!
//! Beside `<kind>.pod.json`, as the webhook gets it, and `<kind>.patched.json`, as it leaves it, stands
//! `<kind>.about.json` for those who send the pairs to a real API server.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use mirrord_webhook::injection::LimitRangeItem;
use serde::Deserialize;
use serde_json::Value;

use crate::{Answered, patched, reviewed};

/// What one has to know of a golden.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    #[serde(rename = "about")]
    _about: String,
    /// The strictest level of Pod Security that admits the pod, before and after.
    pub(crate) level: String,
    /// `injected`, or the label of the reason why not.
    pub(crate) outcome: String,
    /// Whether a node without preparation can run the pod, its image replaced and its needs met.
    #[serde(rename = "start")]
    _start: bool,
    /// Objects that have to be there, and what the image has to be like.
    #[serde(rename = "needs")]
    _needs: Vec<String>,
    /// Items of the namespace's LimitRange.
    #[serde(default)]
    pub(crate) limit_ranges: Vec<LimitRangeItem>,
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
        let Answered { label, patch, .. } = reviewed(&pod, &about.limit_ranges);
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

#[test]
fn goldens_ask_for_nothing_that_restricted_forbids() {
    for Golden { kind, about, pod } in goldens() {
        let Some(patch) = reviewed(&pod, &about.limit_ranges).patch else { continue };
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
