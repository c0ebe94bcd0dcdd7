//! What a run has found: each statement with what was expected, in the order of the phases, and how long each phase took.

use std::fmt::Display;
use std::time::Instant;

/// The end of a run: what comes after a phase that cannot go on would mean nothing.
#[derive(Debug)]
pub struct Ended(pub String);

impl<T: Display> From<T> for Ended {
    fn from(why: T) -> Self {
        Self(why.to_string())
    }
}

#[derive(Default)]
pub struct Checks {
    passed: usize,
    failed: Vec<String>,
    phase: String,
    times: Vec<(String, f64)>,
}

impl Checks {
    /// One part of the run; prints how long it took.
    pub fn phase<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> Result<T, Ended>,
    ) -> Result<T, Ended> {
        println!("=== {name}");
        self.phase = name.to_owned();
        let begun = Instant::now();
        let result = work(self);
        let took = begun.elapsed().as_secs_f64();
        println!("=== {name}: {took:.1} s");
        self.times.push((name.to_owned(), took));
        result.map_err(|Ended(why)| Ended(format!("{name}: {why}")))
    }

    /// A statement that is true, or is not because of what was found.
    pub fn holds(&mut self, expected: &str, found: Result<(), String>) {
        match found {
            Ok(()) => {
                self.passed += 1;
                println!("  ok      {expected}");
            }
            Err(found) => {
                println!("  FAILED  {expected}\n          found: {}", found.replace('\n', "\n          "));
                self.failed.push(format!("{}: {expected}", self.phase));
            }
        }
    }

    pub fn equals(&mut self, expected: &str, found: &str, wanted: &str) {
        let result =
            (found == wanted).then_some(()).ok_or_else(|| format!("{found:?} instead of {wanted:?}"));
        self.holds(expected, result);
    }

    pub fn contains(&mut self, expected: &str, found: &str, wanted: &str) {
        let result =
            found.contains(wanted).then_some(()).ok_or_else(|| format!("no {wanted:?} in {found:?}"));
        self.holds(expected, result);
    }

    /// A goal for the time that something took.
    pub fn within(&mut self, what: &str, took: f64, limit: f64) {
        let result = (took <= limit).then_some(()).ok_or_else(|| format!("{took:.1} s"));
        self.holds(&format!("{what} takes at most {limit} s ({took:.1} s)"), result);
    }

    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// The last lines; true when everything held.
    pub fn close(mut self, ended: Option<Ended>) -> bool {
        if let Some(Ended(why)) = ended {
            println!("ENDED  {why}");
            self.failed.push(why);
        }
        println!();
        for (name, took) in &self.times {
            println!("{took:7.1} s  {name}");
        }
        for failed in &self.failed {
            println!("FAILED  {}", failed.lines().next().unwrap_or_default());
        }
        println!("cluster: {} passed, {} failed", self.passed, self.failed.len());
        self.failed.is_empty()
    }
}
