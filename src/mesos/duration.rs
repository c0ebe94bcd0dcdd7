//! Mesos' own notation of durations: a number and one unit without a blank, `15mins`, `1.5secs`.
//!
//! Units are `ns us ms secs mins hrs days weeks`, never abbreviated otherwise, one a string.

use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    ("weeks", 604_800_000_000_000),
    ("days", 86_400_000_000_000),
    ("hrs", 3_600_000_000_000),
    ("mins", 60_000_000_000),
    ("secs", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration (a number and ns, us, ms, secs, mins, hrs, days or weeks, such as 5secs)")]
pub struct InvalidDuration(String);

/// Reads `0ns`, `5secs`, `1.5mins`. Negative and unbounded ones are refused.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(invalid)?;
    let (number, unit) = text.split_at(digits);
    let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    if !number.starts_with(|c: char| c.is_ascii_digit()) || !number.chars().all(plain) {
        return Err(invalid());
    }
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*nanoseconds).map(Duration::from_nanos).ok_or_else(invalid);
    }
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let total = number * *nanoseconds as f64;
    if total >= u64::MAX as f64 {
        return Err(invalid());
    }
    Ok(Duration::from_nanos(total.round() as u64))
}

/// Writes it as Mesos does: in the largest unit that leaves a whole number.
pub fn format(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let whole =
        UNITS.iter().find(|(_, unit)| nanoseconds != 0 && nanoseconds.is_multiple_of(u128::from(*unit)));
    let (name, unit) = whole.copied().unwrap_or(("ns", 1));
    format!("{}{name}", nanoseconds / u128::from(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_agents_write() {
        assert_eq!(parse("5secs").unwrap(), Duration::from_secs(5));
        assert_eq!(parse("15mins").unwrap(), Duration::from_secs(900));
        assert_eq!(parse("0ns").unwrap(), Duration::ZERO);
        assert_eq!(parse("1.5secs").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse("250ms").unwrap(), Duration::from_millis(250));
    }

    #[test]
    fn refuses_everything_else() {
        for bad in
            ["", "5", "secs", "5s", "5 secs", "-1secs", "1e3secs", "1.2.3secs", "99999999999weeks", "NaNsecs"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn writes_the_largest_whole_unit() {
        assert_eq!(format(Duration::from_secs(5)), "5secs");
        assert_eq!(format(Duration::from_secs(600)), "10mins");
        assert_eq!(format(Duration::ZERO), "0ns");
        assert_eq!(format(Duration::from_millis(1500)), "1500ms");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanoseconds in any::<u64>()) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse(&format(duration)).unwrap(), duration);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = parse(&text);
        }
    }
}
