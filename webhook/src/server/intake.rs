//! How bodies come in: only for who knows the path, within a time, and within a budget of memory that all share.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH},
    response::{IntoResponse, Response},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::Refused;

/// An object has at most 3 MiB in the API server's requests (`MaxRequestBodyBytes`); the review around it is small. A
/// review of an update would carry two of them, but Sessions are small, and pods are only reviewed when they are made.
pub const BODY_BYTES: usize = 3 * 1024 * 1024 + 512 * 1024;
/// All bodies under way, in KiB; a review needs about three times its body until it is answered.
const BUDGET_KIB: usize = 16 * 1024;
/// The smallest share, in KiB: what a request costs besides its body.
const SMALLEST_KIB: usize = 16;
/// For a share of the budget to become free, and for a body to arrive: the API server waits 5 s in all.
const TURN: Duration = Duration::from_secs(2);
const ARRIVAL: Duration = Duration::from_secs(4);

/// The budget.
#[derive(Debug)]
pub struct Intake(Semaphore);

/// Why a body didn't come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is, or may become, longer than [`BODY_BYTES`].
    TooLarge,
    /// Others need the memory.
    Busy,
    /// It didn't arrive in time, or not whole.
    Broken,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge => Self::TooLarge,
            Refusal::Busy => Self::Busy,
            Refusal::Broken => Self::Broken,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "the review is larger than any of the API server's")
            }
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "too many reviews at once"),
            Self::Broken => (StatusCode::REQUEST_TIMEOUT, "the review did not arrive whole and in time"),
        }
        .into_response()
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self(Semaphore::new(BUDGET_KIB))
    }
}

impl Intake {
    /// Reads a body; its share of the budget is held as long as the permit.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn take(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, SemaphorePermit<'_>), Refusal> {
        let length = declared(headers);
        if length > BODY_BYTES {
            return Err(Refusal::TooLarge);
        }
        let share = u32::try_from((length / 1024).max(SMALLEST_KIB)).unwrap_or(u32::MAX);
        let permit = tokio::time::timeout(TURN, self.0.acquire_many(share)).await;
        let permit = permit.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Busy)?;
        match tokio::time::timeout(ARRIVAL, axum::body::to_bytes(body, length)).await {
            Ok(Ok(bytes)) => Ok((bytes, permit)),
            Ok(Err(_)) | Err(_) => Err(Refusal::Broken),
        }
    }
}

/// The length that a request says its body has; the most there may be where it says none.
fn declared(headers: &HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or(BODY_BYTES)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn length(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(length))])
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_bounds_what_is_under_way_and_comes_back() {
        let intake = Intake::default();
        let mut held = Vec::new();
        while let Ok((_, permit)) = intake.take(&length(BODY_BYTES), Body::from("{}")).await {
            held.push(permit);
        }
        assert_eq!(held.len(), BUDGET_KIB * 1024 / BODY_BYTES);
        assert_eq!(intake.take(&HeaderMap::new(), Body::from("{}")).await.err(), Some(Refusal::Busy));
        assert!(intake.take(&length(2), Body::from("{}")).await.is_ok(), "small ones still fit");
        held.clear();
        let (bytes, _permit) = intake.take(&HeaderMap::new(), Body::from("{}")).await.unwrap();
        assert_eq!(bytes, "{}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_long_or_too_slow_is_refused() {
        let intake = Intake::default();
        let long = intake.take(&length(BODY_BYTES + 1), Body::from("{}")).await;
        assert_eq!(long.err(), Some(Refusal::TooLarge));
        let longer_than_said = intake.take(&length(1), Body::from("{}")).await;
        assert_eq!(longer_than_said.err(), Some(Refusal::Broken));
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(intake.take(&length(2), never).await.err(), Some(Refusal::Broken));
        assert_eq!(intake.0.available_permits(), BUDGET_KIB);
    }
}
