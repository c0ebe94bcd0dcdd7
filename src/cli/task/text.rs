//! The words and figures that the verbs about tasks have in common.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use serde_json::{json, Value};

use crate::net::show::Traffic;
use crate::task::story::Story;

/// The age of what began at a time of RFC 3339.
pub fn age(since: Option<&str>, now: SystemTime) -> Option<Duration> {
    let since = humantime::parse_rfc3339(since?).ok()?;
    // A time in the future is of a clock that was set back.
    Some(now.duration_since(since).unwrap_or_default())
}

/// `999 B`, `1.2 MB`: decimal units, as disks and networks have them.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// With commas; `-` where there is none.
pub fn joined<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    or_dash(&items.join(", "))
}

pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// A task for programs: what `task list` and `task show` both have of it, and then what is the verb's own.
pub fn with_own(story: &Story, now: SystemTime, own: Value) -> Value {
    let mut document = json!({
        "task": story.task,
        "app": story.app,
        "framework": story.framework,
        "container": story.container,
        "state": story.state.word(),
        "health": story.health,
        "since": story.began(),
        "age_seconds": age(story.began(), now).map(|age| age.as_secs()),
        "ending": ending_json(story),
        "executor_version": story.version(),
        "executor_pid": owner_pid(story),
        "profiles": story.profiles,
    });
    if let (Value::Object(fields), Value::Object(own)) = (&mut document, own) {
        fields.extend(own);
    }
    document
}

/// The executor of a living task.
pub fn owner_pid(story: &Story) -> Option<u32> {
    story.view.as_ref().filter(|view| view.owned).map(|view| view.record.owner.pid)
}

pub fn traffic_json(traffic: Traffic) -> Value {
    json!({ "bytes": traffic.bytes, "packets": traffic.packets })
}

fn ending_json(story: &Story) -> Value {
    let ending = story.ending().map(|(ending, time)| {
        json!({
            "outcome": ending.outcome, "code": ending.code, "message": ending.message, "time": time,
        })
    });
    ending.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_three_or_four_digits() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_234_567, "1.2 MB"),
            (41_000_000_000, "41.0 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn an_age_is_never_negative() {
        let now = humantime::parse_rfc3339("2026-11-28T20:00:10Z").unwrap();
        assert_eq!(age(Some("2026-11-28T20:00:00Z"), now), Some(Duration::from_secs(10)));
        assert_eq!(age(Some("2027-11-28T20:00:00.000Z"), now), Some(Duration::ZERO));
        assert_eq!((age(Some("yesterday"), now), age(None, now)), (None, None));
    }
}
