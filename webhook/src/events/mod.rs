//! Kubernetes Events (events.k8s.io/v1): what users see by `kubectl describe` of a workload, a Session or a pod.
//!
//! Each Event has a name that follows from what it is about, so of two replicas that see the same, one writes it and the
//! other is told that it is there: no leader, and no right but to create. A flood of sessions is no flood of Events: each
//! replica has a bucket of tokens for each namespace ([`bucket`]), and what finds it empty is counted and left out. Nothing waits for an
//! Event; what became of it is a metric.

pub mod bucket;

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, Error, Resource, ResourceExt, api::PostParams};
use mirrord_protocol::DOMAIN;
use mirrord_session::{Session, SessionStatus, TargetKind};

use self::bucket::Buckets;
use crate::{
    boot::desired::Twin,
    metrics::{EventResult, Occasion, metrics},
    sessions::lookup::{Lookup, Workload},
};

/// What an API server takes as a note, in bytes.
const NOTE_BYTES: usize = 1024;
/// How much of a name from outside stands in a note, in characters.
const NAME_CHARACTERS: usize = 128;

/// Writes Events.
pub struct Events {
    client: Client,
    /// Which replica reports: its pod's name.
    instance: String,
    buckets: Mutex<Buckets>,
}

/// An Event before it has a place and a time.
#[derive(Debug)]
struct Draft {
    occasion: Occasion,
    name: String,
    warns: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
}

impl Events {
    /// Writes to this API server.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "mirrord-webhook".to_owned());
        Self { client, instance, buckets: Mutex::default() }
    }

    /// A session started: on its workload and on itself.
    pub async fn started(&self, session: &Session) {
        let Some(status) = &session.status else { return };
        let namespace = session.namespace().unwrap_or_default();
        if !self.take(Occasion::Started, &namespace) {
            return;
        }
        let draft = |on| Draft {
            occasion: Occasion::Started,
            name: format!("{}.started-on-{on}", session.name_any()),
            warns: false,
            reason: "SessionStarted",
            action: "StartSession",
            note: format!(
                "{} started session {} in container {:?}: {}",
                quoted(&status.creator.username),
                session.name_any(),
                status.container,
                status.features.join(", ")
            ),
        };
        let own = session.object_ref(&());
        if let Some(workload) = self.workload(&namespace, status).await {
            self.write(&namespace, draft("workload"), workload, Some(own.clone())).await;
        }
        self.write(&namespace, draft("session"), own, None).await;
    }

    /// A session ended: on its workload only, for itself is gone. Returns whether another replica told of it already.
    pub async fn ended(&self, session: &Session, why: &str) -> bool {
        let Some(status) = &session.status else { return false };
        let namespace = session.namespace().unwrap_or_default();
        if !self.take(Occasion::Ended, &namespace) {
            return false;
        }
        let Some(workload) = self.workload(&namespace, status).await else { return false };
        let draft = Draft {
            occasion: Occasion::Ended,
            name: format!("{}.ended", session.name_any()),
            warns: false,
            reason: "SessionEnded",
            action: "EndSession",
            note: format!(
                "session {} of {} ended: {why}",
                session.name_any(),
                quoted(&status.creator.username)
            ),
        };
        self.write(&namespace, draft, workload, Some(session.object_ref(&()))).await == EventResult::There
    }

    /// A sidecar can't be told of its sessions: on its pod.
    pub async fn unreachable(&self, twin: &Twin, why: &str) {
        if !self.take(Occasion::Unreachable, &twin.namespace) {
            return;
        }
        let draft = Draft {
            occasion: Occasion::Unreachable,
            // A route is one container of one pod: there is one such Event until the API server forgets it.
            name: format!("mirrord-{}.unreachable", twin.route),
            warns: true,
            reason: "SidecarUnreachable",
            action: "TellSidecar",
            note: format!(
                "mirrord's sidecar can't be told of its sessions, which wait for it: {}",
                quoted(why)
            ),
        };
        let pod = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(twin.namespace.clone()),
            name: Some(twin.pod.clone()),
            uid: Some(twin.pod_uid.clone()),
            ..ObjectReference::default()
        };
        self.write(&twin.namespace, draft, pod, None).await;
    }

    fn take(&self, occasion: Occasion, namespace: &str) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = buckets.take(namespace, Instant::now());
        if !taken {
            metrics().cluster.events.of((occasion, EventResult::Suppressed)).inc();
        }
        taken
    }

    /// The workload as an object; kubectl finds Events by its UID.
    async fn workload(&self, namespace: &str, status: &SessionStatus) -> Option<ObjectReference> {
        let (kind, name) = status.workload.split_once('.')?;
        let workload = Workload { kind: TargetKind::from_word(kind)?, name: name.to_owned() };
        let found = Lookup::new(self.client.clone(), namespace).uid(&workload).await;
        let (api_version, kind) = object_kind(workload.kind);
        Some(ObjectReference {
            api_version: Some(api_version.into()),
            kind: Some(kind.into()),
            namespace: Some(namespace.to_owned()),
            name: Some(workload.name),
            uid: Some(found.ok()??),
            ..ObjectReference::default()
        })
    }

    async fn write(
        &self,
        namespace: &str,
        draft: Draft,
        regarding: ObjectReference,
        related: Option<ObjectReference>,
    ) -> EventResult {
        let occasion = draft.occasion;
        let event = event(draft, namespace, &self.instance, regarding, related);
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let result = match api.create(&PostParams::default(), &event).await {
            Ok(_) => EventResult::Written,
            Err(Error::Api(status)) if status.code == 409 => EventResult::There,
            Err(error) => {
                // A namespace that is being deleted takes none; nothing depends on it.
                tracing::debug!(namespace, error = error.to_string(), "an Event can't be written");
                EventResult::Failed
            }
        };
        metrics().cluster.events.of((occasion, result)).inc();
        result
    }
}

fn event(
    draft: Draft,
    namespace: &str,
    instance: &str,
    regarding: ObjectReference,
    related: Option<ObjectReference>,
) -> Event {
    let Draft { name, warns, reason, action, mut note, .. } = draft;
    note.truncate(note.floor_char_boundary(NOTE_BYTES));
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some(format!("{DOMAIN}/control-plane")),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(if warns { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(reason.to_owned()),
        action: Some(action.to_owned()),
        note: Some(note),
        regarding: Some(regarding),
        related,
        ..Event::default()
    }
}

/// Text from outside: bounded, and unable to move a terminal's cursor.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(NAME_CHARACTERS).collect::<String>())
}

fn object_kind(kind: TargetKind) -> (&'static str, &'static str) {
    match kind {
        TargetKind::Deployment => ("apps/v1", "Deployment"),
        TargetKind::StatefulSet => ("apps/v1", "StatefulSet"),
        TargetKind::DaemonSet => ("apps/v1", "DaemonSet"),
        TargetKind::ReplicaSet => ("apps/v1", "ReplicaSet"),
        TargetKind::Job => ("batch/v1", "Job"),
        TargetKind::CronJob => ("batch/v1", "CronJob"),
        TargetKind::Pod => ("v1", "Pod"),
    }
}
