//! Finds what a target means: its pods, and the top-level workload that rights are checked on.
//!
//! Down by label selector, confirmed by owner UIDs (a selector alone would take other workloads' pods); up by
//! controller references, each confirmed by the UID of the object it names, so that a stale or invented reference ends
//! the climb and the rights of what is really there count. A pod or replica set as target narrows the pods, never the
//! rights. Controllers of other kinds (operators) end the climb too: RBAC names what they made.

use std::{collections::BTreeSet, fmt::Debug};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Error, Resource, ResourceExt,
    api::ListParams,
    core::{NamespaceResourceScope, Selector},
};
use mirrord_session::{Target, TargetKind};
use serde::de::DeserializeOwned;

/// Label that the job controller puts on its pods.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";
/// Longest real chain: Pod → Job → CronJob, Pod → ReplicaSet → Deployment.
const MAX_CLIMB: usize = 4;

/// A workload, as RBAC and users name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// What it is.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
}

impl Workload {
    /// The name that RBAC rules' `resourceNames` use: `deployment.checkout`.
    #[must_use]
    pub fn resource_name(&self) -> String {
        format!("{}.{}", self.kind.word(), self.name)
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.word(), self.name)
    }
}

/// A target that exists.
#[derive(Debug)]
pub struct Found {
    /// The top-level workload: whose rights count.
    pub workload: Workload,
    /// Where the target's own pods are looked for.
    scope: Scope,
}

/// Where pods are looked for.
#[derive(Debug)]
enum Scope {
    /// This one is meant.
    One(Box<Pod>),
    /// Those that a selector finds and a controller of these UIDs owns.
    Owned { selector: String, controllers: Owners },
}

/// Who owns the pods.
#[derive(Debug)]
enum Owners {
    /// The target itself.
    Itself(String),
    /// Replica sets of the deployment with this UID.
    ReplicaSetsOf(String),
    /// Jobs of the cron job with this UID.
    JobsOf(String),
}

/// A look-up of one namespace.
#[derive(Clone)]
pub struct Lookup {
    client: Client,
    namespace: String,
}

/// What is common to what controls pods.
struct Controller {
    meta: ObjectMeta,
    selector: Option<LabelSelector>,
}

