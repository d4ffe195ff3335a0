//! Names that Kubernetes objects carry for us.

/// Label of namespaces and pods: `enabled` or `disabled`; a pod's wins over its namespace's.
pub const INJECT_LABEL: &str = "mirrord.dev/inject";
/// Annotation that injection leaves on a pod: [`InjectionStatus`] as JSON.
pub const STATUS_ANNOTATION: &str = "mirrord.dev/status";
/// Annotation: which containers get a sidecar, comma-separated.
pub const CONTAINERS_ANNOTATION: &str = "mirrord.dev/containers";
/// Annotation: `auto`, `shared` or `isolated`.
pub const PROCESS_NAMESPACE_ANNOTATION: &str = "mirrord.dev/process-namespace";
/// Audience of the sidecars' projected tokens.
pub const TOKEN_AUDIENCE: &str = "mirrord.dev";

/// What injection did to a pod.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InjectionStatus {
    /// Version of the annotation's content.
    pub version: u16,
    /// One for each container that has a sidecar.
    pub containers: Vec<InjectedContainer>,
    /// `shared` or `isolated`.
    #[serde(default)]
    pub process_namespace: String,
}

/// A container that has a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InjectedContainer {
    /// The application's container.
    pub name: String,
    /// Its sidecar's container.
    pub sidecar: String,
    /// The sidecar's UDP port.
    pub port: u16,
}
