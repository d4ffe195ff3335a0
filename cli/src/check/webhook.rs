//! Whether the API server reaches the webhook and trusts it.
//!
//! The serving certificate can't be fetched from outside the cluster, and `failurePolicy: Ignore` hides a webhook that isn't
//! there. So a pod that asks for a sidecar is created in a dry run: it comes back with one only if the API server
//! reached the webhook, trusts its certificate by this very caBundle, and got a patch.

use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration},
    apps::v1::Deployment,
    core::v1::Pod,
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;

use super::{
    authority,
    dry_run::Answer,
    finding::{Finding, Topic},
    found::{CONFIGURATION, Found, WEBHOOK},
    injection,
};
use crate::exit::{Exit, Problem};

const PLACE: &str = "mutatingwebhookconfiguration/mirrord";
/// The entries of the chart, and what the API server shall do when the webhook doesn't answer.
const ENTRIES: [(&str, &str); 3] = [
    ("inject.mirrord.dev", "Ignore"),
    ("inject-pod.mirrord.dev", "Ignore"),
    ("sessions.mirrord.dev", "Fail"),
];

/// What injection does now, as the canary showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The image that brings the agent.
    pub agent_image: Option<String>,
    /// The authorities that sidecars get.
    pub authorities: Vec<Vec<u8>>,
    /// What stands in caBundle: by it, older authorities vouch for later ones.
    pub bundle: Vec<Vec<u8>>,
}

/// Judges what is stored. `now`: seconds since 1970.
#[must_use]
pub fn check(found: &Found, now: i64) -> Vec<Finding> {
    let mut findings = part(found, Topic::Webhook, WEBHOOK);
    if let Some(None) = found.configuration {
        let what = "there is no MutatingWebhookConfiguration of this name: no pod is injected, no session is granted";
        findings.push(Topic::Webhook.error(PLACE, what).fix(repair(found.namespace())));
    }
    findings
        .extend(found.configuration().into_iter().flat_map(|it| configuration(it, found.namespace(), now)));
    findings
}

/// Whether a part of ours runs and its Service leads to it.
#[must_use]
pub fn part(found: &Found, topic: Topic, name: &str) -> Vec<Finding> {
    let namespace = found.namespace();
    let component = name.trim_start_matches("mirrord-");
    let look = format!("kubectl describe pods -n {namespace} -l app.kubernetes.io/component={component}");
    let mut findings: Vec<Finding> =
        found.deployment(name).map(|it| available(it, topic, namespace).or_fix(&look)).into_iter().collect();
    if let (Some(slices), Some(_)) = (&found.endpoints, found.service(name)) {
        let place = format!("service/{name} -n {namespace}");
        findings.push(match ready_endpoints(slices, name) {
            0 => topic.error(place, "it leads to no pod that is ready").fix(look),
            ready => topic.ok(place, format!("leads to {ready} ready pods")),
        });
    }
    findings
}

fn available(deployment: &Deployment, topic: Topic, namespace: &str) -> Finding {
    let place = format!("deployment/{} -n {namespace}", deployment.name_any());
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    match (available, wanted) {
        (0, 0) => topic.error(place, "it is scaled to no replicas"),
        (0, _) => topic.error(place, format!("none of {wanted} replicas is available")),
        _ if available < wanted => {
            topic.warning(place, format!("{available} of {wanted} replicas are available"))
        }
        _ => topic.ok(place, format!("{available} of {wanted} replicas are available")),
    }
}

impl Finding {
    /// Adds what to do, unless all is well.
    fn or_fix(self, fix: &str) -> Self {
        if self.severity == super::finding::Severity::Ok { self } else { self.fix(fix) }
    }
}

/// How many endpoints of a Service take traffic.
#[must_use]
pub fn ready_endpoints(slices: &[EndpointSlice], service: &str) -> usize {
    let of_service = slices
        .iter()
        .filter(|slice| slice.labels().get("kubernetes.io/service-name").is_some_and(|name| name == service));
    let endpoints = of_service.flat_map(|slice| &slice.endpoints);
    // Unset means ready.
    let ready = |conditions: Option<bool>| conditions.unwrap_or(true);
    endpoints.filter(|it| ready(it.conditions.as_ref().and_then(|conditions| conditions.ready))).count()
}

fn repair(namespace: &str) -> String {
    format!("helm upgrade mirrord charts/mirrord -n {namespace} --reuse-values")
}

