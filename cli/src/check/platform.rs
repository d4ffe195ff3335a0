//! What everything stands on: Kubernetes' version, the resource Session, the chart's objects and their release.

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::version::Info,
};
use kube::ResourceExt;
use serde_json::Value;

use super::{
    finding::{Finding, Topic, some_of},
    found::{Found, INGRESS, WEBHOOK},
};

/// Native sidecars are on by default since then (KEP-753).
const OLDEST_MINOR: u32 = 29;
const DEFINITION: &str = "crd/sessions.mirrord.dev";
const APPLY_DEFINITION: &str = "kubectl apply --server-side -f charts/mirrord/crds";
/// Cluster-wide objects of the chart that something depends on.
const CLUSTER_ROLES: [&str; 4] = ["mirrord-edit", "mirrord-ingress", "mirrord-user", "mirrord-webhook"];

/// Judges what everything stands on, for a client of this release.
#[must_use]
pub fn check(found: &Found, client: &str) -> Vec<Finding> {
    let mut findings: Vec<Finding> = found.server.as_ref().map(server).into_iter().collect();
    if found.is_installed() == Some(false) {
        let finding = Topic::Cluster.error("this cluster", "mirrord isn't installed here");
        findings.push(finding.fix("helm install mirrord charts/mirrord -n mirrord --create-namespace"));
        return findings;
    }
    findings.extend(found.definition.as_ref().map(|found| definition(found.as_ref())));
    findings.extend(chart(found));
    findings.extend(releases(found, client));
    findings
}

fn server(info: &Info) -> Finding {
    let digits: String = info.minor.chars().take_while(char::is_ascii_digit).collect();
    let place = format!("Kubernetes {}", info.git_version);
    match (info.major.as_str(), digits.parse::<u32>()) {
        ("1", Ok(minor)) if minor < OLDEST_MINOR => Topic::Cluster
            .error(
                place,
                format!("older than 1.{OLDEST_MINOR}: it has no native sidecars, so none would start"),
            )
            .fix(format!("update the cluster to Kubernetes 1.{OLDEST_MINOR} or later")),
        ("1", Ok(_)) => Topic::Cluster.ok(place, "has native sidecars"),
        _ => Topic::Cluster.note(place, "this version can't be judged"),
    }
}

fn definition(found: Option<&CustomResourceDefinition>) -> Finding {
    let error = |what: &str| Topic::Cluster.error(DEFINITION, what).fix(APPLY_DEFINITION);
    let Some(found) = found else { return error("the resource Session isn't there: nobody can open one") };
    let ours = mirrord_session::definition();
    let Some(ours) = ours.spec.versions.first() else { return error("this program knows no version of it") };
    let Some(theirs) = found.spec.versions.iter().find(|version| version.name == ours.name && version.served)
    else {
        return error(&format!("it isn't served as version {}", ours.name));
    };
    if theirs.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some()) {
        return error("its status is a subresource: the API server drops what the webhook fills in");
    }
    let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "False")
    {
        return error("it isn't established: another resource may have its names");
    }
    let schema = |version: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion| {
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        serde_json::to_value(schema).unwrap_or_default()
    };
    let (ours, theirs) = (schema(ours), schema(theirs));
    match (missing(&ours, &theirs), missing(&theirs, &ours)) {
        (lacks, _) if !lacks.is_empty() => {
            error(&format!("older than this program: the API server drops the fields {}", some_of(&lacks)))
        }
        (_, more) if !more.is_empty() => {
            let what = format!("newer than this program: it has the fields {} as well", some_of(&more));
            Topic::Cluster.note(DEFINITION, what).fix("install this `mirrord` of the release of the chart")
        }
        _ => Topic::Cluster.ok(DEFINITION, "of the shape that this program knows"),
    }
}

/// Paths of fields that `wanted` has and `given` hasn't.
fn missing(wanted: &Value, given: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, schema) in wanted["properties"].as_object().into_iter().flatten() {
        match given["properties"].get(name) {
            None => found.push(name.clone()),
            Some(given) => {
                found.extend(missing(schema, given).into_iter().map(|below| format!("{name}.{below}")));
            }
        }
    }
    if wanted["items"].is_object() {
        found.extend(
            missing(&wanted["items"], &given["items"]).into_iter().map(|below| format!("[].{below}")),
        );
    }
    found
}

/// Objects of the chart that aren't there.
fn chart(found: &Found) -> Option<Finding> {
    let mut lacks = Vec::new();
    for part in [WEBHOOK, INGRESS] {
        if found.deployments.is_some() && found.deployment(part).is_none() {
            lacks.push(format!("deployment/{part}"));
        }
        if found.services.is_some() && found.service(part).is_none() {
            lacks.push(format!("service/{part}"));
        }
    }
    if let Some(rights) = &found.rights {
        let has = |name: &str| rights.cluster_roles.iter().any(|role| role.name_any() == name);
        lacks
            .extend(CLUSTER_ROLES.iter().filter(|name| !has(name)).map(|name| format!("clusterrole/{name}")));
        let bound =
            |name: &str| rights.cluster_role_bindings.iter().any(|binding| binding.name_any() == name);
        let parts = [WEBHOOK, INGRESS];
        lacks.extend(
            parts.iter().filter(|name| !bound(name)).map(|name| format!("clusterrolebinding/{name}")),
        );
    }
    let place = format!("release mirrord -n {}", found.namespace());
    if lacks.is_empty() {
        return found.deployments.as_ref().map(|_| Topic::Cluster.ok(place, "the chart's objects are there"));
    }
    let finding =
        Topic::Cluster.error(place, format!("objects of the chart are missing: {}", lacks.join(", ")));
    Some(finding.fix(format!("helm upgrade mirrord charts/mirrord -n {} --reuse-values", found.namespace())))
}

