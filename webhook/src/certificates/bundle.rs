//! Writes our authority into `caBundle` of our webhooks. The chart renders none, and what Helm or others put there is
//! replaced at once: the configuration is watched, and patched only where it differs, so replicas don't chase each other.
//!
//! The configuration's age matters too. While it is missing (an uninstalled chart leaves the CRD and Sessions behind)
//! the API server stores whatever status a Session comes with. So Sessions older than it are never trusted.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use mirrord_certs::UnixTime;
use serde_json::{Value, json};
use tokio::sync::watch;

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

/// Keeps the configuration's `caBundle` ours, for ever, and tells what is known of it.
pub async fn keep(
    api: Api<MutatingWebhookConfiguration>,
    name: &str,
    authority_pem: &str,
    known_tx: &watch::Sender<Configuration>,
) {
    let mut states = std::pin::pin!(watch_object(api.clone(), name).default_backoff());
    let mut unwritten = None;
    loop {
        let state = match &unwritten {
            None => states.next().await,
            // A refused patch is tried again, changed or not.
            Some(_) => tokio::time::timeout(RETRY, states.next())
                .await
                .unwrap_or_else(|_| Some(Ok(unwritten.take()))),
        };
        match state {
            Some(Ok(Some(configuration))) => {
                let known = ensure(&api, &configuration, authority_pem).await;
                unwritten = (!known.agrees).then_some(configuration);
                known_tx.send_if_modified(|current| std::mem::replace(current, known) != known);
            }
            Some(Ok(None)) => {
                tracing::warn!(
                    name,
                    "there is no MutatingWebhookConfiguration of this name: no pod is injected"
                );
                unwritten = None;
                known_tx.send_replace(Configuration::default());
            }
            Some(Err(error)) => tracing::warn!(name, "the webhook configuration can't be watched: {error}"),
            None => return,
        }
    }
}

async fn ensure(
    api: &Api<MutatingWebhookConfiguration>,
    configuration: &MutatingWebhookConfiguration,
    authority_pem: &str,
) -> Configuration {
    let created = configuration.metadata.creation_timestamp.as_ref();
    let created = created.and_then(|time| u64::try_from(time.0.as_second()).ok());
    let Some(patch) = patch(configuration, authority_pem) else {
        return Configuration { agrees: true, created };
    };
    let name = configuration.name_any();
    match api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => {
            tracing::info!(name, "caBundle written");
            Configuration { agrees: true, created }
        }
        Err(error) => {
            tracing::error!(name, "caBundle can't be written: {error}");
            Configuration { agrees: false, created }
        }
    }
}

/// What to change; `None` where all is as it should be. Lists of webhooks are merged by name.
fn patch(configuration: &MutatingWebhookConfiguration, authority_pem: &str) -> Option<Value> {
    let ours = |webhook: &&MutatingWebhook| webhook.client_config.service.is_some();
    let differs = |webhook: &&MutatingWebhook| {
        webhook.client_config.ca_bundle.as_ref().is_none_or(|bundle| bundle.0 != authority_pem.as_bytes())
    };
    let bundle = k8s_openapi::ByteString(authority_pem.as_bytes().to_vec());
    let changes: Vec<Value> = configuration
        .webhooks
        .iter()
        .flatten()
        .filter(ours)
        .filter(differs)
        .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } }))
        .collect();
    (!changes.is_empty()).then(|| json!({ "webhooks": changes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: &[Option<&str>]) -> MutatingWebhookConfiguration {
        let webhooks = bundles.iter().enumerate().map(|(index, bundle)| {
            let bundle = bundle.map(|bundle| k8s_openapi::ByteString(bundle.into()));
            json!({
                "name": format!("w{index}"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": { "service": { "name": "s", "namespace": "n" }, "caBundle": bundle },
            })
        });
        serde_json::from_value(json!({ "webhooks": webhooks.collect::<Vec<_>>() })).unwrap()
    }

    #[test]
    fn only_what_differs_is_written() {
        assert_eq!(patch(&configuration(&[Some("ours"), Some("ours")]), "ours"), None);
        let changes = patch(&configuration(&[Some("ours"), None, Some("theirs")]), "ours").unwrap();
        let bundle = "b3Vycw==";
        let expected = json!({ "webhooks": [
            { "name": "w1", "clientConfig": { "caBundle": bundle } },
            { "name": "w2", "clientConfig": { "caBundle": bundle } },
        ]});
        assert_eq!(changes, expected);
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
