//! What a sidecar asks for: exactly the keys that its application container asks for, with small values.
//!
//! So the pod keeps its QoS class (a Guaranteed pod stays one: equal values where the application's are equal), a
//! quota that demands a key finds it, and an autoscaler that computes utilisation still can. Only cpu, memory and
//! ephemeral storage: devices and huge pages are not shared with a sidecar.

use serde::Serialize;

use super::{
    limits::{Bounds, Limits, PerResource, smaller},
    pod::{Amount, Container, Pod},
    quantity::Quantity,
    settings::Size,
    skip::SkipReason,
};

/// `resources` of one of our containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct OurResources {
    #[serde(skip_serializing_if = "OurAmounts::is_empty")]
    requests: OurAmounts,
    #[serde(skip_serializing_if = "OurAmounts::is_empty")]
    limits: OurAmounts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct OurAmounts {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ephemeral_storage: Option<String>,
}

impl OurResources {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

impl OurAmounts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Request and limit of one resource.
type Pair<T> = (Option<T>, Option<T>);

/// What the sidecars of a pod ask for, in the order of the containers.
pub(super) fn fit(
    pod: &Pod<'_>,
    containers: &[&Container<'_>],
    sizes: &PerResource<Size>,
    limits: &Limits,
) -> Result<Vec<OurResources>, SkipReason> {
    let bounds = &limits.bounds;
    let cpu = fit_one(pod, containers, &sizes.cpu, &bounds.cpu, cpu)?;
    let memory = fit_one(pod, containers, &sizes.memory, &bounds.memory, memory)?;
    let storage =
        fit_one(pod, containers, &sizes.ephemeral_storage, &bounds.ephemeral_storage, ephemeral_storage)?;
    let text = |quantity: Option<Quantity>| quantity.map(|quantity| quantity.to_string());
    let all = cpu.into_iter().zip(memory).zip(storage);
    Ok(all
        .map(|((cpu, memory), storage)| OurResources {
            requests: OurAmounts {
                cpu: text(cpu.0),
                memory: text(memory.0),
                ephemeral_storage: text(storage.0),
            },
            limits: OurAmounts {
                cpu: text(cpu.1),
                memory: text(memory.1),
                ephemeral_storage: text(storage.1),
            },
        })
        .collect())
}

fn cpu<'a>(of: &super::pod::Resources<'a>) -> Pair<Amount<'a>> {
    (of.requests.cpu, of.limits.cpu)
}

fn memory<'a>(of: &super::pod::Resources<'a>) -> Pair<Amount<'a>> {
    (of.requests.memory, of.limits.memory)
}

fn ephemeral_storage<'a>(of: &super::pod::Resources<'a>) -> Pair<Amount<'a>> {
    (of.requests.ephemeral_storage, of.limits.ephemeral_storage)
}

