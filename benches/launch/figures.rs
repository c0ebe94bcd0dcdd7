//! Figures: median and 95th percentile, a table, and one line a goal.

use std::time::Duration;

/// Measured values of one kind, in milliseconds or megabytes.
#[derive(Debug, Default, Clone)]
pub struct Figure(Vec<f64>);

impl Figure {
    #[allow(dead_code, reason = "some benches only")]
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    pub fn add(&mut self, took: Duration) {
        self.push(took.as_secs_f64() * 1000.0);
    }

    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1) as f64;
        let (low, high) = ((last * part).floor() as usize, (last * part).ceil() as usize);
        match (sorted.get(low), sorted.get(high)) {
            (Some(low), Some(high)) => (low + high) / 2.0,
            _ => f64::NAN,
        }
    }

    #[allow(dead_code, reason = "some benches only")]
    pub fn highest(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    pub fn row(&self, name: &str, unit: &str) -> String {
        let (median, p95, count) = (self.median(), self.quantile(0.95), self.0.len());
        format!("{name:<58} {median:>8.1} {p95:>8.1}  {unit:<3} {count:>4}")
    }
}

pub fn header() -> String {
    format!("{:<58} {:>8} {:>8}  {:<3} {:>4}", "", "MEDIAN", "P95", "", "RUNS")
}

/// A figure that is to stay at or below a limit. Printed as `goal NAME measured M limit L ok` or `short`.
#[derive(Clone)]
pub struct Goal {
    name: &'static str,
    measured: f64,
    limit: f64,
}

impl Goal {
    pub fn new(name: &'static str, measured: f64, limit: f64) -> Self {
        Self { name, measured, limit }
    }

    /// False too for a figure that was not measured: it is not a number, and no limit holds it.
    pub fn is_met(&self) -> bool {
        self.measured <= self.limit
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, measured, limit } = self;
        let verdict = if self.is_met() { "ok" } else { "short" };
        write!(f, "goal {name} measured {measured:.2} limit {limit} {verdict}")
    }
}
