//! How many frames a connection may send.

use crate::id::Millis;

/// So many per second on average, and so many at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// On average; 0 means no limit.
    pub per_second: u32,
    /// At once, after a pause; at least 1.
    pub burst: u32,
}

/// The generic cell rate algorithm (ITU-T I.371) on passed-in time: one number of state.
pub(super) struct Limiter {
    rate: Rate,
    /// When the bucket will be empty again, in microseconds.
    empty_at: u64,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, empty_at: 0 }
    }

    /// Whether one more is allowed now; if so it is counted.
    pub(super) fn take(&mut self, now: Millis) -> bool {
        if self.rate.per_second == 0 {
            return true;
        }
        let now = now.0.saturating_mul(1_000);
        let cost = 1_000_000 / u64::from(self.rate.per_second);
        let filled = self.empty_at.max(now).saturating_add(cost);
        let allowed = filled <= now.saturating_add(cost * u64::from(self.rate.burst.max(1)));
        if allowed {
            self.empty_at = filled;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_average() {
        let mut limiter = Limiter::new(Rate { per_second: 10, burst: 3 });
        let passed = |limiter: &mut Limiter, at| (0..10).filter(|_| limiter.take(Millis(at))).count();
        assert_eq!(passed(&mut limiter, 1_000), 3);
        assert_eq!(passed(&mut limiter, 1_099), 0);
        assert_eq!(passed(&mut limiter, 1_100), 1);
        assert_eq!(passed(&mut limiter, 60_000), 3);
    }

    #[test]
    fn zero_means_no_limit() {
        let mut limiter = Limiter::new(Rate { per_second: 0, burst: 0 });
        assert!((0..10_000).all(|_| limiter.take(Millis(0))));
    }
}
