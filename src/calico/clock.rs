//! The two ways in which Go writes the time into Calico's objects; always UTC.

use std::time::SystemTime;

/// RFC 3339 in whole seconds, as in `creationTimestamp`: `2026-08-22T10:11:12Z`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Now, in that form.
pub(super) fn rfc3339_now() -> String {
    rfc3339(SystemTime::now())
}

/// Go's default text of a time, as in an allocation's attributes:
/// `2026-08-22 10:11:12.345678901 +0000 UTC`, without zeros at the end of the fraction.
pub(super) fn go_text(time: SystemTime) -> String {
    let nanos = humantime::format_rfc3339_nanos(time).to_string();
    let text = nanos.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{} +0000 UTC", text.replacen('T', " ", 1))
}

/// The time that [`go_text`] wrote, and Go where it writes one of UTC.
pub(super) fn from_go_text(text: &str) -> Option<SystemTime> {
    let mut words = text.split(' ');
    let (date, time) = (words.next()?, words.next()?);
    (words.next()? == "+0000").then(|| humantime::parse_rfc3339(&format!("{date}T{time}Z")).ok())?
}

/// Whether Go reads this as a time: RFC 3339 with any fraction and offset.
pub(super) fn is_rfc3339(text: &str) -> bool {
    let parts = || {
        let (date_time, zone) = match text.strip_suffix('Z') {
            Some(rest) => (rest, "Z"),
            None => text.split_at_checked(text.len().checked_sub(6)?)?,
        };
        let offset = zone.strip_prefix(['+', '-']).and_then(|offset| offset.split_once(':'));
        let below = |text: &str, limit: u8| {
            text.len() == 2
                && text.bytes().all(|byte| byte.is_ascii_digit())
                && text.parse().is_ok_and(|number: u8| number < limit)
        };
        let is_zone =
            zone == "Z" || offset.is_some_and(|(hours, minutes)| below(hours, 24) && below(minutes, 60));
        (is_zone && date_time.contains('T')).then(|| format!("{date_time}Z"))
    };
    parts().is_some_and(|text| humantime::parse_rfc3339(&text).is_ok())
}

/// Nanoseconds since 1970: where a new block's sequence numbers begin.
pub(super) fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// Whether an RFC 3339 time lies at least `seconds` before `now`; unreadable or absent counts as old,
/// as Calico has it.
pub(super) fn is_older(time: Option<&str>, seconds: u64, now: SystemTime) -> bool {
    let Some(time) = time.and_then(|text| humantime::parse_rfc3339(text).ok()) else { return true };
    now.duration_since(time).is_ok_and(|age| age.as_secs() >= seconds)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_in_the_form_that_go_writes() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_787_393_472, 345_670_000);
        assert_eq!(rfc3339(time), "2026-08-22T10:11:12Z");
        assert_eq!(go_text(time), "2026-08-22 10:11:12.34567 +0000 UTC");
        assert_eq!(
            go_text(SystemTime::UNIX_EPOCH + Duration::from_secs(1_787_393_470)),
            "2026-08-22 10:11:10 +0000 UTC"
        );
        assert_eq!(from_go_text(&go_text(time)), Some(time));
        assert_eq!(from_go_text("2026-08-22 10:11:12 +0200 CEST"), None);
        assert_eq!(from_go_text("yesterday"), None);
        for good in ["2026-08-22T10:11:12Z", "2026-08-22T10:11:12.5+02:00", "2026-08-22T10:11:12-11:30"] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "Z",
            "yesterday",
            "2026-08-22",
            "2026-08-22T10:11:12",
            "2026-08-22T10:11:12+0200",
            "ü26-08-22T10:11:12Z",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
        assert_eq!(unix_nanos(time), 1_787_393_472_345_670_000);
        assert!(is_older(Some("2026-08-22T10:10:12Z"), 60, time));
        assert!(!is_older(Some("2026-08-22T10:10:13Z"), 60, time));
        assert!(is_older(None, 60, time));
    }
}
