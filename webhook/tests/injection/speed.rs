//! How long a review takes. Printed (`cargo test --release speed -- --nocapture`), not asserted: times are noise here.

use std::time::{Duration, Instant};

use mirrord_webhook::injection::{Limits, review};

use crate::{admission_review, goldens::goldens, settings};

#[test]
fn the_time_of_a_review_is_printed() {
    let settings = settings();
    for golden in goldens() {
        let body = serde_json::to_vec(&admission_review(&golden.pod)).unwrap();
        let mut times: Vec<Duration> = (0..200)
            .map(|_| {
                let start = Instant::now();
                let reviewed = review(&body, &settings, |_| Limits::default());
                assert!(!reviewed.body.is_empty());
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{:20} {:5} bytes  p50 {:?}  p99 {:?}", golden.kind, body.len(), times[100], times[198]);
    }
}
