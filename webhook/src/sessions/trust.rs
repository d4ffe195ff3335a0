//! Whose sidecars would let this control plane in: a decision over pods as the API server shows them.
//!
//! A sidecar trusts the authorities on its command line, for as long as its pod lives. Where the installation's authority was
//! made anew without the old one (its Secret was deleted, the release was installed in another namespace), sidecars that are older
//! answer neither the control plane nor clients. Without this look a client would wait, and blame the network. (An authority
//! that was made by the old one is known to them: [`mirrord_certs::succession`].)

use std::cell::OnceCell;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use mirrord_certs::{Authority, Identity, UnixTime, verify};
use rustls::pki_types::CertificateDer;

use super::sidecars::{self, is_running};

/// Pods, parted.
#[derive(Debug, Default)]
pub struct Parted {
    /// All others.
    pub pods: Vec<Pod>,
    /// Names of running pods whose sidecars trust other authorities.
    pub strangers: Vec<String>,
}

/// Parts pods by whether `admits` says yes to the authorities that their sidecars trust: base64 of DER, joined by commas.
#[must_use]
pub fn part(pods: Vec<Pod>, admits: impl Fn(&str) -> bool) -> Parted {
    let mut parted = Parted::default();
    for pod in pods {
        if authorities(&pod).iter().all(|authorities| admits(authorities)) {
            parted.pods.push(pod);
        } else if is_running(&pod) {
            parted.strangers.push(pod.name_any());
        }
    }
    parted
}

/// What the sidecars of a pod trust, each.
fn authorities(pod: &Pod) -> Vec<&str> {
    let sidecars = sidecars::sidecars(pod);
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let ours = containers.filter(|container| sidecars.iter().any(|it| it.sidecar == container.name));
    ours.filter_map(|container| {
        let words: Vec<&str> =
            container.command.iter().chain(&container.args).flatten().map(String::as_str).collect();
        words.windows(2).find(|pair| pair[0] == "--ca").map(|pair| pair[1])
    })
    .collect()
}

/// Which sidecars let a control plane of one authority in, at a moment.
pub struct Acquaintance<'a> {
    authority: &'a Authority,
    now: UnixTime,
    /// What the control plane would show; made for the first who knows us by a predecessor only.
    identity: OnceCell<Option<Identity>>,
}

impl<'a> Acquaintance<'a> {
    /// For the sidecars of one review.
    #[must_use]
    pub fn new(authority: &'a Authority, now: UnixTime) -> Self {
        Self { authority, now, identity: OnceCell::new() }
    }

    /// Whether a sidecar that trusts these authorities lets us in.
    #[must_use]
    pub fn knows_us(&self, authorities: &str) -> bool {
        let trusted: Vec<_> = authorities.split(',').filter_map(|one| STANDARD.decode(one).ok()).collect();
        if trusted.iter().any(|one| one.as_slice() == self.authority.certificate().as_ref()) {
            return true;
        }
        let trusted = trusted.into_iter().map(CertificateDer::from);
        let identity = self.identity.get_or_init(|| self.authority.control_plane(self.now).ok());
        identity.as_ref().is_some_and(|identity| verify::admits_control_plane(trusted, identity, self.now))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixTime = 1_800_000_000;

    fn pod(name: &str, trusts: Option<&str>) -> Pod {
        let mut command = vec!["agent", "serve", "--container", "app", "--port", "4801"];
        trusts.into_iter().for_each(|authorities| command.extend(["--ca", authorities]));
        let status = r#"{"version":1,"containers":[{"name":"app","sidecar":"mirrord","port":4801}],"process_namespace":"isolated"}"#;
        serde_json::from_value(json!({
            "metadata": { "name": name, "annotations": { "mirrord.dev/status": status } },
            "spec": {
                "containers": [{ "name": "app" }],
                "initContainers": [{ "name": "mirrord", "restartPolicy": "Always", "command": command }],
            },
            "status": { "phase": "Running", "podIP": "10.0.0.1" },
        }))
        .unwrap()
    }

    fn base64(authority: &Authority) -> String {
        STANDARD.encode(authority.certificate())
    }

    #[test]
    fn a_sidecar_lets_in_the_control_plane_of_any_authority_that_it_trusts() {
        let (last, other) = (Authority::create(NOW).unwrap(), Authority::create(NOW).unwrap());
        let ours = last.succeed(NOW).unwrap();
        let acquaintance = Acquaintance::new(&ours, NOW);
        assert!(acquaintance.knows_us(&base64(&ours)) && acquaintance.knows_us(&base64(&last)));
        assert!(acquaintance.knows_us(&format!("{},{}", base64(&other), base64(&ours))));
        assert!(!acquaintance.knows_us(&base64(&other)));
        assert!(!acquaintance.knows_us("") && !acquaintance.knows_us("?"));
    }

    #[test]
    fn running_pods_that_trust_others_are_named_and_pods_without_sidecar_are_none_of_them() {
        let mut ended = pod("ended", Some("theirs"));
        ended.status = None;
        let pods = vec![
            pod("new", Some("ours")),
            pod("old", Some("theirs")),
            ended,
            Pod::default(),
            pod("early", None),
        ];
        let Parted { pods, strangers } = part(pods, |authorities| authorities == "ours");
        assert_eq!(strangers, ["old"]);
        let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["new", "", "early"]);
    }
}
