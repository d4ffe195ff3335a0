//! Writes our authority into `caBundle` of our webhooks, and the paths that end in our key ([`crate::server::routes`]). The
//! chart renders neither, and what Helm or others put there is replaced at once: the configuration is watched, and
//! patched only where it differs, so replicas don't chase each other. Before a patch the keys are read anew.
//!
//! The configuration's age matters too. While it is missing (an uninstalled chart leaves the CRD and Sessions behind)
//! the API server stores whatever status a Session comes with. So Sessions older than it are never trusted.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, WebhookClientConfig,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher, watcher::watch_object},
};
use mirrord_certs::UnixTime;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{keep::Keeper, keys::Keys, secrets::SecretError};
use crate::{
    clock,
    metrics::{Watch, metrics},
    server::routes::{INJECT, SESSIONS},
};

/// An API server may take so long to heed a new configuration, in seconds. Timestamps have whole seconds as well.
const IN_FORCE_AFTER: u64 = 1;

/// After so long a refused patch is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is known of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// All our webhooks carry our authority.
    pub agrees: bool,
    /// When it was made; `None` while there is none.
    pub created: Option<UnixTime>,
}

impl Configuration {
    /// Whether a Session made at this moment went through our admission.
    #[must_use]
    pub fn covers(&self, created: UnixTime) -> bool {
        self.created.is_some_and(|since| created > since + IN_FORCE_AFTER)
    }
}

/// What our webhooks have to carry.
pub struct Ours {
    /// PEM of the authorities that serving certificates come from, and of what the present one's predecessors say of it:
    /// by these, who looks at the configuration can tell which sidecars still know us.
    pub authority_pem: String,
    /// What our paths end in.
    pub path_key: String,
}

impl Ours {
    fn of(keys: &Keys) -> Self {
        let authority_pem = keys.authority.trusted_pem() + &keys.authority.cross_pem();
        Self { authority_pem, path_key: keys.path_key.clone() }
    }

    /// The path of a webhook, by the webhook's name.
    fn path(&self, webhook: &str) -> String {
        let before = if webhook.starts_with("sessions.") { SESSIONS } else { INJECT };
        format!("{before}/{}", self.path_key)
    }
}

/// Keeps a configuration's `caBundle` ours.
pub struct Bundle {
    /// To the API server.
    pub api: Api<MutatingWebhookConfiguration>,
    /// The configuration's name.
    pub name: String,
    /// Whose keys they are.
    pub keeper: Arc<Keeper>,
    /// While it says so, nothing is written.
    pub stopping: watch::Receiver<bool>,
}

impl Bundle {
    /// Keeps the configuration's `caBundle` ours, for ever, and tells what is known of it. A replica that is stopping goes
    /// on looking, since an uninstallation ends sessions, but writes nothing: its keys may have been replaced since.
    pub async fn keep(self, known_tx: &watch::Sender<Configuration>) {
        let mut keyring = self.keeper.keyring();
        let mut states = std::pin::pin!(watch_object(self.api.clone(), &self.name).default_backoff());
        let mut found = None;
        let mut known = Configuration::default();
        loop {
            let is_refused = found.is_some() && !known.agrees;
            tokio::select! {
                state = states.next() => match state {
                    Some(Ok(configuration)) => found = configuration,
                    Some(Err(error)) => {
                        self.unwatched(&error);
                        continue;
                    }
                    None => return,
                },
                () = keyring.changed() => {}
                // A refused patch is tried again.
                () = clock::pause(RETRY), if is_refused => {}
            }
            known = match &mut found {
                Some(configuration) => self.ensure(configuration).await,
                None => self.missing(),
            };
            tell(known_tx, known);
        }
    }

    fn unwatched(&self, error: &watcher::Error) {
        metrics().cluster.watch_restarts.of(Watch::Configuration).inc();
        tracing::warn!(name = self.name, "the webhook configuration can't be watched: {error}");
    }

    fn missing(&self) -> Configuration {
        let name = &*self.name;
        tracing::warn!(name, "there is no MutatingWebhookConfiguration of this name: no pod is injected");
        Configuration::default()
    }

    /// Writes what is missing.
    async fn ensure(&self, configuration: &mut MutatingWebhookConfiguration) -> Configuration {
        let created = configuration.metadata.creation_timestamp.as_ref();
        let created = created.and_then(|time| u64::try_from(time.0.as_second()).ok());
        let agrees = self.patch(configuration).is_none()
            || !*self.stopping.borrow()
                && self.write(configuration).await.inspect_err(|error| self.unwritten(error)).is_ok();
        Configuration { agrees, created }
    }

