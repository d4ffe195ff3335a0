//! What the LimitRanges and ResourceQuotas of a namespace ask of one more container.
//!
//! A pod that breaks a LimitRange is refused as a whole, the application with it; so the sidecar's amounts are
//! fitted to the bounds, and where the pod as a whole has no room for them it gets no sidecar. Several LimitRanges
//! are merged into the strictest bound of each resource. (Their defaults need no care: the API server's LimitRanger
//! runs before webhooks, and what it gave to the application is then among the keys that the sidecar mirrors.) A quota
//! refuses pods as a whole too; what is left of it is known by watch, so it may be a moment old.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::quantity::Quantity;

/// One item of `spec.limits` of a LimitRange, as the API server writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitRangeItem {
    /// `Container`, `Pod` or `PersistentVolumeClaim`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The smallest amounts, by resource.
    #[serde(default)]
    pub min: BTreeMap<String, Quantity>,
    /// The largest amounts, by resource.
    #[serde(default)]
    pub max: BTreeMap<String, Quantity>,
    /// How many times its request a limit may be, by resource.
    #[serde(default)]
    pub max_limit_request_ratio: BTreeMap<String, Quantity>,
}

/// The bounds of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The smallest request and limit of a container.
    pub min: Option<Quantity>,
    /// The largest request and limit of a container.
    pub max: Option<Quantity>,
    /// How many times its request a limit may be.
    pub ratio: Option<Quantity>,
    /// The largest sum over the containers of a pod.
    pub pod_max: Option<Quantity>,
    /// What quotas leave of requests.
    pub request_left: Option<Quantity>,
    /// What quotas leave of limits.
    pub limit_left: Option<Quantity>,
}

/// The `status` of a ResourceQuota. (Of which pods it counts, its scopes, nothing is read: a pod matters more than its
/// sidecar.)
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Quota {
    /// The bounds, by resource as quotas name it: `limits.cpu`.
    #[serde(default)]
    pub hard: BTreeMap<String, Quantity>,
    /// What counts against them.
    #[serde(default)]
    pub used: BTreeMap<String, Quantity>,
}

impl Quota {
    fn left(&self, name: &str) -> Option<Quantity> {
        let used = self.used.get(name).copied().unwrap_or_default();
        self.hard.get(name).map(|hard| hard.minus(used))
    }
}

/// The bounds of a namespace. The default has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub(super) bounds: PerResource<Bounds>,
}

/// One value for each resource that a sidecar may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerResource<T> {
    /// `cpu`
    pub cpu: T,
    /// `memory`
    pub memory: T,
    /// `ephemeral-storage`
    pub ephemeral_storage: T,
}

impl Limits {
    /// Merges the items of all LimitRanges of a namespace.
    #[must_use]
    pub fn of<'a>(items: impl IntoIterator<Item = &'a LimitRangeItem>) -> Self {
        let mut limits = Self::default();
        for item in items {
            limits.each().into_iter().for_each(|(name, bounds)| bounds.tighten(item, name));
        }
        limits
    }

    /// Adds what quotas leave.
    #[must_use]
    pub fn left_by<'a>(mut self, quotas: impl IntoIterator<Item = &'a Quota>) -> Self {
        for quota in quotas {
            for (name, bounds) in self.each() {
                // Both names mean requests.
                for request in [name, &format!("requests.{name}")] {
                    bounds.request_left = smaller(bounds.request_left, quota.left(request));
                }
                bounds.limit_left = smaller(bounds.limit_left, quota.left(&format!("limits.{name}")));
            }
        }
        self
    }

    fn each(&mut self) -> [(&'static str, &mut Bounds); 3] {
        let PerResource { cpu, memory, ephemeral_storage } = &mut self.bounds;
        [("cpu", cpu), ("memory", memory), ("ephemeral-storage", ephemeral_storage)]
    }
}

impl Bounds {
    fn tighten(&mut self, item: &LimitRangeItem, resource: &str) {
        let ratio = item.max_limit_request_ratio.get(resource).copied();
        match item.kind.as_str() {
            "Container" => {
                self.min = self.min.max(item.min.get(resource).copied());
                self.max = smaller(self.max, item.max.get(resource).copied());
                self.ratio = smaller(self.ratio, ratio);
            }
            // A pod keeps its ratio when each of its containers does.
            "Pod" => {
                self.pod_max = smaller(self.pod_max, item.max.get(resource).copied());
                self.ratio = smaller(self.ratio, ratio);
            }
            _ => {}
        }
    }
}

/// The smaller of those that are there.
pub(super) fn smaller(one: Option<Quantity>, other: Option<Quantity>) -> Option<Quantity> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_limit_ranges_merge_into_the_strictest() {
        let items: Vec<LimitRangeItem> = serde_json::from_str(
            r#"[{"type": "Container", "min": {"cpu": "5m", "memory": "32Mi"}, "max": {"cpu": "2"}},
                {"type": "Container", "min": {"cpu": "20m"}, "max": {"cpu": "1"}, "default": {"cpu": "1"}},
                {"type": "Pod", "max": {"cpu": "4"}, "maxLimitRequestRatio": {"cpu": "10"}},
                {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}}]"#,
        )
        .unwrap();
        let bounds = Limits::of(&items).bounds;
        assert_eq!(bounds.cpu.min, Some(Quantity::milli(20)));
        assert_eq!(bounds.cpu.max, Some(Quantity::milli(1000)));
        assert_eq!(bounds.cpu.pod_max, Some(Quantity::milli(4000)));
        assert_eq!(bounds.cpu.ratio, Some(Quantity::milli(10_000)));
        assert_eq!(bounds.memory, Bounds { min: Some(Quantity::mebi(32)), ..Bounds::default() });
    }

    #[test]
    fn of_several_quotas_the_tightest_counts() {
        let quotas: Vec<Quota> = serde_json::from_str(
            r#"[{"hard": {"cpu": "4", "limits.memory": "1Gi", "pods": "9"}, "used": {"cpu": "1500m"}},
                {"hard": {"requests.cpu": "3"}, "used": {"requests.cpu": "1"}}, {"hard": {"cpu": "1"}, "used": {"cpu": "7"}}]"#,
        )
        .unwrap();
        let left = |quotas: &[Quota]| Limits::default().left_by(quotas).bounds;
        assert_eq!(left(&quotas[..2]).cpu.request_left, Some(Quantity::milli(2000)));
        assert_eq!(left(&quotas[..2]).memory.limit_left, Some(Quantity::mebi(1024)));
        assert_eq!(left(&quotas[..2]).memory.request_left, None);
        assert_eq!(
            left(&quotas).cpu.request_left,
            Some(Quantity::default()),
            "one that is exceeded leaves nothing"
        );
    }
}
