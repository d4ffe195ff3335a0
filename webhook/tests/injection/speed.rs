//! How long a review takes. Printed (`cargo test --release speed -- --nocapture`), not asserted: times are noise here.

use std::time::{Duration, Instant};

use mirrord_webhook::injection::{Limits, review};

use crate::{admission_review, goldens::goldens, settings};

/// Enough for a median, and short without optimisation.
const ROUNDS: usize = if cfg!(debug_assertions) { 50 } else { 1000 };

#[test]
fn the_time_of_a_review_is_printed() {
    let settings = settings();
    for golden in goldens() {
        let body = serde_json::to_vec(&admission_review(&golden.pod)).unwrap();
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                let reviewed = review(&body, &settings, |_| Limits::default());
                assert!(!reviewed.body.is_empty());
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!(
            "{:20} {:5} bytes  p50 {:?}  p99 {:?}",
            golden.kind,
            body.len(),
            times[ROUNDS / 2],
            times[ROUNDS * 99 / 100]
        );
    }
}
