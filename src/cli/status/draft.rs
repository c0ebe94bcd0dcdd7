//! A check as it is put together, and how numbers read.

use std::time::Duration;

use serde_json::Value;

/// How well a part of the host does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    #[default]
    Ok,
    Warn,
    Fail,
}

impl Grade {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// The verdict on one part of the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatusCheck {
    pub name: &'static str,
    pub grade: Grade,
    pub text: String,
    /// What to do, a sentence a line.
    pub advice: Vec<String>,
    /// The numbers behind the text, for programs.
    pub facts: Value,
}

/// A verdict in the making: the worst finding decides.
#[derive(Debug, Default)]
pub struct Draft {
    grade: Grade,
    parts: Vec<String>,
    advice: Vec<String>,
}

impl Draft {
    /// Something that is as it should be.
    pub fn say(&mut self, text: impl Into<String>) {
        self.parts.push(text.into());
    }

    /// Something that an operator should look at.
    pub fn warn(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.note(Grade::Warn, text.into(), advice.into());
    }

    /// Something that does not work.
    pub fn fail(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.note(Grade::Fail, text.into(), advice.into());
    }

    fn note(&mut self, grade: Grade, text: String, advice: String) {
        self.grade = self.grade.max(grade);
        self.parts.push(text);
        if !advice.is_empty() && !self.advice.contains(&advice) {
            self.advice.push(advice);
        }
    }

    pub fn done(self, name: &'static str, facts: Value) -> StatusCheck {
        StatusCheck { name, grade: self.grade, text: self.parts.join(", "), advice: self.advice, facts }
    }
}

/// `2,104`.
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `41 MB`, in powers of 1024 as etcd counts.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value < 10.0 && unit > 0 && value.fract() >= 0.05 {
        true => format!("{value:.1} {}", UNITS[unit]),
        false => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// `40 s`, `12 min`, `3 h`, `2 days`.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 2 * 3600 => format!("{} min", seconds / 60),
        seconds if seconds < 48 * 3600 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// The first few of a list, and how many more there are.
pub fn some(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        number if number > SHOWN => format!("{shown} and {} more", number - SHOWN),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (grouped(0).as_str(), grouped(2104).as_str(), grouped(1_234_567).as_str()),
            ("0", "2,104", "1,234,567")
        );
        assert_eq!(
            (bytes(41 << 20).as_str(), bytes(2 << 30).as_str(), bytes(1500).as_str()),
            ("41 MB", "2 GB", "1.5 kB")
        );
        let seconds = |number| span(Duration::from_secs(number));
        assert_eq!(
            [seconds(40), seconds(720), seconds(10_000), seconds(200_000)],
            ["40 s", "12 min", "2 h", "2 days"]
        );
        assert_eq!(some(&["a", "b", "c", "d"].map(str::to_owned)), "a, b, c and 1 more");
    }

    #[test]
    fn the_worst_finding_decides() {
        let mut draft = Draft::default();
        draft.say("a");
        draft.fail("b", "do b");
        draft.warn("c", "do b");
        let check = draft.done("x", Value::Null);
        assert_eq!((check.grade, check.text.as_str(), check.advice.len()), (Grade::Fail, "a, b, c", 1));
    }
}
