//! The AdmissionReview around a Session (admission.k8s.io/v1).
//!
//! Read in two steps, so that a Session that we can't read (admission runs before the schema is checked) is still
//! refused under its review's uid, with a reason.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{api::authentication::v1::UserInfo, apimachinery::pkg::apis::meta::v1::Status};
use mirrord_session::{Session, SessionStatus};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use super::denial::Denial;

/// What the API server asks.
#[derive(Debug)]
pub struct Request {
    /// Names the review.
    pub uid: String,
    /// What happens to the Session.
    pub operation: Operation,
    /// Where it is.
    pub namespace: String,
    /// Who does it, as the API server authenticated them.
    pub user: UserInfo,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// What happens to a Session.
#[derive(Debug)]
pub enum Operation {
    /// It is made.
    Create(Box<Session>),
    /// It is changed.
    Update {
        /// As it was.
        old: Box<Session>,
        /// As it shall be.
        new: Box<Session>,
    },
}

/// Why a body is no review that we can answer.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Not even a uid to answer under.
    #[error("the body is no AdmissionReview: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A review to be refused.
    #[error("review {uid}: {denial}")]
    Refused {
        /// Names the review.
        uid: String,
        /// Who asks.
        user: Box<UserInfo>,
        /// Where.
        namespace: String,
        /// Why.
        denial: Denial,
    },
}

#[derive(Deserialize)]
struct RawReview<'a> {
    #[serde(borrow)]
    request: RawRequest<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest<'a> {
    uid: String,
    operation: String,
    #[serde(default)]
    namespace: String,
    user_info: UserInfo,
    #[serde(default)]
    dry_run: bool,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    old_object: Option<&'a RawValue>,
}

impl Request {
    /// Reads a review's body.
    ///
    /// # Errors
    /// See [`ReviewError`].
    pub fn parse(body: &[u8]) -> Result<Self, ReviewError> {
        let RawRequest { uid, operation, namespace, user_info, dry_run, object, old_object } =
            serde_json::from_slice::<RawReview<'_>>(body)?.request;
        let operation = match operation.as_str() {
            "CREATE" => session(object).map(Operation::Create),
            "UPDATE" => {
                session(old_object).and_then(|old| session(object).map(|new| Operation::Update { old, new }))
            }
            other => Err(Denial::bad_session(format!("{other} of Sessions is not for this webhook"))),
        };
        match operation {
            Ok(operation) => Ok(Self { uid, operation, namespace, user: user_info, dry_run }),
            Err(denial) => Err(ReviewError::Refused { uid, user: Box::new(user_info), namespace, denial }),
        }
    }
}

impl Request {
    /// The Session's name, for logs; the API server has not checked it yet.
    #[must_use]
    pub fn session_name(&self) -> &str {
        let (Operation::Create(session) | Operation::Update { new: session, .. }) = &self.operation;
        session.metadata.name.as_deref().unwrap_or_default()
    }
}

fn session(object: Option<&RawValue>) -> Result<Box<Session>, Denial> {
    let object = object.ok_or_else(|| Denial::bad_session("the review carries no Session"))?;
    serde_json::from_str(object.get())
        .map_err(|error| Denial::bad_session(format!("unreadable Session: {error}")))
}

/// What becomes of a Session.
#[derive(Debug)]
pub enum Verdict {
    /// It is stored with this status, whatever it came with.
    Admitted(Box<SessionStatus>),
    /// It is refused.
    Denied(Denial),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
}

impl Verdict {
    /// The body of the answer. The patch replaces the whole status and touches nothing else.
    ///
    /// # Errors
    /// Where the answer can't be written: the API server then does what `failurePolicy: Fail` says.
    pub fn answer(&self, uid: String) -> serde_json::Result<Vec<u8>> {
        let response = match self {
            Self::Admitted(status) => {
                let patch =
                    serde_json::to_vec(&json!([{ "op": "add", "path": "/status", "value": status }]))?;
                Response {
                    uid,
                    allowed: true,
                    status: None,
                    patch_type: Some("JSONPatch"),
                    patch: Some(STANDARD.encode(patch)),
                }
            }
            Self::Denied(denial) => {
                Response { uid, allowed: false, status: Some(denial.status()), patch_type: None, patch: None }
            }
        };
        serde_json::to_vec(&Review { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(object: &serde_json::Value) -> Vec<u8> {
        json!({ "request": {
            "uid": "u-1", "operation": "CREATE", "namespace": "shop", "dryRun": true,
            "userInfo": { "username": "developer", "groups": ["team"] }, "object": object,
        }})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_session_of_the_wrong_shape_is_refused_under_its_reviews_uid() {
        let request = Request::parse(&body(&json!({ "metadata": {}, "spec": { "features": "env" } })));
        let Err(ReviewError::Refused { uid, denial, .. }) = request else { panic!("{request:?}") };
        let answer: serde_json::Value =
            serde_json::from_slice(&Verdict::Denied(denial).answer(uid).unwrap()).unwrap();
        assert_eq!(answer["response"]["uid"], "u-1");
        assert_eq!(answer["response"]["allowed"], false);
        assert_eq!(answer["response"]["status"]["code"], 422);
        assert_eq!(answer["response"]["status"]["details"]["causes"][0]["reason"], "bad_session");
    }

    #[test]
    fn the_answer_replaces_the_status_and_nothing_else() {
        let request =
            Request::parse(&body(&json!({ "metadata": { "name": "s-1" }, "spec": {}, "status": {} })));
        let request = request.unwrap();
        assert!(request.dry_run);
        let answer = Verdict::Admitted(Box::default()).answer(request.uid).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let patch = STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        assert_eq!(patch.0.len(), 1);
        assert_eq!(patch.0[0].path().as_str(), "/status");
    }
}
