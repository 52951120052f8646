//! Figures of several rounds.

use serde_json::{Value, json};

use crate::generator::Round;

/// Lowest, middle and highest of the rounds. Not a number where one round has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let is_whole = values.iter().all(|value| !value.is_nan());
        let at = |index: usize| values.get(index).copied().filter(|_| is_whole).unwrap_or(f64::NAN);
        Self { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }

    /// Of each pair of rounds that ran one after the other.
    pub(crate) fn of_ratios(rounds: &[Round], others: &[Round], value: fn(&Round) -> f64) -> Self {
        Self::of(rounds.iter().zip(others).map(|(round, other)| value(round) / value(other)))
    }

    /// `median [min-max]`, with three digits that count; only one number where all are the same, a dash where there is
    /// none.
    pub(crate) fn show(self) -> String {
        let Self { min, median, max } = self;
        if median.is_nan() {
            return "-".to_owned();
        }
        if min >= max {
            return digits(median);
        }
        format!("{} [{}-{}]", digits(median), digits(min), digits(max))
    }

    pub(crate) fn json(self) -> Value {
        json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

/// A number with three digits that count, or all of a whole one.
pub(crate) fn digits(number: f64) -> String {
    let decimals = match number.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        0.01.. => 4,
        _ => 5,
    };
    format!("{number:.decimals$}")
}

impl Round {
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of the peer's CPU time for each.
    pub(crate) fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count as f64
    }

    pub(crate) fn own_cpu_each(&self) -> f64 {
        self.own_cpu.as_secs_f64() * 1e6 / self.count as f64
    }

    /// How much of a core this process took.
    pub(crate) fn own_share(&self) -> f64 {
        self.own_cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// Milliseconds; `part` of all were faster. Not a number where less than ten were slower.
    pub(crate) fn latency(&self, part: f64) -> f64 {
        let index = (self.latencies.len() as f64 * part) as usize;
        if self.latencies.len() < index + 10 {
            return f64::NAN;
        }
        self.latencies.get(index).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        let spread = Spread::of([3.0, 1.0, 20.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 20.0));
        assert_eq!(spread.show(), "3.00 [1.00-20.0]");
        assert_eq!(Spread::of([250.0]).show(), "250");
        assert_eq!(Spread::of([]).show(), "-");
        assert_eq!(Spread::of([1.0, f64::NAN]).show(), "-");
    }

    #[test]
    fn a_percentile_needs_some_beyond_it() {
        let round = Round { latencies: (0..1_000).map(|ms| ms * 1_000_000).collect(), ..Round::default() };
        assert_eq!(round.latency(0.5), 500.0);
        assert_eq!(round.latency(0.99), 990.0);
        assert!(round.latency(0.999).is_nan());
    }
}
