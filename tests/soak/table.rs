//! What is printed: a row a life as it comes, what was not struck, and the last line.

use std::collections::BTreeSet;

use calico_mesos::task::report::steps::Step;

use crate::fault::Fault;
use crate::life::Verdict;
use crate::plan::Plan;

/// From how many lives on every step and fault has to have come up.
const LARGE: usize = 400;

pub struct Table {
    lives: usize,
    faults: usize,
    leaks: usize,
    doubles: usize,
    steps: BTreeSet<Step>,
    struck: BTreeSet<&'static str>,
}

impl Table {
    pub fn begin() -> Self {
        println!(
            "{:>4}  {:<20} {:<47} {:<36} {:<38} {:<58} {:>6} {:>5}",
            "LIFE", "SEED", "WAY", "STEP", "FAULT", "OUTCOME", "CLEAN", "LEAKS"
        );
        Self { lives: 0, faults: 0, leaks: 0, doubles: 0, steps: BTreeSet::new(), struck: BTreeSet::new() }
    }

    pub fn row(&mut self, plan: &Plan, verdict: &Verdict) {
        self.lives += 1;
        self.leaks += verdict.leaks.len();
        self.doubles += verdict.doubles.len();
        if verdict.struck.is_some() {
            self.faults += 1;
            self.steps.insert(plan.step);
            self.struck.insert(plan.fault.name());
        }
        let fault = match &verdict.struck {
            Some(words) if words.is_empty() => plan.fault.name().to_owned(),
            Some(words) => format!("{} ({words})", plan.fault.name()),
            None => format!("{} (not struck)", plan.fault.name()),
        };
        println!(
            "{:>4}  {:<20} {:<47} {:<36} {:<38} {:<58} {:>4.1} s {:>5}",
            self.lives,
            plan.seed,
            plan.describe(),
            plan.moment(),
            fault,
            verdict.outcome,
            verdict.cleaned,
            verdict.leaks.len() + verdict.doubles.len(),
        );
        for line in verdict.leaks.iter().chain(&verdict.doubles) {
            println!("      ! {line}");
        }
        for line in verdict.evidence.lines() {
            println!("      | {line}");
        }
    }

    /// The last lines; true when all is well.
    pub fn end(self) -> bool {
        let steps: Vec<_> =
            Step::ALL.iter().filter(|step| !self.steps.contains(step)).map(|step| step.name()).collect();
        let faults: Vec<_> =
            Fault::ALL.iter().map(|fault| fault.name()).filter(|name| !self.struck.contains(name)).collect();
        for (what, missing) in [("steps", &steps), ("faults", &faults)] {
            if !missing.is_empty() {
                println!("{what} that were not struck: {}", missing.join(", "));
            }
        }
        println!(
            "soak: {} lives, {} faults, {} leaks, {} double updates",
            self.lives, self.faults, self.leaks, self.doubles
        );
        let covered = steps.is_empty() && faults.is_empty();
        self.leaks == 0 && self.doubles == 0 && (covered || self.lives < LARGE)
    }
}
