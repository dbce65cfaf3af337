//! Samples: rounds of one measurement, their median and spread, and the clocks they are taken with.
//!
//! Invariant: a median of an even number of rounds is the lower middle, a value that was measured. Caller: every item.

use std::time::{Duration, Instant};

/// What one measurement gave, round by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn of(value: f64) -> Sample {
        Sample(vec![value])
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&self) -> f64 {
        percentile(&self.0, 50.0)
    }

    pub(crate) fn low(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn high(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Round by round divided by another one: what the machine did in a round happened to both.
    pub(crate) fn over(&self, other: &Sample) -> Sample {
        if self.0.len() != other.0.len() {
            return Sample::of(self.median() / other.median());
        }
        Sample(self.0.iter().zip(&other.0).map(|(mine, theirs)| mine / theirs).collect())
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Sample {
        Sample(values.into_iter().collect())
    }
}

/// The smallest value that `percent` of all do not exceed; 0 of none.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// Seconds that a piece of work took.
pub(crate) fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), E> {
    let began = Instant::now();
    let done = work()?;
    Ok((done, began.elapsed()))
}

/// Measures several ways to do one thing in turns: `rounds` rounds, each way once in each, who begins changes.
pub(crate) fn in_turns<E>(
    rounds: usize,
    ways: usize,
    mut measure: impl FnMut(usize, usize) -> Result<f64, E>,
) -> Result<Vec<Sample>, E> {
    let mut samples = vec![Vec::new(); ways];
    for round in 0..rounds {
        for turn in 0..ways {
            let way = (turn + round) % ways;
            samples[way].push(measure(way, round)?);
        }
    }
    Ok(samples.into_iter().map(Sample).collect())
}
