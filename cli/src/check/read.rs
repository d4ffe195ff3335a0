//! Reads the objects, page by page. What RBAC forbids becomes a finding, and is judged by nobody; an API server that doesn't
//! answer at all ends the check.

use std::fmt::Debug;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use mirrord_session::INJECT_LABEL;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    finding::{Finding, Topic},
    found::{CONFIGURATION, Found, Rights},
    opted_in,
    workload::{KINDS, Workload},
};
use crate::{
    exit::Problem,
    kubernetes::server::{Server, in_time},
};

/// Objects per page of a list.
const PAGE: u32 = 500;
/// What the chart's objects are labelled with.
const OURS: &str = "app.kubernetes.io/name=mirrord";

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const CONFIGURATIONS: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";

/// Reads.
pub struct Reader {
    server: Server,
    client: Client,
    /// Only what is in this namespace, besides the installation.
    namespace: Option<String>,
    unread: Unread,
}

/// What could not be read.
#[derive(Debug, Default)]
pub struct Unread {
    /// For want of a right: verb and resource.
    pub forbidden: Vec<String>,
    /// For other reasons.
    pub failed: Vec<Finding>,
}

impl Unread {
    /// One finding for all that RBAC forbids: who lacks one right lacks mostly ten.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.failed.clone();
        if !self.forbidden.is_empty() {
            let what = format!("not all is checked, as you may not {}", self.forbidden.join(", "));
            findings
                .push(Topic::Cluster.warning("your rights", what).fix("run it as an admin of the cluster"));
        }
        findings
    }
}

impl Reader {
    /// Reads there: of one namespace, or of all.
    #[must_use]
    pub fn new(server: Server, namespace: Option<String>) -> Self {
        let client = server.client().clone();
        Self { server, client, namespace, unread: Unread::default() }
    }

    /// Everything, and what could not be read.
    ///
    /// # Errors
    /// Where the API server can't be asked.
    pub async fn read(mut self) -> Result<(Found, Unread), Problem> {
        let version = self.server.ask("get", None, self.client.apiserver_version()).await?;
        let mut found = Found { asked: self.namespace.clone(), server: Some(version), ..Found::default() };
        let definitions = Api::all(self.client.clone());
        found.definition = self.one(definitions, "sessions.mirrord.dev", DEFINITIONS).await;
        let configurations = Api::all(self.client.clone());
        found.configuration = self.one(configurations, CONFIGURATION, CONFIGURATIONS).await;
        self.installation(&mut found).await;
        self.opted_in(&mut found).await;
        found.rights = self.rights().await;
        Ok((found, self.unread))
    }

    async fn installation(&mut self, found: &mut Found) {
        let namespace = found.namespace().to_owned();
        let ours = ListParams::default().labels(OURS);
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
        found.deployments = self.all(deployments, &ours, "deployments.apps").await;
        let services: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        found.services = self.all(services, &ours, "services").await;
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &namespace);
        found.endpoints = self.all(slices, &ListParams::default(), "endpointslices.discovery.k8s.io").await;
    }

    async fn opted_in(&mut self, found: &mut Found) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        found.namespaces = match self.namespace.clone() {
            None => self.all(namespaces, &ListParams::default(), "namespaces").await,
            Some(name) => {
                self.one(namespaces, &name, "namespaces").await.map(|one| one.into_iter().collect())
            }
        };
        found.workloads = self.workloads().await;
        let opted_in = opted_in::namespaces(found);
        let mut pods = Vec::new();
        for namespace in &opted_in {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let Some(of_namespace) = self.all(api, &ListParams::default(), "pods").await else { return };
            pods.extend(of_namespace);
        }
        // Those that opt in elsewhere.
        let api: Api<Pod> = self.scoped();
        let label = ListParams::default().labels(&format!("{INJECT_LABEL}=enabled"));
        let Some(labelled) = self.all(api, &label, "pods").await else { return };
        let elsewhere =
            |pod: &Pod| !pod.metadata.namespace.as_ref().is_some_and(|name| opted_in.contains(name));
        pods.extend(labelled.into_iter().filter(elsewhere));
        found.pods = Some(pods);
        found.policies = self
            .all(self.scoped::<NetworkPolicy>(), &ListParams::default(), "networkpolicies.networking.k8s.io")
            .await;
    }

    async fn workloads(&mut self) -> Option<Vec<Workload>> {
        let mut workloads = Vec::new();
        for (kind, group, version, name) in KINDS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, name));
            let api: Api<DynamicObject> = match &self.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            let objects =
                self.all(api, &ListParams::default(), &format!("{}.{group}", resource.plural)).await?;
            let json = objects.into_iter().filter_map(|object| serde_json::to_value(object).ok());
            workloads.extend(json.filter_map(|object: Value| Workload::new(kind, object)));
        }
        Some(workloads)
    }

    async fn rights(&mut self) -> Option<Rights> {
        let every = ListParams::default();
        Some(Rights {
            roles: self.all(self.scoped(), &every, "roles.rbac.authorization.k8s.io").await?,
            cluster_roles: self
                .all(Api::all(self.client.clone()), &every, "clusterroles.rbac.authorization.k8s.io")
                .await?,
            role_bindings: self.all(self.scoped(), &every, "rolebindings.rbac.authorization.k8s.io").await?,
            cluster_role_bindings: self
                .all(Api::all(self.client.clone()), &every, "clusterrolebindings.rbac.authorization.k8s.io")
                .await?,
        })
    }

    /// Of the one namespace, or of all.
    fn scoped<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    async fn one<K>(&mut self, api: Api<K>, name: &str, what: &str) -> Option<Option<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        match asked(api.get_opt(name)).await {
            Ok(found) => Some(found),
            Err(fault) => self.not_read("get", what, fault),
        }
    }

    async fn all<K>(&mut self, api: Api<K>, parameters: &ListParams, what: &str) -> Option<Vec<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut parameters = parameters.clone().limit(PAGE);
        let mut items = Vec::new();
        loop {
            let page = match asked(api.list(&parameters)).await {
                Ok(page) => page,
                Err(fault) => return self.not_read("list", what, fault),
            };
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Some(items),
            }
        }
    }

    fn not_read<T>(&mut self, verb: &str, what: &str, fault: Fault) -> Option<T> {
        match fault {
            Fault { is_forbidden: true, .. } => self.unread.forbidden.push(format!("{verb} {what}")),
            Fault { reason, .. } => {
                self.unread.failed.push(Topic::Cluster.error(what, format!("can't be read: {reason}")));
            }
        }
        None
    }
}

/// Why something wasn't read.
struct Fault {
    reason: String,
    is_forbidden: bool,
}

async fn asked<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Fault> {
    match in_time(request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => {
            // What is no API server's may be a whole page.
            let reason = status.message.chars().take(300).collect();
            Err(Fault { reason, is_forbidden: status.code == 403 })
        }
        Ok(Err(error)) => Err(Fault { reason: error.to_string(), is_forbidden: false }),
        Err(late) => Err(Fault { reason: late.to_string(), is_forbidden: false }),
    }
}
