//! How long until the next attempt.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause, doubled up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A connection that held so long was a good one.
const GOOD: Duration = Duration::from_secs(10);

pub(in crate::layer) struct Backoff {
    pause: Duration,
    since: Instant,
}

impl Backoff {
    pub(in crate::layer) fn new() -> Self {
        Self { pause: PAUSE.0, since: Instant::now() }
    }

    /// A connection is open.
    pub(in crate::layer) fn opened(&mut self) {
        self.since = Instant::now();
    }

    /// Waits; `held` says whether there was a connection since the last time.
    pub(in crate::layer) async fn wait(&mut self, held: bool) {
        if held && self.since.elapsed() >= GOOD {
            self.pause = PAUSE.0;
        }
        // Between half of it and all, so that the nodes of a fleet do not come back in the same moment.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        tokio::time::sleep(self.pause.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)).await;
        self.pause = (self.pause * 2).min(PAUSE.1);
    }
}
