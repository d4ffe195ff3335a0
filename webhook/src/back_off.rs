//! How long to wait between attempts: doubling, bounded, jittered so that replicas and twins don't move in step.

use std::time::Duration;

use ring::rand::SecureRandom;

/// Delays between attempts at one thing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl BackOff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0 }
    }

    /// What to wait after another failure.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.most);
        self.attempts = self.attempts.saturating_add(1);
        let mut random = [0];
        // Without randomness there is no jitter: no harm.
        let _ = ring::rand::SystemRandom::new().fill(&mut random);
        full / 2 + full.mul_f32(f32::from(random[0]) / 512.0)
    }

    /// It worked: the next failure waits little again.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound_and_fall_back_after_success() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut back_off = BackOff::new(first, most);
        let delays: Vec<_> = (0..40).map(|_| back_off.next()).collect();
        assert!(delays[0] >= first / 2 && delays[0] <= first, "{:?}", delays[0]);
        assert!(delays[39] >= most / 2 && delays[39] <= most, "{:?}", delays[39]);
        back_off.reset();
        assert!(back_off.next() <= first);
    }
}