fn configuration(found: &MutatingWebhookConfiguration, namespace: &str, now: i64) -> Vec<Finding> {
    let webhooks: Vec<&MutatingWebhook> = found.webhooks.iter().flatten().collect();
    let mut findings = Vec::new();
    for (name, policy) in ENTRIES {
        let Some(webhook) = webhooks.iter().find(|webhook| webhook.name == name) else {
            let what = format!("its entry {name} is missing");
            findings.push(Topic::Webhook.error(PLACE, what).fix(repair(namespace)));
            continue;
        };
        let given = webhook.failure_policy.as_deref().unwrap_or("Fail");
        if given != policy {
            let why = match policy {
                "Ignore" => "while the webhook is down, no opted-in pod could start",
                _ => "while the webhook is down, sessions would be stored that nobody has checked",
            };
            let what = format!("failurePolicy of {name} is {given}, not {policy}: {why}");
            findings.push(Topic::Webhook.error(PLACE, what).fix(repair(namespace)));
        }
    }
    let bundles: Vec<Option<Vec<Vec<u8>>>> = webhooks.iter().map(|webhook| bundle(webhook)).collect();
    let Some(first) = bundles.first() else { return findings };
    if bundles.iter().any(Option::is_none) {
        let what = "an entry has no caBundle: the API server doesn't trust the webhook. It writes it itself, once it runs";
        findings.push(Topic::Webhook.error(PLACE, what).fix(logs(namespace)));
    } else if bundles.iter().any(|bundle| bundle != first) {
        let what = "its entries carry different authorities: something else than the webhook writes caBundle";
        findings.push(Topic::Webhook.error(PLACE, what).fix(logs(namespace)));
    } else if let Some(authorities) = first {
        findings.push(authority::lifetime(PLACE, authorities, now));
    }
    findings
}

fn bundle(webhook: &MutatingWebhook) -> Option<Vec<Vec<u8>>> {
    authority::of_pem(&webhook.client_config.ca_bundle.as_ref()?.0)
}

fn logs(namespace: &str) -> String {
    format!("kubectl logs -n {namespace} deployment/{WEBHOOK}")
}

/// Judges the pod that asked for a sidecar; also says what injection does now.
#[must_use]
pub fn canary(found: &Found, namespace: &str, answer: &Answer) -> (Finding, Option<Current>) {
    let place = format!("dry run of a pod -n {namespace}");
    let own = found.namespace();
    match answer {
        Answer::Admitted { pod, warnings } => match injection::sidecar_of(pod) {
            Some(pod) => judge_current(found, place, &pod),
            None => {
                let what = match injection::reason(warnings) {
                    Some(reason) => format!("the webhook answers, and injects nothing: {reason}"),
                    None => "it came back without a sidecar: the API server doesn't reach the webhook, or doesn't trust \
                             it, and lets pods through without (failurePolicy: Ignore)"
                        .to_owned(),
                };
                (Topic::Webhook.error(place, what).fix(logs(own)), None)
            }
        },
        Answer::Refused(message) => {
            let what = format!("not checked whether the webhook injects: the pod was refused: {message}");
            (Topic::Webhook.warning(place, what), None)
        }
        Answer::Failed(message) => (
            Topic::Webhook.warning(place, format!("not checked whether the webhook injects: {message}")),
            None,
        ),
    }
}

fn judge_current(found: &Found, place: String, pod: &Pod) -> (Finding, Option<Current>) {
    let entry = found.configuration().and_then(|it| it.webhooks.iter().flatten().next());
    let current = Current {
        agent_image: injection::agent_image(pod),
        authorities: authority::of_pod(pod),
        bundle: entry.and_then(bundle).unwrap_or_default(),
    };
    let Current { authorities, bundle, .. } = &current;
    let agree = bundle.is_empty() || authorities.iter().any(|it| bundle.contains(it));
    let finding = if agree {
        let image = current.agent_image.as_deref().unwrap_or("unknown");
        Topic::Webhook.ok(place, format!("the API server reaches the webhook, which injects {image}"))
    } else {
        let what = format!(
            "the webhook gives sidecars another authority than caBundle has: replicas may have started with different \
             Secrets {CONFIGURATION}-ca"
        );
        let restart = format!("kubectl rollout restart deployment/{WEBHOOK} -n {}", found.namespace());
        Topic::Webhook.error(place, what).fix(restart)
    };
    (finding, Some(current))
}

/// Judges the dry run of a Session.
#[must_use]
pub fn session(namespace: &str, answer: &Result<usize, Problem>) -> Finding {
    let place = format!("dry run of a Session -n {namespace}");
    match answer {
        Ok(targets) => {
            Topic::Webhook.ok(place, format!("the webhook answers: you may use {targets} workloads here"))
        }
        Err(problem) if problem.exit == Exit::NotGranted => {
            Topic::Webhook.warning(place, format!("not checked: {}", problem.message))
        }
        Err(problem) => {
            let finding = Topic::Webhook.error(place, problem.message.clone());
            problem.help.iter().fold(finding, |finding, help| finding.fix(help))
        }
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
