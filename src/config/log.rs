//! The section `[log]`: what is written, and how much of it is kept.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The smallest piece that makes sense: a line of the audit trail has a few kilobytes at most.
const SMALLEST: Bytes = Bytes(64_000);
const LARGEST: Bytes = Bytes(1_000_000_000);
/// A rotation renames each piece.
const MOST_FILES: u32 = 100;

/// The executors' logs, on standard error in the sandbox, and the files below `paths.log`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// Absent: by the agent's `--logging_level`, and DEBUG with GLOG_v in the agent's
    /// `--executor_environment_variables`.
    pub level: Option<LogLevel>,
    pub format: LogFormat,
    /// The length of a file below `paths.log` at which a new one is begun.
    pub file_size: Bytes,
    /// How many files of a component are kept, the one that is written among them.
    pub files: u32,
}

impl Default for Logs {
    fn default() -> Self {
        // As Calico's own early releases had it.
        Self { level: None, format: LogFormat::default(), file_size: Bytes(1_000_000), files: 10 }
    }
}

impl Logs {
    /// What is wrong with the values, each with its key.
    pub(super) fn problems(&self) -> impl Iterator<Item = (Option<&'static str>, String)> {
        let Self { file_size, files, .. } = *self;
        let size = (!(SMALLEST..=LARGEST).contains(&file_size)).then(|| {
            let text = format!("log.file_size: {file_size} is not between {SMALLEST} and {LARGEST}");
            (Some("log.file_size"), text)
        });
        // The oldest one is removed when a new one is begun: one alone would be emptied.
        let number = (!(2..=MOST_FILES).contains(&files))
            .then(|| (Some("log.files"), format!("log.files: {files} is not between 2 and {MOST_FILES}")));
        size.into_iter().chain(number)
    }
}

/// How much is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// A number of bytes, as `1MB` or `512KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// From the largest on, so that a number is printed in the largest unit that divides it; decimal ones first.
const UNITS: [(&str, u64); 7] = [
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        number.parse::<u64>().ok()?.checked_mul(*factor).map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |(_, factor): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*factor);
        let (name, factor) = UNITS.iter().find(divides).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom(format!("'{text}' is not a size such as \"1MB\" or \"512KiB\""));
        Self::parse(&text).ok_or_else(wrong)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        for (text, bytes, printed) in [
            ("1MB", 1_000_000, "1MB"),
            ("1 mb", 1_000_000, "1MB"),
            ("1500KB", 1_500_000, "1500KB"),
            ("1MiB", 1 << 20, "1MiB"),
            ("64KiB", 65_536, "64KiB"),
            ("65537B", 65_537, "65537B"),
            ("0B", 0, "0B"),
        ] {
            let read = Bytes::parse(text).unwrap();
            assert_eq!((read, read.to_string().as_str()), (Bytes(bytes), printed), "{text}");
            assert_eq!(Bytes::parse(printed), Some(read));
        }
        for text in ["", "1", "MB", "1M", "-1MB", "1.5MB", "99999999999GB", "1MB "] {
            assert_eq!(Bytes::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_and_numbers_that_make_no_sense_are_refused() {
        let wrong = |file_size, files| {
            let log = Logs { file_size: Bytes(file_size), files, ..Logs::default() };
            log.problems().map(|(key, text)| format!("{}|{text}", key.unwrap())).collect::<Vec<_>>()
        };
        assert!(wrong(1_000_000, 10).is_empty() && wrong(64_000, 2).is_empty());
        assert_eq!(
            wrong(63_999, 1),
            [
                "log.file_size|log.file_size: 63999B is not between 64KB and 1GB",
                "log.files|log.files: 1 is not between 2 and 100"
            ]
        );
        assert_eq!(wrong(1_000_000_001, 101).len(), 2);
    }
}
