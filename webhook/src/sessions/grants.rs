//! What a caller may do with a workload: one SubjectAccessReview for each feature, verb on the virtual resource
//! `workloads.mirrord.dev`, with all that the API server knows about the caller.

use futures::future::try_join_all;
use k8s_openapi::api::{
    authentication::v1::UserInfo,
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, Error, api::PostParams};
use mirrord_protocol::{DOMAIN, feature::Feature};

use super::lookup::Workload;

/// The virtual resource that features are verbs on.
const RESOURCE: &str = "workloads";

/// Asks the API server what its users may do.
#[derive(Clone)]
pub struct Grants {
    api: Api<SubjectAccessReview>,
}

impl Grants {
    /// Asks this API server.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client) }
    }

    /// Those of the features that a user has on a workload; without a workload, on all of the namespace.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn of(
        &self,
        user: &UserInfo,
        namespace: &str,
        workload: Option<&Workload>,
        features: impl IntoIterator<Item = Feature>,
    ) -> Result<Vec<Feature>, Error> {
        let reviews = features.into_iter().map(|feature| async move {
            let review = question(user, namespace, workload, feature);
            let answer = self.api.create(&PostParams::default(), &review).await?;
            let allowed = answer.status.is_some_and(|status| status.allowed && status.denied != Some(true));
            Ok::<_, Error>(allowed.then_some(feature))
        });
        Ok(try_join_all(reviews).await?.into_iter().flatten().collect())
    }
}

fn question(
    user: &UserInfo,
    namespace: &str,
    workload: Option<&Workload>,
    feature: Feature,
) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        group: Some(DOMAIN.to_owned()),
        resource: Some(RESOURCE.to_owned()),
        verb: Some(feature.verb().to_owned()),
        namespace: Some(namespace.to_owned()),
        name: workload.map(Workload::resource_name),
        ..ResourceAttributes::default()
    };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// The features of a session: all that are required, and the optional ones that are granted.
///
/// # Errors
/// The required features that are not granted.
pub fn settle(required: &[Feature], granted: &[Feature]) -> Result<Vec<Feature>, Vec<Feature>> {
    let missing: Vec<Feature> =
        required.iter().copied().filter(|feature| !granted.contains(feature)).collect();
    if missing.is_empty() { Ok(granted.to_vec()) } else { Err(missing) }
}

/// What to tell a user who lacks features, and what an admin has to write.
#[must_use]
pub fn missing_message(user: &UserInfo, namespace: &str, workload: &Workload, missing: &[Feature]) -> String {
    let verbs: Vec<String> = missing.iter().map(|feature| format!("\"{feature}\"")).collect();
    let verbs = verbs.join(", ");
    let name = workload.resource_name();
    format!(
        "user \"{}\" may not {verbs} on {RESOURCE}.{DOMAIN} \"{name}\" in namespace \"{namespace}\": ask an admin \
         for a Role with this rule: apiGroups: [\"{DOMAIN}\"], resources: [\"{RESOURCE}\"], resourceNames: \
         [\"{name}\"], verbs: [{verbs}]",
        user.username.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_granted_whole_or_not_at_all_but_for_its_optional_features() {
        use Feature::{Env, Files, Outgoing};
        assert_eq!(settle(&[Env], &[Env, Outgoing]), Ok(vec![Env, Outgoing]));
        assert_eq!(settle(&[Env, Files], &[Env, Outgoing]), Err(vec![Files]));
    }

    #[test]
    fn the_question_is_about_the_whole_caller() {
        let user = UserInfo {
            username: Some("developer".into()),
            uid: Some("7".into()),
            groups: Some(vec!["team".into()]),
            extra: Some([("scopes".to_owned(), vec!["read".to_owned()])].into()),
        };
        let workload = Workload { kind: mirrord_session::TargetKind::Deployment, name: "checkout".into() };
        let spec = question(&user, "shop", Some(&workload), Feature::Files).spec;
        assert_eq!(
            (spec.user, spec.uid, spec.groups, spec.extra),
            (user.username, user.uid, user.groups, user.extra)
        );
        let asked = spec.resource_attributes.unwrap();
        let asked =
            [asked.group, asked.resource, asked.name, asked.verb, asked.namespace].map(Option::unwrap);
        assert_eq!(asked, ["mirrord.dev", "workloads", "deployment.checkout", "files", "shop"]);
    }
}
