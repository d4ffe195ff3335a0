//! Which mounts hold secrets.
//!
//! The twin serves files below them only to sessions with the feature `secrets`. It is told the mount points on its
//! command line and compares the mount that a path resolved to, so links and bind mounts of them count as well.

use serde::{Deserialize, de::IgnoredAny};

use super::{
    pod::Pod,
    raw::{RawObject, Text, or_default},
};

/// A volume, as far as it matters here.
#[derive(Default, Deserialize)]
pub(super) struct PodVolume<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) name: Text<'a>,
    secret: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "or_default")]
    projected: Projected,
    /// Inline volumes of CSI drivers: secret stores, certificates, identities.
    csi: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct Projected {
    #[serde(default, deserialize_with = "or_default")]
    sources: Vec<Source>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    secret: Option<IgnoredAny>,
    service_account_token: Option<IgnoredAny>,
    pod_certificate: Option<IgnoredAny>,
}

impl PodVolume<'_> {
    fn holds_secrets(&self) -> bool {
        let secret = |source: &Source| {
            source.secret.is_some()
                || source.service_account_token.is_some()
                || source.pod_certificate.is_some()
        };
        self.secret.is_some() || self.projected.sources.iter().any(secret) || self.csi.is_some()
    }
}

/// Mount points of secrets among a container's mounts.
pub(super) fn secret_mounts(pod: &Pod<'_>, mounts: &[RawObject<'_>]) -> Vec<String> {
    let volumes = || pod.spec.volumes.iter().flatten();
    mounts
        .iter()
        .filter(|mount| {
            let name = mount.text("name");
            volumes().any(|volume| Some(&*volume.name) == name.as_deref() && volume.holds_secrets())
        })
        .filter_map(|mount| mount.text("mountPath").map(|path| path.to_string()))
        .collect()
}
