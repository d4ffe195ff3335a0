//! How long a review takes. Printed (`cargo test --release speed -- --nocapture`), not asserted: times are noise here.

use std::time::{Duration, Instant};

use mirrord_webhook::{
    injection::{Limits, review},
    metrics::{PodReview, metrics},
};

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

#[test]
fn the_time_of_counting_a_review_is_printed_and_none_is_lost() {
    const THREADS: u64 = 2;
    const TIMES: u64 = 100_000;
    let pods = &metrics().pods;
    let count = || {
        let start = Instant::now();
        for _ in 0..TIMES {
            let begun = Instant::now();
            pods.reviews.of(PodReview::Injected).inc();
            pods.duration.observe(begun.elapsed());
        }
        start.elapsed()
    };
    let alone = count();
    let together = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    let each = |time: Duration| time / u32::try_from(TIMES).unwrap();
    println!("counting a review: {:?}, {THREADS} threads at once {:?}", each(alone), each(together));
    assert_eq!(pods.duration.count(), (1 + THREADS) * TIMES);
    assert_eq!(pods.reviews.of(PodReview::Injected).get(), (1 + THREADS) * TIMES);
}
