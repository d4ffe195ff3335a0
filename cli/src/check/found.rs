//! The objects that checks judge, read once. What could not be read is `None` and nobody judges it.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::Deployment,
        core::v1::{Namespace, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::version::Info,
};
use kube::ResourceExt;

use super::workload::Workload;

/// The name of the webhook configuration, as the chart makes it.
pub const CONFIGURATION: &str = "mirrord";
/// The control plane's Deployment and Service.
pub const WEBHOOK: &str = "mirrord-webhook";
/// The router's Deployment and Service.
pub const INGRESS: &str = "mirrord-ingress";
/// Where it is installed by default.
pub const NAMESPACE: &str = "mirrord";

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Found {
    /// The one namespace that was asked about, if not all.
    pub asked: Option<String>,
    /// The API server's version.
    pub server: Option<Info>,
    /// The resource Session; inner `None`: there is none.
    pub definition: Option<Option<CustomResourceDefinition>>,
    /// The webhook configuration.
    pub configuration: Option<Option<MutatingWebhookConfiguration>>,
    /// Deployments of the control plane's namespace that are ours.
    pub deployments: Option<Vec<Deployment>>,
    /// Services of that namespace.
    pub services: Option<Vec<Service>>,
    /// Their endpoints.
    pub endpoints: Option<Vec<EndpointSlice>>,
    /// All namespaces, or the one that was asked for.
    pub namespaces: Option<Vec<Namespace>>,
    /// What makes pods there.
    pub workloads: Option<Vec<Workload>>,
    /// Pods of opted-in namespaces, and those that opt in elsewhere.
    pub pods: Option<Vec<Pod>>,
    /// NetworkPolicies.
    pub policies: Option<Vec<NetworkPolicy>>,
    /// RBAC.
    pub rights: Option<Rights>,
}

/// RBAC's objects.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the names are those of Kubernetes")]
pub struct Rights {
    pub roles: Vec<Role>,
    pub cluster_roles: Vec<ClusterRole>,
    pub role_bindings: Vec<RoleBinding>,
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
}

impl Found {
    /// The webhook configuration, where there is one.
    #[must_use]
    pub fn configuration(&self) -> Option<&MutatingWebhookConfiguration> {
        self.configuration.as_ref()?.as_ref()
    }

    /// The control plane's namespace: where the configuration's Service is.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.configuration().and_then(namespace_of).unwrap_or(NAMESPACE)
    }

    /// Whether anything of an installation is there; `None` where that couldn't be seen.
    #[must_use]
    pub fn is_installed(&self) -> Option<bool> {
        let parts = self.deployments.as_ref()?;
        Some(self.configuration.as_ref()?.is_some() || !parts.is_empty())
    }

    /// A Deployment of ours.
    #[must_use]
    pub fn deployment(&self, name: &str) -> Option<&Deployment> {
        self.deployments.iter().flatten().find(|deployment| deployment.name_any() == name)
    }

    /// A Service of ours.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().flatten().find(|service| service.name_any() == name)
    }
}

/// Where a configuration's Service is.
#[must_use]
pub fn namespace_of(configuration: &MutatingWebhookConfiguration) -> Option<&str> {
    let mut webhooks = configuration.webhooks.iter().flatten();
    webhooks.find_map(|webhook| Some(webhook.client_config.service.as_ref()?.namespace.as_str()))
}

/// The namespaces whose pods the configuration's selectors leave out.
#[must_use]
pub fn excluded(configuration: &MutatingWebhookConfiguration) -> BTreeSet<&str> {
    let webhooks = configuration.webhooks.iter().flatten();
    let selectors = webhooks.filter_map(|webhook| webhook.namespace_selector.as_ref());
    let requirements = selectors.flat_map(|selector| selector.match_expressions.iter().flatten());
    requirements
        .filter(|requirement| {
            requirement.key == "kubernetes.io/metadata.name" && requirement.operator == "NotIn"
        })
        .flat_map(|requirement| requirement.values.iter().flatten())
        .map(String::as_str)
        .collect()
}
