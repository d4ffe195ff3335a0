//! Why a Session is refused, for people and for programs.
//!
//! The API server passes the `status` of a denial on to the client, with `admission webhook "…" denied the request: `
//! in front of the message; code, reason and details arrive untouched. So programs read
//! `details.causes[0].reason`, one word of the table below, and people read the message.
//!
//! | word | HTTP | meaning |
//! |---|---|---|
//! | `not_found` | 404 | no such workload, pod or container |
//! | `no_sidecar` | 422 | it is there, but nothing of it can serve now |
//! | `not_granted` | 403 | the caller lacks a feature that the session requires, or it is somebody else's session |
//! | `too_many` | 403 | the caller has as many sessions here as one user may have |
//! | `bad_session` | 422 | the Session itself makes no sense |
//! | `unavailable` | 503 | a fault of ours or of the API server; try again |

use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialCode {
    /// No such workload, pod or container.
    NotFound,
    /// It is there, but nothing of it can serve now.
    NoSidecar,
    /// The caller lacks a right.
    NotGranted,
    /// The caller has as many sessions as one user may have.
    TooMany,
    /// The Session itself makes no sense.
    BadSession,
    /// A fault of ours or of the API server.
    Unavailable,
}

impl DenialCode {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::NotFound,
        Self::NoSidecar,
        Self::NotGranted,
        Self::TooMany,
        Self::BadSession,
        Self::Unavailable,
    ];

    /// The word for programs, and the value of the metric's label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NoSidecar => "no_sidecar",
            Self::NotGranted => "not_granted",
            Self::TooMany => "too_many",
            Self::BadSession => "bad_session",
            Self::Unavailable => "unavailable",
        }
    }

    fn http(self) -> (i32, &'static str) {
        match self {
            Self::NotFound => (404, "NotFound"),
            Self::NoSidecar => (422, "NoSidecar"),
            // As a ResourceQuota does.
            Self::NotGranted | Self::TooMany => (403, "Forbidden"),
            Self::BadSession => (422, "BadSession"),
            Self::Unavailable => (503, "ServiceUnavailable"),
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denial {
    /// What kind.
    pub code: DenialCode,
    /// What, where, and the next step.
    pub message: String,
}

impl Denial {
    pub(crate) fn new(code: DenialCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn bad_session(message: impl Into<String>) -> Self {
        Self::new(DenialCode::BadSession, message)
    }

    /// For `map_err`: something that we needed failed.
    pub(crate) fn unavailable<E: Display>(doing: &str) -> impl FnOnce(E) -> Self {
        move |error| {
            Self::new(DenialCode::Unavailable, format!("the mirrord webhook failed at {doing}: {error}"))
        }
    }

    /// As the API server wants it.
    #[must_use]
    pub fn status(&self) -> Status {
        let (code, reason) = self.code.http();
        let cause = StatusCause {
            reason: Some(self.code.word().to_owned()),
            message: Some(self.message.clone()),
            field: None,
        };
        Status {
            status: Some("Failure".to_owned()),
            code: Some(code),
            reason: Some(reason.to_owned()),
            message: Some(self.message.clone()),
            details: Some(StatusDetails { causes: Some(vec![cause]), ..StatusDetails::default() }),
            ..Status::default()
        }
    }
}
