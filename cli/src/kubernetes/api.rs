//! Sessions at the API server: create, renew, list, delete, and the dry run that lists targets.
//!
//! A client makes one Session and nothing else. The admission webhook's answer is in the object that the POST returns.

use std::fmt::Debug;

use futures::future::BoxFuture;
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use mirrord_protocol::feature::Feature;
use mirrord_session::{Session, SessionSpec, SessionStatus, Target, TargetReport, session_name};
use serde::{Deserialize, Serialize};

use super::{refusal::Refusal, server::Server};

/// What a session is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// `kind/name`.
    pub target: String,
    /// Which container, where the user said so.
    pub container: Option<String>,
    /// It is no use without these.
    pub features: Vec<Feature>,
    /// Taken where granted.
    pub optional: Vec<Feature>,
}

impl Wanted {
    /// A session on a target.
    #[must_use]
    pub fn new(target: &Target, features: Vec<Feature>, optional: Vec<Feature>) -> Self {
        let name = format!("{}/{}", target.kind.word(), target.name);
        Self { target: name, container: target.container.clone(), features, optional }
    }

    fn spec(&self, public_key: &[u8]) -> SessionSpec {
        let verbs = |features: &[Feature]| features.iter().map(ToString::to_string).collect();
        SessionSpec {
            target: Some(self.target.clone()),
            container: self.container.clone(),
            features: verbs(&self.features),
            optional_features: verbs(&self.optional),
            ..SessionSpec::default()
        }
        .with_public_key(public_key)
    }
}

/// What keeps a session's grant alive. The API server's end is [`Held`]; tests have others.
pub trait Lease: Debug + Send + Sync + 'static {
    /// Asks for a later expiry; the answer also lists the pods that can serve now.
    fn renew(&self, number: u64) -> BoxFuture<'_, Result<SessionStatus, Refusal>>;
    /// Ends it.
    fn end(&self) -> BoxFuture<'_, Result<(), Refusal>>;
}

/// The Sessions of one namespace, or of all.
#[derive(Clone)]
pub struct Sessions {
    server: Server,
    api: Api<Session>,
    namespace: Option<String>,
}

impl Sessions {
    /// Of a namespace; without one, of all.
    #[must_use]
    pub fn new(server: Server, namespace: Option<&str>) -> Self {
        let client = server.client().clone();
        let api = match namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        Self { server, api, namespace: namespace.map(str::to_owned) }
    }

    /// Makes the session of a key.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn create(&self, wanted: &Wanted, public_key: &[u8]) -> Result<(Held, SessionStatus), Refusal> {
        let name = session_name(public_key);
        let session = session(Some(name.clone()), wanted.spec(public_key));
        let parameters = PostParams::default();
        let made = self.ask("create", self.api.create(&parameters, &session)).await?;
        let Some(status) = made.status else {
            // Without a control plane nobody looks after what was stored.
            if let Err(refusal) = self.delete(&name).await {
                tracing::warn!(%refusal, session = name, "a session that nobody admitted is left behind");
            }
            return Err(Refusal::NotAdmitted);
        };
        Ok((Held { sessions: self.clone(), name }, status))
    }

    /// The targets that the caller may use: a dry run, nothing is stored.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn targets(&self) -> Result<Vec<TargetReport>, Refusal> {
        let session = session(Some("s-targets".to_owned()), SessionSpec::default());
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let answer = self.ask("create", self.api.create(&parameters, &session)).await?;
        Ok(answer.status.ok_or(Refusal::NotAdmitted)?.targets)
    }

    /// All Sessions.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn list(&self) -> Result<Vec<Session>, Refusal> {
        Ok(self.ask("list", self.api.list(&ListParams::default())).await?.items)
    }

    /// Deletes a Session.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn delete(&self, name: &str) -> Result<(), Refusal> {
        self.ask("delete", self.api.delete(name, &DeleteParams::default())).await.map(drop)
    }

    async fn renew(&self, name: &str, number: u64) -> Result<SessionStatus, Refusal> {
        let patch = Patch::Merge(serde_json::json!({ "spec": { "renewal": number } }));
        let parameters = PatchParams::default();
        let session = self.ask("patch", self.api.patch(name, &parameters, &patch)).await?;
        session.status.filter(|status| answers(status, number)).ok_or(Refusal::NoLongerInstalled)
    }

    async fn ask<T>(
        &self,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        self.server.ask(verb, self.namespace.as_deref(), request).await
    }
}

/// Whether a stored status is what this renewal was answered with, and not a request before it that nobody looked at.
/// Older control planes don't say; they are believed.
fn answers(status: &SessionStatus, renewal: u64) -> bool {
    status.renewal.is_none_or(|answered| answered == renewal)
}

fn session(name: Option<String>, spec: SessionSpec) -> Session {
    Session { metadata: ObjectMeta { name, ..ObjectMeta::default() }, spec, status: None }
}

/// A session that was made here.
#[derive(Clone)]
pub struct Held {
    sessions: Sessions,
    name: String,
}

impl Held {
    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&self.name).finish()
    }
}

impl Lease for Held {
    fn renew(&self, number: u64) -> BoxFuture<'_, Result<SessionStatus, Refusal>> {
        Box::pin(self.sessions.renew(&self.name, number))
    }

    fn end(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(self.sessions.delete(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_that_nobody_looked_at_is_known_by_its_number() {
        let status = |renewal| SessionStatus { renewal, ..SessionStatus::default() };
        assert!(answers(&status(Some(7)), 7));
        assert!(!answers(&status(Some(6)), 7), "that of the renewal before");
        assert!(!answers(&status(Some(0)), 7), "that of the creation");
        assert!(answers(&status(None), 7), "an older control plane's");
    }
}
