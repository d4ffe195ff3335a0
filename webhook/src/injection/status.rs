//! The status annotation: what was injected, for the control plane, `mirrord ls` and people.

use serde::{Deserialize, Serialize};

/// Version of the annotation's content.
pub const STATUS_VERSION: u16 = 1;

/// Content of the annotation [`super::names::STATUS_ANNOTATION`]. A claim, not a fact: any pod's author can write it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Status {
    /// [`STATUS_VERSION`]; later ones add fields.
    pub version: u16,
    /// One for each sidecar.
    pub containers: Vec<InjectedContainer>,
    /// Whether the sidecars see the application's processes.
    pub process_namespace: ProcessNamespace,
}

/// An application container and its sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct InjectedContainer {
    /// The application container.
    pub name: String,
    /// The sidecar's container.
    pub sidecar: String,
    /// The UDP port where the sidecar waits.
    pub port: u16,
}

/// Whether the sidecars see the application's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessNamespace {
    /// They do.
    Shared,
    /// They don't: environment and files are those of the image, the pod's specification and its volumes.
    Isolated,
}

impl Status {
    /// Reads an annotation's text.
    #[must_use]
    pub fn read(annotation: &str) -> Option<Self> {
        serde_json::from_str(annotation).ok()
    }
}
