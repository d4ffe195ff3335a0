//! What the API server posts, and to whom it goes.
//!
//! `/inject/KEY` never denies: even a panic is answered with "allowed" and a warning. `/sessions/KEY` denies by default:
//! what can't be answered is an HTTP error, and the API server does what `failurePolicy: Fail` says.
//!
//! Anybody in the cluster can post here, and an API server shows no certificate. A forged review is no authority, but its
//! answer would tell names, addresses and gate tokens of pods, and who may do what. So the paths end in a key that only
//! the webhook configuration has, and nothing is read, not even a body, from who doesn't know it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::intake::Intake;
use crate::{
    certificates::keys::Keyring,
    injection::{self, Outcome, Reviewed, Settings},
    limit_ranges::LimitRanges,
    metrics::{PodReview, Refused, metrics},
    sessions::Sessions,
};

/// Where pods are reviewed, before the key.
pub const INJECT: &str = "/inject";
/// Where Sessions are reviewed, before the key.
pub const SESSIONS: &str = "/sessions";
/// Reviews of Sessions that are answered at the same time.
const CONCURRENT_SESSIONS: usize = 32;

/// Who answers.
pub struct Answerers {
    /// What the operator decides about sidecars.
    pub injection: Settings,
    /// The bounds of namespaces.
    pub limit_ranges: Arc<LimitRanges>,
    /// Who may do what.
    pub sessions: Sessions,
}

struct Shared {
    answerers: Answerers,
    keyring: Keyring,
    intake: Intake,
    sessions: Semaphore,
}

/// The routes; their paths end in the key.
pub fn router(answerers: Answerers, keyring: Keyring) -> Router {
    let sessions_at_once = Semaphore::new(CONCURRENT_SESSIONS);
    let shared = Shared { answerers, keyring, intake: Intake::default(), sessions: sessions_at_once };
    Router::new()
        .route(&format!("{INJECT}/{{key}}"), post(inject))
        .route(&format!("{SESSIONS}/{{key}}"), post(sessions))
        .with_state(Arc::new(shared))
}

impl Shared {
    /// The body of a review, of who knows the path.
    async fn take(
        &self,
        key: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, SemaphorePermit<'_>), Response> {
        if !self.admits(key) {
            return Err(refused(Refused::WrongPath, StatusCode::NOT_FOUND));
        }
        self.intake.take(headers, body).await.map_err(|refusal| refused(refusal.into(), refusal))
    }

    /// Whether this is the key of the paths, in a time that doesn't tell how much of it is right.
    fn admits(&self, key: &str) -> bool {
        let keys = self.keyring.now();
        let (key, own) = (key.as_bytes(), keys.path_key.as_bytes());
        key.len() == own.len() && key.iter().zip(own).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }
}

async fn inject(
    State(shared): State<Arc<Shared>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (body, _share) = match shared.take(&key, &headers, body).await {
        Ok(taken) => taken,
        Err(refused) => return refused,
    };
    let (begun, pods) = (Instant::now(), &metrics().pods);
    let Answerers { injection: settings, limit_ranges, .. } = &shared.answerers;
    // Nothing that outlives the call is changed by it.
    let reviewed = std::panic::catch_unwind(AssertUnwindSafe(|| {
        injection::review(&body, settings, |namespace| limit_ranges.of(namespace))
    }));
    let (outcome, answer) = match reviewed {
        Ok(reviewed) => {
            log(&reviewed);
            (PodReview::of(&reviewed.outcome), reviewed.body)
        }
        Err(_panic) => {
            tracing::error!(outcome = "panic", "a pod was admitted without a sidecar by a fault of ours");
            (PodReview::Panicked, admitted_after_a_fault(&body))
        }
    };
    pods.reviews.of(outcome).inc();
    pods.duration.observe(begun.elapsed());
    json(answer)
}

fn log(reviewed: &Reviewed) {
    let outcome = reviewed.label();
    match &reviewed.outcome {
        Outcome::Failed(fault) => tracing::error!(outcome, "a pod was admitted without a sidecar: {fault}"),
        Outcome::Injected { .. } | Outcome::Skipped(_) => tracing::debug!(outcome, "pod"),
    }
}

/// The answer that admits a pod as it came.
fn admitted_after_a_fault(body: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Review {
        request: Request,
    }
    #[derive(Deserialize)]
    struct Request {
        uid: String,
    }
    let uid = serde_json::from_slice::<Review>(body).map(|review| review.request.uid).unwrap_or_default();
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": { "uid": uid, "allowed": true, "warnings": ["mirrord: not injected: a fault of its webhook, see its log"] },
    });
    answer.to_string().into_bytes()
}

async fn sessions(
    State(shared): State<Arc<Shared>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (body, _share) = match shared.take(&key, &headers, body).await {
        Ok(taken) => taken,
        Err(refused) => return refused,
    };
    let Ok(_permit) = shared.sessions.try_acquire() else {
        return refused(Refused::Busy, (StatusCode::TOO_MANY_REQUESTS, "too many reviews at once"));
    };
    let begun = Instant::now();
    let reviewed = shared.answerers.sessions.review(&body).await;
    metrics().sessions.duration.observe(begun.elapsed());
    match reviewed {
        Ok(answer) => json(answer),
        Err(error) => refused(Refused::Unreadable, (StatusCode::BAD_REQUEST, error.to_string())),
    }
}

fn refused(why: Refused, answer: impl IntoResponse) -> Response {
    metrics().server.refused.of(why).inc();
    answer.into_response()
}

fn json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_fault_the_pod_is_admitted_as_it_came_with_a_warning() {
        let answer = admitted_after_a_fault(br#"{"request":{"uid":"u-1","object":{"spec":7}}}"#);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["response"]["uid"], "u-1");
        assert_eq!(answer["response"]["allowed"], true);
        assert!(answer["response"]["patch"].is_null());
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.len() <= 120, "the API server cuts longer ones");
    }
}
