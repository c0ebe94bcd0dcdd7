//! Logs on standard error: the executor's in the form of the other Mesos programs, the CLI's short.
//!
//! ```text
//! I1123 19:02:11.042311 4711 address assigned address=192.168.17.64 task=testapp.instance-7d0f._app.1
//! ```
//!
//! Level and date as glog writes them (in UTC: the time zone's file would be looked up by a variable
//! that a task can set), process id, message, fields, then the fields of the spans around it. Levels
//! come from the caller, not from RUST_LOG, for the same reason.
//!
//! What has to outlive a sandbox goes to files below `paths.log` besides: [`Log`].

mod file;
mod rotated;

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::error::is_deceptive;

pub use file::{timestamp, Log};
pub use rotated::Rotated;

/// For `calico-executor`: one line a step. Nothing happens when a logger is set already.
pub fn executor() {
    let logger = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(Level::INFO)
        .with_ansi(false)
        // Telling on standard error that standard error is a broken pipe would panic.
        .log_internal_errors(false)
        .event_format(GlogLine)
        .finish();
    let _ = tracing::subscriber::set_global_default(logger);
}

/// For `calico-mesos`: warnings only, with `verbose` every step; no time stamps.
pub fn cli(verbose: bool) {
    let logger = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(if verbose { Level::DEBUG } else { Level::WARN })
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .with_target(false)
        .without_time()
        .finish();
    let _ = tracing::subscriber::set_global_default(logger);
}

struct GlogLine;

impl<S, N> FormatEvent<S, N> for GlogLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let level = letter(*event.metadata().level());
        write!(writer, "{level}{} {} ", stamp(since_epoch), std::process::id())?;
        let mut line = String::new();
        context.field_format().format_fields(Writer::new(&mut line), event)?;
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                line.push(' ');
                line.push_str(fields);
            }
        }
        writeln!(writer, "{}", one_line(&line))
    }
}

/// One line, whatever somebody else's text holds; a terminal obeys other characters of the kind.
fn one_line(text: &str) -> String {
    text.replace('\n', " | ").replace(is_deceptive, " ")
}

fn letter(level: Level) -> char {
    match level {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        _ => 'I',
    }
}

/// `MMDD hh:mm:ss.uuuuuu` in UTC.
fn stamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (month, day) = month_and_day(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{month:02}{day:02} {hour:02}:{minute:02}:{second:02}.{:06}", since_epoch.subsec_micros())
}

/// Month and day (from 1) of a day counted from 1970-01-01, in the Gregorian calendar.
fn month_and_day(days_since_epoch: u64) -> (u64, u64) {
    // Counted from 1 March, so that the leap day is a year's last one; 146097 days make 400 years.
    let day_of_era = (days_since_epoch + 719_468) % 146_097;
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    (if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 }, day)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn stamps() {
        let at = |seconds| stamp(Duration::new(seconds, 42_311_000));
        assert_eq!(at(0), "0101 00:00:00.042311");
        assert_eq!(at(951_827_696), "0229 12:34:56.042311"); // 2000
        assert_eq!(at(1_795_460_531), "1123 19:02:11.042311"); // 2026
        assert_eq!(at(4_107_542_399), "0228 23:59:59.042311"); // 2100 has no leap day
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_names_the_task() {
        let sink = Sink::default();
        let writer = sink.clone();
        let logger = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(GlogLine)
            .finish();
        tracing::subscriber::with_default(logger, || {
            let _span = tracing::info_span!("task", task = %"testapp.1").entered();
            tracing::warn!(address = %"10.0.0.1", "two\nlines\rE1123 \u{1b}[2J\u{202e}\u{2028}forged");
        });
        let line = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(line.starts_with('W') && line.matches('\n').count() == 1, "{line}");
        assert!(!line.trim_end().contains(is_deceptive), "{line:?}");
        assert!(
            line.contains("two | lines E1123") && line.contains("forged address=10.0.0.1 task=testapp.1"),
            "{line}"
        );
    }
}
