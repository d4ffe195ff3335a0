//! Buckets of tokens: so many at once, then so many a minute; one for each namespace, so that none is silenced by another.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// What a team that comes to work at the same minute needs.
const FULL: u32 = 60;
/// One more after so long.
const REFILL: Duration = Duration::from_secs(2);

/// Namespaces whose buckets aren't full; more have to wait.
const NAMESPACES: usize = 1024;

/// The buckets of all namespaces.
#[derive(Debug, Default)]
pub struct Buckets(HashMap<String, Bucket>);

impl Buckets {
    /// Takes a token of a namespace, if there is one.
    pub fn take(&mut self, namespace: &str, now: Instant) -> bool {
        if let Some(bucket) = self.0.get_mut(namespace) {
            return bucket.take(now);
        }
        if self.0.len() >= NAMESPACES {
            // A full one is as good as none.
            self.0.retain(|_, bucket| !bucket.is_full(now));
        }
        let room = self.0.len() < NAMESPACES;
        room && self.0.entry(namespace.to_owned()).or_insert_with(|| Bucket::new(now)).take(now)
    }
}

/// One bucket.
#[derive(Debug)]
pub struct Bucket {
    tokens: u32,
    refilled: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { tokens: FULL, refilled: now }
    }

    fn due(&self, now: Instant) -> u32 {
        let due = now.saturating_duration_since(self.refilled).as_nanos() / REFILL.as_nanos();
        u32::try_from(due).unwrap_or(u32::MAX)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.tokens.saturating_add(self.due(now)) >= FULL
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.due(now);
        if self.tokens.saturating_add(due) >= FULL {
            (self.tokens, self.refilled) = (FULL, now);
        } else {
            self.tokens += due;
            self.refilled += REFILL * due;
        }
        let some = self.tokens > 0;
        self.tokens -= u32::from(some);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut Bucket, now: Instant) -> usize {
        std::iter::repeat_with(|| bucket.take(now)).take_while(|taken| *taken).count()
    }

    #[test]
    fn a_flood_in_one_namespace_silences_no_other_and_takes_no_memory_for_good() {
        let start = Instant::now();
        let mut buckets = Buckets::default();
        assert_eq!((0..100).filter(|_| buckets.take("loud", start)).count(), FULL as usize);
        assert!(buckets.take("quiet", start));
        for number in 0..2 * NAMESPACES {
            buckets.take(&format!("n{number}"), start);
        }
        assert_eq!(buckets.0.len(), NAMESPACES);
        assert!(!buckets.take("late", start) && buckets.take("late", start + REFILL));
        assert_eq!(buckets.0.len(), 2, "the loud one and the late one");
    }

    #[test]
    fn a_flood_gets_a_bucketful_and_then_as_much_as_time_gives() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert_eq!(taken(&mut bucket, start), FULL as usize);
        assert_eq!(taken(&mut bucket, start + REFILL - Duration::from_millis(1)), 0);
        assert_eq!(taken(&mut bucket, start + REFILL * 5 / 2), 2);
        assert_eq!(taken(&mut bucket, start + REFILL * 3), 1, "what time gave in part isn't lost");
        assert_eq!(taken(&mut bucket, start + REFILL * 10_000), FULL as usize, "nor is more kept than fits");
    }
}