/// Whether client, webhook and ingress are of one release.
fn releases(found: &Found, client: &str) -> Option<Finding> {
    let release = |name: &str| found.deployment(name)?.labels().get("app.kubernetes.io/version").cloned();
    let (webhook, ingress) = (release(WEBHOOK)?, release(INGRESS)?);
    let place = format!("release mirrord -n {}", found.namespace());
    if webhook != ingress {
        let what = format!("the webhook is of release {webhook}, the ingress of {ingress}");
        return Some(
            Topic::Cluster
                .warning(place, what)
                .fix(format!("helm upgrade mirrord charts/mirrord -n {} --reuse-values", found.namespace())),
        );
    }
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    Some(if client == webhook {
        Topic::Cluster.ok(place, format!("this program and the control plane are of release {client}"))
    } else if major(client) == major(&webhook) {
        Topic::Cluster.note(
            place,
            format!(
                "this program is of release {client}, the control plane of {webhook}: they work together"
            ),
        )
    } else {
        Topic::Cluster
            .warning(place, format!("this program is of release {client}, the control plane of {webhook}"))
            .fix("use releases of one major version")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::finding::Severity;

    fn info(minor: &str) -> Info {
        serde_json::from_value(json!({
            "major": "1", "minor": minor, "gitVersion": format!("v1.{minor}.0"), "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        }))
        .unwrap()
    }

    #[test]
    fn a_cluster_without_native_sidecars_is_an_error() {
        assert_eq!(server(&info("28+")).severity, Severity::Error);
        assert_eq!(server(&info("29")).severity, Severity::Ok);
        assert_eq!(server(&info("34+")).severity, Severity::Ok);
    }

    #[test]
    fn a_definition_that_lacks_fields_is_named_with_the_line_that_updates_it() {
        let ours = mirrord_session::definition();
        assert_eq!(definition(Some(&ours)).severity, Severity::Ok);
        assert_eq!(definition(None).fix.as_deref(), Some(APPLY_DEFINITION));

        let mut older = serde_json::to_value(&ours).unwrap();
        let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
        let pods = older.pointer_mut(&format!("{properties}/pods/items/properties")).unwrap();
        pods.as_object_mut().unwrap().remove("gateToken");
        let finding = definition(Some(&serde_json::from_value(older).unwrap()));
        assert_eq!(finding.severity, Severity::Error);
        assert!(finding.what.contains("status.pods.[].gateToken"), "{finding:?}");

        let mut newer = serde_json::to_value(&ours).unwrap();
        newer.pointer_mut(properties).unwrap()["later"] = json!({ "type": "string" });
        let finding = definition(Some(&serde_json::from_value(newer).unwrap()));
        assert!(finding.severity == Severity::Note && finding.what.contains("status.later"), "{finding:?}");
    }

    #[test]
    fn a_status_subresource_is_an_error() {
        let mut changed = serde_json::to_value(mirrord_session::definition()).unwrap();
        changed["spec"]["versions"][0]["subresources"] = json!({ "status": {} });
        let finding = definition(Some(&serde_json::from_value(changed).unwrap()));
        assert!(finding.severity == Severity::Error && finding.what.contains("subresource"), "{finding:?}");
    }

    fn installed(webhook: &str, ingress: &str) -> Found {
        let deployment = |name: &str, version: &str| json!({ "metadata": { "name": name, "labels": { "app.kubernetes.io/version": version } } });
        let deployments = json!([deployment(WEBHOOK, webhook), deployment(INGRESS, ingress)]);
        Found {
            deployments: Some(serde_json::from_value(deployments).unwrap()),
            configuration: Some(None),
            ..Found::default()
        }
    }

    #[test]
    fn releases_that_differ_are_told_and_only_majors_warn() {
        let severity = |found: &Found| releases(found, "1.4.0").unwrap().severity;
        assert_eq!(severity(&installed("1.4.0", "1.4.0")), Severity::Ok);
        assert_eq!(severity(&installed("1.3.9", "1.3.9")), Severity::Note);
        assert_eq!(severity(&installed("2.0.0", "2.0.0")), Severity::Warning);
        assert_eq!(severity(&installed("1.4.0", "1.3.0")), Severity::Warning);
    }

    #[test]
    fn an_empty_cluster_gets_the_line_that_installs_it_and_nothing_else() {
        let empty = Found { deployments: Some(vec![]), configuration: Some(None), ..Found::default() };
        let findings = check(&empty, "1.0.0");
        assert_eq!(findings.len(), 1);
        assert!(findings[0].fix.as_ref().unwrap().starts_with("helm install mirrord"));
    }

    #[test]
    fn a_missing_object_of_the_chart_is_named() {
        let mut found = installed("1.0.0", "1.0.0");
        found.services = Some(serde_json::from_value(json!([{ "metadata": { "name": WEBHOOK } }])).unwrap());
        let finding = chart(&found).unwrap();
        assert!(
            finding.severity == Severity::Error && finding.what.contains("service/mirrord-ingress"),
            "{finding:?}"
        );
    }
}