/// One resource of all sidecars.
fn fit_one<'a>(
    pod: &Pod<'a>,
    containers: &[&Container<'a>],
    size: &Size,
    bounds: &Bounds,
    pick: fn(&super::pod::Resources<'a>) -> Pair<Amount<'a>>,
) -> Result<Vec<Pair<Quantity>>, SkipReason> {
    let quantity = |amount: Option<Amount<'_>>| amount.and_then(Amount::quantity);
    let (pod_request, pod_limit) = pick(&pod.spec.resources);
    let (pod_request, pod_limit) = (quantity(pod_request), quantity(pod_limit));
    // A pod with resources of its own bounds the limit of each container, and the sum of their requests.
    let bounds = Bounds { max: smaller(bounds.max, pod_limit), ..*bounds };
    let pairs: Vec<_> =
        containers.iter().map(|container| ours(pick(&container.resources), size, &bounds)).collect();

    let running = pod
        .spec
        .containers
        .iter()
        .chain(pod.init_containers().iter().filter(|container| container.restarts_always()));
    let theirs = running.map(|container| pick(&container.resources));
    let theirs: Vec<_> = theirs.map(|(request, limit)| (quantity(request), quantity(limit))).collect();
    let sum = |part: fn(&Pair<Quantity>) -> Option<Quantity>| {
        theirs.iter().chain(&pairs).filter_map(part).fold(Quantity::default(), Quantity::plus)
    };
    let (requests, limits) = (sum(|pair| pair.0), sum(|pair| pair.1));
    let adds_nothing = pairs.iter().all(|pair| *pair == (None, None));
    let too_much = |sum, max: Option<Quantity>| max.is_some_and(|max| sum > max);
    let too_much = too_much(requests, smaller(smaller(bounds.pod_max, pod_request), bounds.request_left))
        || too_much(limits, smaller(bounds.pod_max, bounds.limit_left));
    if too_much && !adds_nothing { Err(SkipReason::NoRoom) } else { Ok(pairs) }
}

/// Request and limit of one sidecar, where its application container has them.
fn ours(theirs: Pair<Amount<'_>>, size: &Size, bounds: &Bounds) -> Pair<Quantity> {
    let (their_request, their_limit) = theirs;
    let equal = their_request
        .and_then(Amount::quantity)
        .is_some_and(|request| their_limit.and_then(Amount::quantity) == Some(request));
    let within = |quantity: Quantity| {
        let raised = bounds.min.map_or(quantity, |min| quantity.max(min));
        bounds.max.map_or(raised, |max| raised.min(max))
    };
    let guaranteed = within(size.guaranteed);
    let mut request = if equal { guaranteed } else { within(size.request) };
    let mut limit = if equal { guaranteed } else { within(size.limit.max(size.request)) };
    if let Some(ratio) = bounds.ratio
        && limit > request.times(ratio)
    {
        limit = guaranteed.max(request.times(ratio)).min(limit);
        request = within(request.max(limit.divided_by(ratio)));
    }
    (their_request.map(|_| request), their_limit.map(|_| limit))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;
    use crate::injection::{Authorities, LimitRangeItem, Quota, Settings};

    fn fitted(pod: &Value, limits: &Value) -> Result<Value, SkipReason> {
        let sizes = Settings::new("agent", "mirrord", Authorities::default()).sizes;
        let items: Vec<LimitRangeItem> = serde_json::from_value(limits.clone()).unwrap();
        let json = to_raw_value(pod).unwrap();
        let pod = Pod::read(&json).unwrap();
        let fitted = fit(&pod, &[&pod.spec.containers[0]], &sizes, &Limits::of(&items))?;
        Ok(serde_json::to_value(&fitted[0]).unwrap())
    }

    fn container(resources: &Value) -> Value {
        json!({"metadata": {}, "spec": {"containers": [{"name": "app", "resources": resources}]}})
    }

    #[test]
    fn only_the_keys_of_the_application_are_set() {
        for (theirs, ours) in [
            (json!({}), json!({})),
            (json!({"requests": {"cpu": "1"}}), json!({"requests": {"cpu": "10m"}})),
            (
                json!({"requests": {"memory": "1Gi", "nvidia.com/gpu": "1"}, "limits": {"memory": "2Gi"}}),
                json!({"requests": {"memory": "24Mi"}, "limits": {"memory": "64Mi"}}),
            ),
            (
                json!({"requests": {"ephemeral-storage": "1Gi"}, "limits": {"hugepages-2Mi": "4Mi"}}),
                json!({"requests": {"ephemeral-storage": "16Mi"}}),
            ),
        ] {
            assert_eq!(fitted(&container(&theirs), &json!([])).unwrap(), ours);
        }
    }

    #[test]
    fn a_guaranteed_pod_stays_guaranteed() {
        let guaranteed = container(&json!({
            "requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"},
        }));
        for limits in [
            json!([]),
            json!([{"type": "Container", "min": {"cpu": "100m"}}]),
            json!([{"type": "Container", "max": {"memory": "32Mi"}, "maxLimitRequestRatio": {"cpu": "1"}}]),
        ] {
            let ours = fitted(&guaranteed, &limits).unwrap();
            assert_eq!(ours["requests"], ours["limits"]);
        }
    }

    #[test]
    fn amounts_are_fitted_to_a_limit_range() {
        let both = container(&json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}));
        for (bounds, request, limit) in [
            (json!({"min": {"cpu": "40m"}}), "40m", "500m"),
            (json!({"min": {"cpu": "1"}}), "1", "1"),
            (json!({"max": {"cpu": "200m"}}), "10m", "200m"),
            (json!({"maxLimitRequestRatio": {"cpu": "20"}}), "10m", "200m"),
            (json!({"maxLimitRequestRatio": {"cpu": "2"}}), "25m", "50m"),
        ] {
            let mut item = bounds.clone();
            item["type"] = json!("Container");
            let ours = fitted(&both, &json!([item])).unwrap();
            let expected = json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
            assert_eq!(ours, expected, "{bounds}");
        }
    }

    #[test]
    fn a_pod_without_room_is_left_alone() {
        let full = json!([{"type": "Pod", "max": {"cpu": "1"}}]);
        let asks = container(&json!({"requests": {"cpu": "995m"}}));
        assert_eq!(fitted(&asks, &full), Err(SkipReason::NoRoom));
        let fits = container(&json!({"requests": {"cpu": "990m"}}));
        assert!(fitted(&fits, &full).is_ok());

        let mut own = container(&json!({"requests": {"memory": "1Gi"}}));
        own["spec"]["resources"] = json!({"requests": {"memory": "1Gi"}});
        assert_eq!(fitted(&own, &json!([])), Err(SkipReason::NoRoom));
        own["spec"]["resources"] = json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}});
        assert!(fitted(&own, &json!([])).is_ok());
    }

    #[test]
    fn a_quota_without_room_for_both_keeps_its_room_for_the_pod() {
        let asks = container(&json!({"limits": {"memory": "96Mi"}}));
        let pod = to_raw_value(&asks).unwrap();
        let pod = Pod::read(&pod).unwrap();
        let sizes = Settings::new("agent", "mirrord", Authorities::default()).sizes;
        for (left, room) in [("160Mi", true), ("159Mi", false), ("1Mi", false)] {
            let quota: Quota = serde_json::from_value(json!({"hard": {"limits.memory": left}})).unwrap();
            let limits = Limits::default().left_by([&quota]);
            assert_eq!(fit(&pod, &[&pod.spec.containers[0]], &sizes, &limits).is_ok(), room, "{left}");
        }
    }

    #[test]
    fn the_limit_of_a_pod_bounds_the_sidecar() {
        let mut own = container(&json!({"limits": {"memory": "40Mi"}}));
        own["spec"]["resources"] = json!({"limits": {"memory": "48Mi"}});
        assert_eq!(fitted(&own, &json!([])).unwrap(), json!({"limits": {"memory": "48Mi"}}));
    }
}
