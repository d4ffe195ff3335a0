//! A histogram of durations, made of atomics: prometheus-client's has a lock that all who count would share.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Upper bounds of the buckets, in microseconds: from an admission's 40 µs to what an API server waits for at most.
const BOUNDS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000,
];

/// The histogram. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Durations(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| bound * 1000 < nanoseconds);
        self.0.counts[place].fetch_add(1, Relaxed);
        self.0.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Relaxed)).sum()
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(|bound| Duration::from_micros(*bound).as_secs_f64());
        let counts = self.0.counts.iter().map(|count| count.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Registry, Unit, exposition};

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it_and_in_all_above() {
        let durations = Durations::default();
        for microseconds in [50, 51, 5_000_000, 5_000_001] {
            durations.observe(Duration::from_micros(microseconds));
        }
        let mut registry = Registry::default();
        registry.register_with_unit("wait", "A wait", Unit::Seconds, durations.clone());
        let text = exposition::text(&registry).unwrap();
        for line in [
            "# TYPE wait_seconds histogram",
            r#"wait_seconds_bucket{le="0.00005"} 1"#,
            r#"wait_seconds_bucket{le="0.0001"} 2"#,
            r#"wait_seconds_bucket{le="5.0"} 3"#,
            r#"wait_seconds_bucket{le="+Inf"} 4"#,
            "wait_seconds_count 4",
            "wait_seconds_sum 10.000102",
        ] {
            assert!(text.lines().any(|written| written == line), "no {line} in\n{text}");
        }
        assert_eq!(durations.count(), 4);
    }
}
