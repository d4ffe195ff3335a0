//! The audit: one line for each decision about a session, one when it ends, on the target `mirrord::audit`. Renewals that
//! are granted are at `debug`; dry runs decide nothing and have none.
//!
//! Whatever comes from outside is a field, which both formats of the log quote: it can't forge a line. Neither keys nor
//! tokens are among them.

use k8s_openapi::api::authentication::v1::UserInfo;
use kube::ResourceExt;
use mirrord_protocol::feature::Feature;
use mirrord_session::Session;
use mirrord_telemetry::log::AUDIT;

use super::{
    denial::Denial,
    review::{Request, Verdict},
};
use crate::metrics::SessionReview;

/// What is known of a decision, as far as it came.
#[derive(Debug, Default)]
pub struct Record {
    /// The top-level workload, as RBAC names it.
    pub workload: String,
    /// What is granted, unless something else is missing.
    pub granted: Vec<Feature>,
    /// What was asked for and not granted.
    pub refused: Vec<Feature>,
    /// How many pods can serve it.
    pub pods: usize,
    /// Until when it lives unless renewed, in seconds since 1970.
    pub expires_at: u64,
}

/// Somebody, and where they ask.
struct Caller<'a> {
    user: &'a str,
    uid: Option<&'a str>,
    groups: usize,
    namespace: &'a str,
    session: &'a str,
}

impl<'a> Caller<'a> {
    fn new(user: &'a UserInfo, namespace: &'a str, session: &'a str) -> Self {
        Self {
            user: user.username.as_deref().unwrap_or_default(),
            uid: user.uid.as_deref().filter(|uid| !uid.is_empty()),
            groups: user.groups.as_ref().map_or(0, Vec::len),
            namespace,
            session,
        }
    }
}

/// Tells of a decision.
pub(super) fn decided(request: &Request, record: &Record, review: SessionReview, verdict: &Verdict) {
    if request.dry_run {
        return;
    }
    let caller = Caller::new(&request.user, &request.namespace, request.session_name());
    match (review, verdict) {
        (_, Verdict::Denied(denial)) => refused(&caller, record, denial),
        (SessionReview::Granted, _) => granted(&caller, record),
        (SessionReview::Renewed, _) => renewed(&caller, record),
        _ => {}
    }
}

/// Tells that a review was refused because of its shape.
pub(super) fn unreadable(user: &UserInfo, namespace: &str, denial: &Denial) {
    refused(&Caller::new(user, namespace, ""), &Record::default(), denial);
}

fn granted(caller: &Caller<'_>, record: &Record) {
    let Caller { user, uid, groups, namespace, session } = *caller;
    tracing::info!(
        target: AUDIT, verdict = "granted", user, uid, groups, namespace, session, workload = record.workload,
        features = words(&record.granted), refused = words(&record.refused), pods = record.pods,
        expires_at = record.expires_at, "session granted"
    );
}

fn renewed(caller: &Caller<'_>, record: &Record) {
    let Caller { user, uid, groups, namespace, session } = *caller;
    tracing::debug!(
        target: AUDIT, verdict = "renewed", user, uid, groups, namespace, session, workload = record.workload,
        features = words(&record.granted), refused = words(&record.refused), pods = record.pods,
        expires_at = record.expires_at, "session renewed"
    );
}

fn refused(caller: &Caller<'_>, record: &Record, denial: &Denial) {
    let Caller { user, uid, groups, namespace, session } = *caller;
    tracing::info!(
        target: AUDIT, verdict = "refused", user, uid, groups, namespace, session, workload = record.workload,
        features = "", refused = words(&record.refused), pods = record.pods,
        code = denial.code.word(), reason = denial.message, "session refused"
    );
}

/// Tells that a session ended.
pub fn ended(session: &Session, why: &str) {
    let Some(status) = &session.status else { return };
    let uid = Some(status.creator.uid.as_str()).filter(|uid| !uid.is_empty());
    tracing::info!(
        target: AUDIT, verdict = "ended", user = status.creator.username, uid,
        namespace = session.namespace().unwrap_or_default(), session = session.name_any(),
        workload = status.workload, features = status.features.join(","), pods = status.pods.len(), reason = why,
        "session ended"
    );
}

fn words(features: &[Feature]) -> String {
    features.iter().map(|feature| feature.verb()).collect::<Vec<_>>().join(",")
}
