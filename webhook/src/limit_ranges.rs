//! The LimitRanges of all namespaces, by watch: a pod's admission asks nobody.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::LimitRange;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::watch;

use crate::{
    injection::{LimitRangeItem, Limits},
    metrics::{Watch, metrics},
};

/// Items of the LimitRanges of one namespace, by name.
type Items = BTreeMap<String, Vec<LimitRangeItem>>;

/// What is known.
#[derive(Default)]
pub struct LimitRanges {
    by_namespace: RwLock<HashMap<String, Items>>,
}

impl LimitRanges {
    /// The bounds of a namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Limits {
        let all = self.by_namespace.read().unwrap_or_else(PoisonError::into_inner);
        Limits::of(all.get(namespace).into_iter().flat_map(BTreeMap::values).flatten())
    }

    /// Keeps up to date, for ever; tells once everything is known.
    pub async fn follow(&self, client: Client, known_tx: &watch::Sender<bool>) {
        let events = watcher(Api::<LimitRange>::all(client), watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = HashMap::new(),
                Ok(Event::InitApply(range)) => put(&mut listed, &range),
                Ok(Event::InitDone) => {
                    *self.write() = std::mem::take(&mut listed);
                    known_tx.send_replace(true);
                }
                Ok(Event::Apply(range)) => put(&mut self.write(), &range),
                Ok(Event::Delete(range)) => remove(&mut self.write(), &range),
                Err(error) => {
                    metrics().cluster.watch_restarts.of(Watch::LimitRanges).inc();
                    tracing::warn!("LimitRanges can't be watched: {error}");
                }
            }
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Items>> {
        self.by_namespace.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(all: &mut HashMap<String, Items>, range: &LimitRange) {
    // By way of JSON: injection reads the API server's own form, and knows nothing of our client.
    let items = range.spec.as_ref().and_then(|spec| serde_json::to_value(&spec.limits).ok());
    match items.map(serde_json::from_value) {
        Some(Ok(items)) => {
            all.entry(range.namespace().unwrap_or_default()).or_default().insert(range.name_any(), items);
        }
        Some(Err(error)) => {
            tracing::warn!(
                namespace = range.namespace(),
                name = range.name_any(),
                "unreadable LimitRange: {error}"
            );
        }
        None => remove(all, range),
    }
}

fn remove(all: &mut HashMap<String, Items>, range: &LimitRange) {
    let namespace = range.namespace().unwrap_or_default();
    if let Some(items) = all.get_mut(&namespace) {
        items.remove(&range.name_any());
        if items.is_empty() {
            all.remove(&namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(name: &str, minimum: &str) -> LimitRange {
        let limits = json!([{ "type": "Container", "min": { "cpu": minimum } }]);
        let range =
            json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": { "limits": limits } });
        serde_json::from_value(range).unwrap()
    }

    #[test]
    fn bounds_follow_the_ranges_of_their_namespace() {
        let ranges = LimitRanges::default();
        put(&mut ranges.write(), &range("a", "5m"));
        put(&mut ranges.write(), &range("b", "20m"));
        let both = ranges.of("shop");
        assert_ne!(both, Limits::default());
        assert_eq!(ranges.of("elsewhere"), Limits::default());
        put(&mut ranges.write(), &range("b", "1m"));
        assert_ne!(ranges.of("shop"), both);
        remove(&mut ranges.write(), &range("a", "5m"));
        remove(&mut ranges.write(), &range("b", "1m"));
        assert_eq!(ranges.of("shop"), Limits::default());
    }
}
