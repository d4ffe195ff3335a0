//! The AdmissionReview around one pod (admission.k8s.io/v1): from the posted bytes to the answer's.
//!
//! Read at once, pod and all; or, where that fails, in two steps, so that a pod that we can't read still gets an answer
//! under its uid. The answer always allows. Even a body that is no review gets one; the API server then refuses the answer for its missing uid and
//! does what `failurePolicy: Ignore` says.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Fault, Limits, NamespaceFacts, Outcome, Report, SkipReason, inject_read,
    pod::Pod,
    raw::{Text, or_default},
    settings::Settings,
};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// The API server cuts longer warnings.
const WARNING_BYTES: usize = 120;

/// A review and what came of it.
#[derive(Debug)]
pub struct Reviewed {
    /// The answer, to be sent with status 200 and `Content-Type: application/json`.
    pub body: Vec<u8>,
    /// For metrics, logs and Events.
    pub outcome: Outcome,
}

impl Reviewed {
    /// The value of the metric's label: `injected`, or the label of the reason or fault.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match &self.outcome {
            Outcome::Injected { .. } => "injected",
            Outcome::Skipped(reason) => reason.label(),
            Outcome::Failed(fault) => fault.label(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(bound = "O: Deserialize<'de>")]
struct Review<'a, O> {
    #[serde(borrow)]
    api_version: Text<'a>,
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    request: Request<'a, O>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "O: Deserialize<'de>")]
struct Request<'a, O> {
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    kind: Kind<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    sub_resource: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    namespace: Text<'a>,
    #[serde(borrow)]
    operation: Text<'a>,
    object: Option<O>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, default)]
    group: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
    #[serde(borrow)]
    kind: Text<'a>,
}

#[derive(Deserialize)]
struct OnlyUid<'a> {
    #[serde(borrow)]
    request: Uid<'a>,
}

#[derive(Deserialize)]
struct Uid<'a> {
    #[serde(borrow)]
    uid: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Answers one review. `limits` is asked for the bounds of a namespace, by name.
#[must_use]
pub fn review(body: &[u8], settings: &Settings, limits: impl FnOnce(&str) -> Limits) -> Reviewed {
    if let Ok(review) = serde_json::from_slice::<Review<'_, Pod<'_>>>(body) {
        let outcome = decide(&review, |pod, namespace| inject_read(pod, namespace, settings), limits);
        return answer(&review.request.uid, outcome);
    }
    match serde_json::from_slice::<Review<'_, &RawValue>>(body) {
        Ok(review) => {
            let unreadable = |_: &&RawValue, _: &NamespaceFacts<'_>| Outcome::Failed(Fault::UnreadablePod);
            answer(&review.request.uid, decide(&review, unreadable, limits))
        }
        Err(_) => {
            let salvaged = serde_json::from_slice::<OnlyUid<'_>>(body);
            let uid = salvaged.map(|review| review.request.uid).unwrap_or_default();
            answer(&uid, Outcome::Failed(Fault::UnreadableReview))
        }
    }
}

fn decide<O>(
    review: &Review<'_, O>,
    inject: impl FnOnce(&O, &NamespaceFacts<'_>) -> Outcome,
    limits: impl FnOnce(&str) -> Limits,
) -> Outcome {
    let Request { kind, sub_resource, namespace, operation, object, .. } = &review.request;
    if (&*review.api_version, &*review.kind) != (API_VERSION, KIND) {
        return Outcome::Failed(Fault::UnreadableReview);
    }
    let pod = (&*kind.group, &*kind.version, &*kind.kind) == ("", "v1", "Pod");
    let Some(object) = object.as_ref().filter(|_| pod && sub_resource.is_empty() && **operation == *"CREATE")
    else {
        return Outcome::Skipped(SkipReason::NotAPodCreation);
    };
    inject(object, &NamespaceFacts { name: namespace, opted_in: None, limits: limits(namespace) })
}

fn answer(uid: &str, outcome: Outcome) -> Reviewed {
    let (patch, outcome) = match outcome {
        Outcome::Injected { patch, report } => match patch.to_json() {
            Ok(json) => (Some(STANDARD.encode(json)), Outcome::Injected { patch, report }),
            Err(_) => (None, Outcome::Failed(Fault::Unwritable)),
        },
        outcome => (None, outcome),
    };
    let response = Response {
        uid,
        allowed: true,
        patch_type: patch.as_ref().map(|_| "JSONPatch"),
        patch,
        warnings: warnings(&outcome),
    };
    let answer = Answer { api_version: API_VERSION, kind: KIND, response };
    // Strings and a boolean: serde_json has no way to fail. If it did, an empty answer is "Ignore" to the API server.
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    Reviewed { body, outcome }
}

fn warnings(outcome: &Outcome) -> Vec<String> {
    let not_injected = |why: &str| vec![warning(&format!("not injected: {why}"))];
    match outcome {
        Outcome::Injected { report: Report { warnings, .. }, .. } => {
            warnings.iter().map(|text| warning(text)).collect()
        }
        Outcome::Skipped(reason) if reason.warns() => not_injected(reason.sentence()),
        Outcome::Skipped(_) => Vec::new(),
        Outcome::Failed(fault) => not_injected(&fault.to_string()),
    }
}

fn warning(text: &str) -> String {
    let mut warning = format!("mirrord: {text}");
    warning.truncate(warning.floor_char_boundary(WARNING_BYTES));
    warning
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_warning_has_to_be_cut() {
        let skips = SkipReason::ALL.iter().map(|reason| Outcome::Skipped(*reason));
        let faults = Fault::ALL.iter().map(|fault| Outcome::Failed(*fault));
        for text in skips.chain(faults).flat_map(|outcome| warnings(&outcome)) {
            assert!(text.len() < WARNING_BYTES, "{} bytes: {text}", text.len());
        }
    }
}
