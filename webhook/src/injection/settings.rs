//! What the operator of the cluster decides about sidecars, and the authorities that sidecars trust.

use std::sync::{Arc, PoisonError, RwLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use mirrord_telemetry::log;
use serde::Serialize;

use super::{limits::PerResource, quantity::Quantity};

/// Uid and gid of the copy step: rare, so that no application owns the agent's file.
///
/// The file is mode 0711 and must be owned by somebody else than who runs it: only then does the kernel make the
/// sidecar non-dumpable at exec, and the application can't read its token and memory.
pub const COPY_USER: u32 = 64_317;

/// Settings of the injection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image that carries the agent's binary.
    pub agent_image: String,
    /// When the node pulls that image.
    pub pull_policy: PullPolicy,
    /// The authorities that sidecars trust for the boot channel.
    pub authorities: Authorities,
    /// Audience of the sidecar's token.
    pub audience: String,
    /// Lifetime of the sidecar's token, in seconds; kubelet renews it at 80 %. At least 600.
    pub token_seconds: u32,
    /// The control plane's own namespace: never injected.
    pub own_namespace: String,
    /// Uid and gid of the copy step; `None` where the cluster assigns them (OpenShift's ranges).
    pub copy_user: Option<u32>,
    /// What a sidecar asks for.
    pub sizes: PerResource<Size>,
    /// How lines of a sidecar's log look.
    pub log_format: log::Format,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of Kubernetes")]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

/// What a sidecar asks for of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The request.
    pub request: Quantity,
    /// The limit.
    pub limit: Quantity,
    /// Both, where the application's are equal (pods of QoS class Guaranteed).
    pub guaranteed: Quantity,
}

impl Settings {
    /// Settings with the defaults for everything but these.
    #[must_use]
    pub fn new(agent_image: &str, own_namespace: &str, authorities: Authorities) -> Self {
        Self {
            agent_image: agent_image.to_owned(),
            pull_policy: PullPolicy::default(),
            authorities,
            audience: mirrord_protocol::DOMAIN.to_owned(),
            token_seconds: 3600,
            own_namespace: own_namespace.to_owned(),
            copy_user: Some(COPY_USER),
            sizes: default_sizes(),
            log_format: log::Format::default(),
        }
    }
}

fn default_sizes() -> PerResource<Size> {
    let size = |request, limit, guaranteed| Size { request, limit, guaranteed };
    PerResource {
        cpu: size(Quantity::milli(10), Quantity::milli(500), Quantity::milli(50)),
        memory: size(Quantity::mebi(24), Quantity::mebi(64), Quantity::mebi(64)),
        ephemeral_storage: size(Quantity::mebi(16), Quantity::mebi(64), Quantity::mebi(64)),
    }
}

/// The certificates that sidecars trust, as they stand on a command line. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Authorities(Arc<RwLock<Arc<str>>>);

impl Authorities {
    /// From certificates in DER.
    #[must_use]
    pub fn new<C: AsRef<[u8]>>(certificates: &[C]) -> Self {
        let authorities = Self::default();
        authorities.replace(certificates);
        authorities
    }

    /// Changes the list for all clones; pods admitted from now on get it.
    pub fn replace<C: AsRef<[u8]>>(&self, certificates: &[C]) {
        let list: Vec<_> = certificates.iter().map(|certificate| STANDARD.encode(certificate)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = list.join(",").into();
    }

    /// Base64 of each certificate's DER, joined by commas; empty where there is none yet.
    pub(super) fn list(&self) -> Arc<str> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