impl Lookup {
    /// A look-up in a namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// Finds a target; `None` where there is none of that name.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn find(&self, target: &Target) -> Result<Option<Found>, Error> {
        if target.kind == TargetKind::Pod {
            let Some(pod) = self.api::<Pod>().get_opt(&target.name).await? else { return Ok(None) };
            let workload =
                self.top(Workload { kind: target.kind, name: target.name.clone() }, &pod.metadata).await?;
            return Ok(Some(Found { workload, scope: Scope::One(Box::new(pod)) }));
        }
        let Some(Controller { meta, selector }) = self.controller(target.kind, &target.name).await? else {
            return Ok(None);
        };
        let workload = self.top(Workload { kind: target.kind, name: target.name.clone() }, &meta).await?;
        let uid = meta.uid.unwrap_or_default();
        let controllers = match target.kind {
            TargetKind::Deployment => Owners::ReplicaSetsOf(uid),
            TargetKind::CronJob => Owners::JobsOf(uid),
            _ => Owners::Itself(uid),
        };
        // Only narrows what is asked for; the owners decide.
        let selector = match selector {
            Some(selector) => Selector::try_from(selector).map(|it| it.to_string()).unwrap_or_default(),
            None if target.kind == TargetKind::CronJob => JOB_LABEL.to_owned(),
            None => String::new(),
        };
        Ok(Some(Found { workload, scope: Scope::Owned { selector, controllers } }))
    }

    /// The pods of a target that was found.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn pods(&self, found: Found) -> Result<Vec<Pod>, Error> {
        let (selector, controllers) = match found.scope {
            Scope::One(pod) => return Ok(vec![*pod]),
            Scope::Owned { selector, controllers } => (selector, controllers),
        };
        let params = ListParams::default().labels(&selector);
        let api = self.api::<Pod>();
        let (pods, owners) = futures::future::try_join(api.list(&params), async {
            Ok(match controllers {
                Owners::Itself(uid) => BTreeSet::from([uid]),
                Owners::ReplicaSetsOf(uid) => self.owned::<ReplicaSet>(&params, &uid).await?,
                Owners::JobsOf(uid) => self.owned::<Job>(&ListParams::default(), &uid).await?,
            })
        })
        .await?;
        let owned = |pod: &Pod| controller_of(&pod.metadata).is_some_and(|owner| owners.contains(&owner.uid));
        Ok(pods.items.into_iter().filter(owned).collect())
    }

    /// The UID of a workload; `None` where it is gone.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn uid(&self, workload: &Workload) -> Result<Option<String>, Error> {
        let meta = match workload.kind {
            TargetKind::Pod => self.api::<Pod>().get_opt(&workload.name).await?.map(|pod| pod.metadata),
            kind => self.controller(kind, &workload.name).await?.map(|controller| controller.meta),
        };
        Ok(meta.and_then(|meta| meta.uid))
    }

    /// The workloads that users name most: for suggestions.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn common_workloads(&self) -> Result<Vec<Workload>, Error> {
        let (deployments, stateful_sets, daemon_sets) = futures::future::try_join3(
            self.names_of::<Deployment>(TargetKind::Deployment),
            self.names_of::<StatefulSet>(TargetKind::StatefulSet),
            self.names_of::<DaemonSet>(TargetKind::DaemonSet),
        )
        .await?;
        Ok([deployments, stateful_sets, daemon_sets].concat())
    }

    /// Climbs from an object to the workload at the top.
    async fn top(&self, mut workload: Workload, meta: &ObjectMeta) -> Result<Workload, Error> {
        let mut meta = meta.clone();
        for _ in 0..MAX_CLIMB {
            let Some(owner) = controller_of(&meta) else { break };
            let Some(kind) = kind_of(owner) else { break };
            let Some(controller) = self.controller(kind, &owner.name).await? else { break };
            if controller.meta.uid.as_deref() != Some(&owner.uid) {
                break;
            }
            workload = Workload { kind, name: owner.name.clone() };
            meta = controller.meta;
        }
        Ok(workload)
    }

    async fn controller(&self, kind: TargetKind, name: &str) -> Result<Option<Controller>, Error> {
        macro_rules! get {
            ($kind:ty, $object:ident => $selector:expr) => {
                self.api::<$kind>().get_opt(name).await?.map(|$object| {
                    let selector = $selector;
                    Controller { meta: $object.metadata, selector }
                })
            };
        }
        Ok(match kind {
            TargetKind::Deployment => get!(Deployment, it => it.spec.map(|spec| spec.selector)),
            TargetKind::StatefulSet => get!(StatefulSet, it => it.spec.map(|spec| spec.selector)),
            TargetKind::DaemonSet => get!(DaemonSet, it => it.spec.map(|spec| spec.selector)),
            TargetKind::ReplicaSet => get!(ReplicaSet, it => it.spec.map(|spec| spec.selector)),
            TargetKind::Job => get!(Job, it => it.spec.and_then(|spec| spec.selector)),
            TargetKind::CronJob => get!(CronJob, it => None),
            TargetKind::Pod => None,
        })
    }

    /// UIDs of the objects that a controller owns.
    async fn owned<K>(&self, params: &ListParams, owner: &str) -> Result<BTreeSet<String>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let objects = self.api::<K>().list_metadata(params).await?.items.into_iter();
        let owned =
            objects.filter(|object| controller_of(&object.metadata).is_some_and(|by| by.uid == owner));
        Ok(owned.filter_map(|object| object.metadata.uid).collect())
    }

    async fn names_of<K>(&self, kind: TargetKind) -> Result<Vec<Workload>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let objects = self.api::<K>().list_metadata(&ListParams::default()).await?;
        Ok(objects.items.iter().map(|object| Workload { kind, name: object.name_any() }).collect())
    }

    /// An API of the namespace.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// The reference to what controls an object: there is at most one.
pub(super) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The kind that a reference names, where it is one of Kubernetes' own.
pub(super) fn kind_of(owner: &OwnerReference) -> Option<TargetKind> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    Some(match (group, owner.kind.as_str()) {
        ("apps", "Deployment") => TargetKind::Deployment,
        ("apps", "StatefulSet") => TargetKind::StatefulSet,
        ("apps", "DaemonSet") => TargetKind::DaemonSet,
        ("apps", "ReplicaSet") => TargetKind::ReplicaSet,
        ("batch", "Job") => TargetKind::Job,
        ("batch", "CronJob") => TargetKind::CronJob,
        _ => return None,
    })
}