    fn unwritten(&self, error: &BundleError) {
        tracing::error!(name = self.name, "caBundle and paths stay as they are: {error}");
    }

    /// Writes by the newest keys: another replica may have written by keys that this one doesn't know yet.
    async fn write(&self, configuration: &mut MutatingWebhookConfiguration) -> Result<(), BundleError> {
        self.keeper.refresh().await?;
        if let Some(patch) = self.patch(configuration) {
            let patch = Patch::Strategic(patch);
            *configuration = self.api.patch(&self.name, &PatchParams::default(), &patch).await?;
            tracing::info!(name = self.name, "caBundle and paths written");
        }
        Ok(())
    }

    fn patch(&self, configuration: &MutatingWebhookConfiguration) -> Option<Value> {
        patch(configuration, &Ours::of(&self.keeper.keys()))
    }
}

/// Why a configuration stays as it is.
#[derive(Debug, thiserror::Error)]
enum BundleError {
    /// The keys can't be read.
    #[error("{0}")]
    Keys(#[from] SecretError),
    /// The API server refused, or could not be reached.
    #[error("{0}")]
    Api(#[from] kube::Error),
}

fn tell(known_tx: &watch::Sender<Configuration>, known: Configuration) {
    metrics().cluster.configuration_agrees.set(known.agrees.into());
    known_tx.send_if_modified(|current| std::mem::replace(current, known) != known);
}

/// What to change; `None` where all is as it should be. Lists of webhooks are merged by name.
fn patch(configuration: &MutatingWebhookConfiguration, ours: &Ours) -> Option<Value> {
    let differs = |webhook: &&MutatingWebhook| {
        let WebhookClientConfig { ca_bundle, service, .. } = &webhook.client_config;
        let path = service.as_ref().and_then(|service| service.path.as_deref());
        service.is_some()
            && (ca_bundle.as_ref().is_none_or(|bundle| bundle.0 != ours.authority_pem.as_bytes())
                || path != Some(&ours.path(&webhook.name)))
    };
    let bundle = k8s_openapi::ByteString(ours.authority_pem.as_bytes().to_vec());
    let change = |webhook: &MutatingWebhook| {
        json!({ "name": webhook.name, "clientConfig": {
            "caBundle": bundle, "service": { "path": ours.path(&webhook.name) },
        }})
    };
    let changes: Vec<Value> = configuration.webhooks.iter().flatten().filter(differs).map(change).collect();
    (!changes.is_empty()).then(|| json!({ "webhooks": changes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Webhooks as they stand: name, authority, path.
    fn configuration(webhooks: &[(&str, Option<&str>, Option<&str>)]) -> MutatingWebhookConfiguration {
        let webhooks = webhooks.iter().map(|(name, bundle, path)| {
            let bundle = bundle.map(|bundle| k8s_openapi::ByteString(bundle.into()));
            json!({
                "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {
                    "service": { "name": "s", "namespace": "n", "path": path }, "caBundle": bundle,
                },
            })
        });
        serde_json::from_value(json!({ "webhooks": webhooks.collect::<Vec<_>>() })).unwrap()
    }

    #[test]
    fn only_what_differs_is_written() {
        let ours = Ours { authority_pem: "ours".into(), path_key: "k3y".into() };
        let right = ("a.x", Some("ours"), Some("/inject/k3y"));
        assert_eq!(
            patch(&configuration(&[right, ("sessions.x", Some("ours"), Some("/sessions/k3y"))]), &ours),
            None
        );
        let found = [right, ("b.x", None, Some("/inject/k3y")), ("sessions.x", Some("ours"), None)];
        let config = |path: &str| json!({ "caBundle": "b3Vycw==", "service": { "path": path } });
        let expected = json!({ "webhooks": [
            { "name": "b.x", "clientConfig": config("/inject/k3y") },
            { "name": "sessions.x", "clientConfig": config("/sessions/k3y") },
        ]});
        assert_eq!(patch(&configuration(&found), &ours).unwrap(), expected);
    }

    #[test]
    fn sessions_older_than_the_configuration_are_not_covered() {
        let configuration = Configuration { agrees: true, created: Some(100) };
        assert!(configuration.covers(102));
        assert!(!configuration.covers(101));
        assert!(!configuration.covers(50));
        assert!(!Configuration::default().covers(102));
    }
}
