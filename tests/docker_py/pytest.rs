//! One run of docker-py's tests, and what its report says.

use std::collections::BTreeSet;
use std::fmt::{Display, Formatter, Result};
use std::path::Path;

use crate::Place;

const ALL: &str = "tests/integration";

/// pytest against the Docker that answers at this socket.
pub struct Pytest<'a> {
    pub tests: &'a Path,
    pub place: &'a Place,
    pub socket: &'a Path,
}

/// The names of the tests by their end; those that are skipped or fail as docker-py expects them to are in neither.
#[derive(Debug, Default)]
pub struct Outcomes {
    pub passed: BTreeSet<String>,
    pub failed: BTreeSet<String>,
    /// What pytest printed, the second time too.
    pub output: String,
}

impl Pytest<'_> {
    /// All tests, and once more those that fail.
    pub fn run(&self) -> Outcomes {
        let mut first = self.pytest(&[ALL]);
        assert!(!first.passed.is_empty(), "{}", first.output);
        if first.failed.is_empty() {
            return first;
        }
        let again: Vec<&str> = first.failed.iter().map(String::as_str).collect();
        let second = self.pytest(&again);
        first.passed.extend(second.passed);
        first.failed = second.failed;
        first.output.push_str(&second.output);
        first
    }

    fn pytest(&self, tests: &[&str]) -> Outcomes {
        let home = self.place.home();
        // The tests leave contexts and a login there.
        let _ = std::fs::remove_dir_all(&home);
        // Without this file they would go into the folder of the tests, for the next run to find.
        std::fs::create_dir_all(home.join(".docker")).unwrap();
        std::fs::write(home.join(".docker/config.json"), "{}").unwrap();
        let mut command = self.place.command(&self.tests.join("venv/bin/python"));
        command.args([
            "-B",
            "-m",
            "pytest",
            "-q",
            "-rA",
            "--tb=short",
            "--timeout=120",
            "-p",
            "no:cacheprovider",
        ]);
        command.args(tests).current_dir(self.tests.join("docker"));
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display())).env("HOME", &home);
        for name in ["DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        read(text(&output.stdout) + &text(&output.stderr))
    }
}

/// Reads the lines `PASSED test` and `FAILED test - reason` of a report.
fn read(output: String) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for line in output.lines() {
        let Some((outcome, rest)) = line.split_once(' ') else { continue };
        let Some(name) = rest.split(' ').next().filter(|name| name.starts_with(ALL)) else { continue };
        match outcome {
            "PASSED" => outcomes.passed.insert(name.to_owned()),
            // A fault of what a test needs beforehand.
            "FAILED" | "ERROR" => outcomes.failed.insert(name.to_owned()),
            _ => continue,
        };
    }
    // One that passes and cannot clean up is in the report twice.
    outcomes.passed = &outcomes.passed - &outcomes.failed;
    outcomes.output = output;
    outcomes
}

impl Display for Outcomes {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} passed, {} failed", self.passed.len(), self.failed.len())
    }
}
