//! The meaning of a check's results, counted as the stock executor counts them. Pure: the caller brings the clock.

use std::time::Duration;

use super::CheckVerdict;

/// When checks are made, and how many may fail.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckTiming {
    /// Before the first check.
    pub delay: Duration,
    /// From the end of one check to the begin of the next.
    pub interval: Duration,
    /// For one check; `None` lets it take as long as it takes.
    pub timeout: Option<Duration>,
    /// As long as nothing has succeeded yet, failures within this time after the start count for nothing.
    pub grace: Duration,
    /// Failures in a row that end the task; none has the meaning of one.
    pub failures: u32,
}

/// The results so far, as far as they matter.
#[derive(Debug)]
pub struct Policy {
    grace: Duration,
    limit: u32,
    /// Failures since the last success.
    failures: u32,
    ever_healthy: bool,
    over: bool,
}

impl Policy {
    pub fn new(timing: &CheckTiming) -> Self {
        Self {
            grace: timing.grace,
            limit: timing.failures.max(1),
            failures: 0,
            ever_healthy: false,
            over: false,
        }
    }

    /// Takes one result, `age` after the start; `None` when there is nothing to report.
    pub fn judge(&mut self, result: Result<(), String>, age: Duration) -> Option<CheckVerdict> {
        if self.over {
            return None;
        }
        match result {
            Ok(()) => {
                let news = !self.ever_healthy || self.failures > 0;
                self.ever_healthy = true;
                self.failures = 0;
                news.then(|| CheckVerdict {
                    healthy: true,
                    kill: false,
                    why: "the health check succeeds".into(),
                    failures: (0, self.limit),
                })
            }
            Err(_) if !self.ever_healthy && age < self.grace => None,
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                self.over = self.failures >= self.limit;
                Some(CheckVerdict {
                    healthy: false,
                    kill: self.over,
                    why,
                    failures: (self.failures, self.limit),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(grace: u64, failures: u32) -> Policy {
        Policy::new(&CheckTiming {
            delay: Duration::ZERO,
            interval: Duration::ZERO,
            timeout: None,
            grace: Duration::from_secs(grace),
            failures,
        })
    }

    /// `+` and `-` in, one a second; out come `H`ealthy, `U`nhealthy, `K`ill, and `.` for nothing.
    fn told(grace: u64, failures: u32, results: &str) -> String {
        let mut policy = policy(grace, failures);
        let results = results.chars().enumerate();
        results
            .map(|(second, result)| {
                let result = if result == '+' { Ok(()) } else { Err("no".to_owned()) };
                match policy.judge(result, Duration::from_secs(second as u64)) {
                    None => '.',
                    Some(CheckVerdict { healthy: true, .. }) => 'H',
                    Some(CheckVerdict { kill: true, .. }) => 'K',
                    Some(_) => 'U',
                }
            })
            .collect()
    }

    #[test]
    fn a_success_is_reported_once_and_every_failure() {
        assert_eq!(told(0, 9, "+++--+-+"), "H..UUHUH");
    }

    #[test]
    fn consecutive_failures_kill_and_end_the_reports() {
        assert_eq!(told(0, 3, "+--+---+-"), "HUUHUUK..");
        assert_eq!(told(0, 1, "+-+"), "HK.");
        assert_eq!(told(0, 0, "+-+"), "HK.");
    }

    #[test]
    fn grace_ends_with_its_time_or_with_the_first_success() {
        assert_eq!(told(3, 9, "------"), "...UUU");
        assert_eq!(told(9, 9, "--+-+"), "..HUH");
        // Failures of the grace period are not counted afterwards either.
        assert_eq!(told(2, 2, "-----"), "..UK.");
        assert_eq!(told(0, 2, "---"), "UK.");
    }

    proptest! {
        #[test]
        fn any_sequence_of_results_follows_the_policy(
            grace in 0u64..20, limit in 0u32..6, results in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut policy = policy(grace, limit);
            let (mut row, mut ever, mut last, mut dead) = (0u32, false, None, false);
            for (second, ok) in results.into_iter().enumerate() {
                let age = Duration::from_secs(second as u64);
                let verdict = policy.judge(if ok { Ok(()) } else { Err("no".into()) }, age);
                if dead {
                    prop_assert!(verdict.is_none());
                    continue;
                }
                let ignored = !ok && !ever && (second as u64) < grace;
                ever |= ok;
                row = match (ok, ignored) { (true, _) => 0, (_, true) => row, _ => row + 1 };
                match verdict {
                    Some(verdict) => {
                        prop_assert_eq!(verdict.healthy, ok);
                        prop_assert!(!ignored);
                        prop_assert!(!ok || last != Some(true), "healthy is told twice");
                        prop_assert_eq!(verdict.kill, !ok && row >= limit.max(1));
                        last = Some(ok);
                        dead = verdict.kill;
                    }
                    None => prop_assert!(ignored || (ok && last == Some(true))),
                }
            }
        }
    }
}
