//! The Session object: what clients create, the control plane grants, and the router reads.
//!
//! A client makes a key and POSTs a Session named after the key's hash. The admission webhook checks the caller's
//! rights and fills in [`SessionStatus`]: one POST gives the client all it needs. `status` is an ordinary field, not a
//! subresource, because the API server drops patched status fields of a subresource on create. Nothing in it is
//! authority: sidecars serve what the control plane announces from *stored* Sessions, and clients who edit it see
//! their edits overwritten.
#![forbid(unsafe_code)]

mod labels;
mod target;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use labels::*;
pub use target::{Target, TargetError, TargetKind, restart_line};

/// What the client asks for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mirrord.dev",
    version = "v1alpha1",
    kind = "Session",
    namespaced,
    status = "SessionStatus",
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.target"}"#,
    printcolumn = r#"{"name":"User","type":"string","jsonPath":".status.creator.username"}"#,
    printcolumn = r#"{"name":"Features","type":"string","jsonPath":".status.features"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionSpec {
    /// `kind/name`, see [`Target`]. Missing only in a dry run: then the answer lists the targets the caller may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Which container; else the one that injection chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Verbs of [`mirrord_protocol::feature::Feature`] that the session is no use without.
    pub features: Vec<String>,
    /// Further verbs, granted where the caller has them, else left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub optional_features: Vec<String>,
    /// The client's public key: SubjectPublicKeyInfo, DER, base64. The object's name is [`session_name`] of it.
    pub public_key: String,
    /// Any other number than before asks for a later expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal: Option<u64>,
}

/// What the control plane answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionStatus {
    /// Who created it; only they may renew it.
    pub creator: Creator,
    /// The top-level workload, as RBAC names it: `deployment.checkout`.
    pub workload: String,
    /// Granted verbs.
    pub features: Vec<String>,
    /// The container whose context it is.
    pub container: String,
    /// Pods that can serve, the primary first.
    pub pods: Vec<SessionPod>,
    /// Names of pods of the workload that have no sidecar.
    pub without_sidecar: Vec<String>,
    /// Running pods of the target; 0 where an older control plane answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub running: u32,
    /// Running pods of the target with a sidecar.
    #[serde(skip_serializing_if = "is_zero")]
    pub injected: u32,
    /// Where clients reach the ingress: `host:port`, UDP.
    pub ingress: String,
    /// PEM of the authorities that sidecars' certificates come from.
    pub certificate_authorities: String,
    /// Seconds since 1970 at which it is suspended unless renewed.
    pub expires_at: u64,
    /// How long it lives from this answer on unless renewed, in seconds, for clients whose clock shows another time; 0 where
    /// an older control plane answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub expires_in: u32,
    /// The [`SessionSpec::renewal`] that this answers, 0 where it had none; missing where an older control plane answered.
    /// A renewal whose number isn't here was stored without asking us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal: Option<u64>,
    /// Seconds since 1970 at which it ends for good.
    pub deadline: u64,
    /// Only in answers to dry runs without a target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetReport>,
}

/// Who created a Session, from the API server's `userInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Creator {
    /// As authenticated.
    pub username: String,
    /// As authenticated; empty for many kinds of users.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// One pod that serves a Session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// [`mirrord_protocol::route::RouteId`], in hexadecimal.
    pub route: String,
    /// Its IP address.
    pub address: String,
    /// The sidecar's UDP port.
    pub port: u16,
    /// Opens the ingress and the sidecar to the client's first packet: base64.
    pub gate_token: String,
}

/// A workload that the caller may use, or why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetReport {
    /// `kind/name`.
    pub target: String,
    /// Containers that have a sidecar.
    pub containers: Vec<String>,
    /// Running pods.
    pub pods: u32,
    /// Running pods with a sidecar.
    pub injected: u32,
    /// What the caller is granted on it.
    pub features: Vec<String>,
    /// Whether its sidecars see the application's processes: `shared`, `isolated`, or `mixed` where its pods differ;
    /// empty without sidecars.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub process_namespace: String,
    /// Names of running pods without a sidecar, at most [`NAMED_PODS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without_sidecar: Vec<String>,
    /// Whether all of its running pods are labelled to have none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub opted_out: bool,
}

/// How many pods without a sidecar are named.
pub const NAMED_PODS: usize = 64;

// By reference, as serde calls it.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The definition to install, without a status subresource.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    let mut definition = Session::crd();
    for version in &mut definition.spec.versions {
        version.subresources = None;
    }
    definition
}

/// The only name that a Session of this public key (DER) may have.
#[must_use]
pub fn session_name(public_key: &[u8]) -> String {
    let digest = Sha256::digest(public_key);
    digest[..20].iter().fold("s-".to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

impl SessionSpec {
    /// The public key, DER; `None` where it isn't base64.
    #[must_use]
    pub fn public_key_der(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.public_key).ok()
    }

    /// Sets the public key, DER.
    #[must_use]
    pub fn with_public_key(mut self, public_key: &[u8]) -> Self {
        self.public_key = STANDARD.encode(public_key);
        self
    }
}

impl SessionPod {
    /// The gate token's bytes; `None` where it isn't base64.
    #[must_use]
    pub fn gate_token_bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.gate_token).ok()
    }

    /// Sets the gate token.
    #[must_use]
    pub fn with_gate_token(mut self, token: &[u8]) -> Self {
        self.gate_token = STANDARD.encode(token);
        self
    }
}
