//! The LimitRanges and ResourceQuotas of all namespaces, by watch: a pod's admission asks nobody.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    injection::{LimitRangeItem, Limits, Quota},
    metrics::{Watch, metrics},
};

/// What is known.
#[derive(Default)]
pub struct LimitRanges {
    ranges: ByNamespace<Vec<LimitRangeItem>>,
    quotas: ByNamespace<Quota>,
}

impl LimitRanges {
    /// The bounds of a namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Limits {
        let (ranges, quotas) = (self.ranges.read(), self.quotas.read());
        let limits = Limits::of(ranges.get(namespace).into_iter().flat_map(BTreeMap::values).flatten());
        limits.left_by(quotas.get(namespace).into_iter().flat_map(BTreeMap::values))
    }

    /// Keeps up to date, for ever; tells once everything is known.
    pub async fn follow(&self, client: Client, known_tx: &watch::Sender<bool>) {
        let (ranges_tx, mut ranges_known) = watch::channel(false);
        let (quotas_tx, mut quotas_known) = watch::channel(false);
        let known = async {
            let both = ranges_known.wait_for(|known| *known).await.is_ok()
                && quotas_known.wait_for(|known| *known).await.is_ok();
            known_tx.send_replace(both);
        };
        // By way of JSON: injection reads the API server's own form, and knows nothing of our client.
        let limits = |range: &LimitRange| serde_json::to_value(&range.spec.as_ref()?.limits).ok();
        let quota = |quota: &ResourceQuota| serde_json::to_value(quota.status.as_ref()?).ok();
        tokio::join!(
            self.ranges.follow(Api::all(client.clone()), limits, &ranges_tx),
            self.quotas.follow(Api::all(client), quota, &quotas_tx),
            known
        );
    }
}

/// What objects of one kind say, by namespace and name.
struct ByNamespace<T>(RwLock<Said<T>>);

type Said<T> = HashMap<String, BTreeMap<String, T>>;

impl<T> Default for ByNamespace<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: DeserializeOwned> ByNamespace<T> {
    async fn follow<K>(&self, api: Api<K>, read: impl Fn(&K) -> Option<Value>, known_tx: &watch::Sender<bool>)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = HashMap::new(),
                Ok(Event::InitApply(object)) => put(&mut listed, &object, read(&object)),
                Ok(Event::InitDone) => {
                    *self.write() = std::mem::take(&mut listed);
                    known_tx.send_replace(true);
                }
                Ok(Event::Apply(object)) => put(&mut self.write(), &object, read(&object)),
                Ok(Event::Delete(object)) => remove(&mut self.write(), &object),
                Err(error) => {
                    metrics().cluster.watch_restarts.of(Watch::LimitRanges).inc();
                    tracing::warn!(kind = %K::kind(&()), "bounds of namespaces can't be watched: {error}");
                }
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Said<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Said<T>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put<T: DeserializeOwned, K: Resource<DynamicType = ()>>(
    all: &mut Said<T>,
    object: &K,
    says: Option<Value>,
) {
    match says.map(serde_json::from_value) {
        Some(Ok(says)) => {
            all.entry(object.namespace().unwrap_or_default()).or_default().insert(object.name_any(), says);
        }
        Some(Err(error)) => {
            tracing::warn!(
                kind = %K::kind(&()),
                namespace = object.namespace(),
                name = object.name_any(),
                "unreadable bounds: {error}"
            );
        }
        None => remove(all, object),
    }
}

fn remove<T, K: Resource<DynamicType = ()>>(all: &mut Said<T>, object: &K) {
    let namespace = object.namespace().unwrap_or_default();
    if let Some(said) = all.get_mut(&namespace) {
        said.remove(&object.name_any());
        if said.is_empty() {
            all.remove(&namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put_range(ranges: &LimitRanges, name: &str, minimum: &str) {
        let limits = json!([{ "type": "Container", "min": { "cpu": minimum } }]);
        put(&mut ranges.ranges.write(), &object::<LimitRange>(name), Some(limits));
    }

    fn object<K: DeserializeOwned>(name: &str) -> K {
        serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "shop" } })).unwrap()
    }

    #[test]
    fn bounds_follow_the_ranges_of_their_namespace() {
        let ranges = LimitRanges::default();
        put_range(&ranges, "a", "5m");
        put_range(&ranges, "b", "20m");
        let both = ranges.of("shop");
        assert_ne!(both, Limits::default());
        assert_eq!(ranges.of("elsewhere"), Limits::default());
        put_range(&ranges, "b", "1m");
        assert_ne!(ranges.of("shop"), both);
        remove(&mut ranges.ranges.write(), &object::<LimitRange>("a"));
        remove(&mut ranges.ranges.write(), &object::<LimitRange>("b"));
        assert_eq!(ranges.of("shop"), Limits::default());
    }

    #[test]
    fn a_quota_counts_from_when_the_api_server_has_counted() {
        let known = LimitRanges::default();
        let quota = object::<ResourceQuota>("quota");
        put(&mut known.quotas.write(), &quota, None);
        assert_eq!(known.of("shop"), Limits::default());
        let status =
            json!({ "hard": { "limits.cpu": "2", "count/pods": "7" }, "used": { "limits.cpu": "500m" } });
        put(&mut known.quotas.write(), &quota, Some(status));
        assert_ne!(known.of("shop"), Limits::default());
        remove(&mut known.quotas.write(), &quota);
        assert_eq!(known.of("shop"), Limits::default());
    }
}
