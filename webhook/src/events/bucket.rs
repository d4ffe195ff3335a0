//! A bucket of tokens: so many at once, then so many a minute.

use std::time::{Duration, Instant};

/// What a team that comes to work at the same minute needs.
const FULL: u32 = 60;
/// One more after so long.
const REFILL: Duration = Duration::from_secs(2);

/// The bucket.
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

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = now.saturating_duration_since(self.refilled).as_nanos() / REFILL.as_nanos();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
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
