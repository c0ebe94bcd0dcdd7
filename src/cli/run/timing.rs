//! How long a launch took, and which part of it what.
//!
//! The executor writes its parts to its log (the sandbox's `stderr`), in a fixed form:
//! `… running after 94 ms (address 4, interface 6, gate 0, start 71)`.

use std::path::Path;
use std::time::Duration;

use super::task::ExecutorKind;

/// Milliseconds, as the executor measured them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    pub address: u64,
    pub interface: u64,
    pub gate: u64,
}

impl Parts {
    /// From the executor's log; `None` for a task without Calico, or when the line is not there.
    pub fn read(stderr: &Path) -> Option<Self> {
        // The log of a container that writes a lot shares this file: only its beginning is of interest.
        let text = String::from_utf8_lossy(&std::fs::read(stderr).ok()?).into_owned();
        text.lines().find_map(Self::parse)
    }

    fn parse(line: &str) -> Option<Self> {
        let rest = line.split_once(" running after ")?.1.split_once(" ms (address ")?.1;
        let (address, rest) = rest.split_once(", interface ")?;
        let (interface, rest) = rest.split_once(", gate ")?;
        let (gate, _) = rest.split_once(", start ")?;
        Some(Self {
            address: address.parse().ok()?,
            interface: interface.parse().ok()?,
            gate: gate.parse().ok()?,
        })
    }
}

/// `  94 ms  (address 4, veth 6, gate waited 0, rest Docker)`
pub fn describe(total: Duration, parts: Option<Parts>, kind: ExecutorKind) -> String {
    let rest = if kind == ExecutorKind::Command { "executor" } else { "Docker" };
    let total = format!("{:>4} ms", total.as_millis());
    match parts {
        Some(Parts { address, interface, gate }) => {
            format!("{total}  (address {address}, veth {interface}, gate waited {gate}, rest {rest})")
        }
        None => total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_read_from_the_executors_log_line() {
        let line = "I1123 19:02:01.123 7 a.1: running after 94 ms (address 4, interface 6, gate 0, start 71)";
        let parts = Parts::parse(line).unwrap();
        assert_eq!(parts, Parts { address: 4, interface: 6, gate: 0 });
        assert_eq!(
            describe(Duration::from_millis(94), Some(parts), ExecutorKind::DropIn),
            "  94 ms  (address 4, veth 6, gate waited 0, rest Docker)"
        );
        assert_eq!(Parts::parse("running"), None);
        assert_eq!(describe(Duration::from_millis(94), None, ExecutorKind::Command), "  94 ms");
    }
}
