//! The shape of a line.
//!
//! ```text
//! W1128 04:10:02.114 25380 web.instance-45fa: cannot register web-direct: Consul does not answer attempt=2
//! {"time":"2026-11-28T04:10:02.114Z","level":"warn","pid":25380,"task":"web.instance-45fa","message":"cannot…"}
//! ```
//!
//! Level and date as glog writes them (in UTC: the time zone's file would be looked up by a variable that a task can
//! set), process id, the task that the line is about, message, fields.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::file::timestamp;
use crate::config::LogFormat;
use crate::error::is_deceptive;

/// The field, of an event or of a span around it, that names the task.
const TASK: &str = "task";

/// Remembers the tasks that spans name.
pub(super) struct Tasks;

struct TaskName(String);

impl<S> Layer<S> for Tasks
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut parts = Parts::default();
        attributes.record(&mut parts);
        if let (Some(task), Some(span)) = (parts.task, context.span(id)) {
            span.extensions_mut().insert(TaskName(task));
        }
    }
}

/// What an event consists of.
#[derive(Default)]
struct Parts {
    task: Option<String>,
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Parts {
    /// The task is the event's own, else that of the innermost span that names one, else all that this program runs.
    fn of<S, N>(context: &FmtContext<'_, S, N>, event: &Event<'_>) -> Self
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let mut parts = Self::default();
        event.record(&mut parts);
        let mut spans = context.event_scope().into_iter().flatten();
        if parts.task.is_none() {
            let of_span = spans.find_map(|span| span.extensions().get::<TaskName>().map(|it| it.0.clone()));
            parts.task = of_span.or_else(super::named);
        }
        parts
    }

    /// Task, message and fields in one line.
    fn line(&self) -> String {
        let task = self.task.iter().map(|task| format!("{task}: "));
        let fields = self.fields.iter().map(|(name, value)| format!(" {name}={value}"));
        one_line(&task.chain([self.message.clone()]).chain(fields).collect::<String>())
    }

    fn take(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            TASK => self.task = Some(text),
            name => self.fields.push((name, text)),
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

/// The form of a line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Text,
    Json,
    /// As a command of this name reports its errors: `calico-mesos: warning: web.1: cannot…`.
    Message(&'static str),
}

impl From<LogFormat> for Form {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// Writes each event as one line.
pub(super) struct Line(pub Form);

impl<S, N> FormatEvent<S, N> for Line
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
        let (level, parts) = (*event.metadata().level(), Parts::of(context, event));
        match self.0 {
            Form::Text => text(&mut writer, level, &parts),
            Form::Json => json(&mut writer, level, parts),
            Form::Message(program) => message(&mut writer, program, level, &parts),
        }
    }
}

fn message(writer: &mut Writer<'_>, program: &str, level: Level, parts: &Parts) -> fmt::Result {
    let kind = if level == Level::WARN { "warning: " } else { "" };
    writeln!(writer, "{program}: {kind}{}", parts.line())
}

fn text(writer: &mut Writer<'_>, level: Level, parts: &Parts) -> fmt::Result {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    writeln!(writer, "{}{} {} {}", letter(level), stamp(since_epoch), std::process::id(), parts.line())
}

fn json(writer: &mut Writer<'_>, level: Level, parts: Parts) -> fmt::Result {
    let mut object = Map::new();
    object.insert("time".into(), timestamp().into());
    object.insert("level".into(), level.as_str().to_ascii_lowercase().into());
    object.insert("pid".into(), std::process::id().into());
    if let Some(task) = parts.task {
        object.insert(TASK.into(), task.into());
    }
    object.insert("message".into(), parts.message.into());
    for (name, value) in parts.fields {
        object.insert(name.into(), value.into());
    }
    writeln!(writer, "{}", Value::Object(object))
}

/// One line, even if the text of other programs has several; a terminal obeys other characters of the kind.
pub(super) fn one_line(text: &str) -> String {
    text.replace('\n', " | ").replace(is_deceptive, " ")
}

fn letter(level: Level) -> char {
    match level {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        Level::INFO => 'I',
        // glog has no letter for what it calls verbose.
        _ => 'D',
    }
}

/// `MMDD hh:mm:ss.mmm` in UTC.
fn stamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (month, day) = month_and_day(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{month:02}{day:02} {hour:02}:{minute:02}:{second:02}.{:03}", since_epoch.subsec_millis())
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
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::tests::Sink;
    use super::*;

    #[test]
    fn time_stamps_have_glogs_form() {
        let at = |seconds| stamp(Duration::new(seconds, 42_311_000));
        assert_eq!(at(0), "0101 00:00:00.042");
        assert_eq!(at(951_827_696), "0229 12:34:56.042"); // 2000
        assert_eq!(at(1_795_460_531), "1123 19:02:11.042"); // 2026
        assert_eq!(at(4_107_542_399), "0228 23:59:59.042"); // 2100 has no leap day
    }

    /// What is written of `log`.
    fn written(form: impl Into<Form>, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Line(form.into()));
        let logger = tracing_subscriber::registry().with(Tasks).with(lines);
        tracing::subscriber::with_default(logger, log);
        sink.text()
    }

    #[test]
    fn a_line_has_its_shape() {
        let line = written(LogFormat::Text, || {
            let _span = super::super::task("testapp.1").entered();
            tracing::warn!(address = %"10.0.0.1", "two\nlines\rE1123 \u{1b}[2J\u{202e}\u{2028}forged");
        });
        assert!(line.starts_with('W') && line.matches('\n').count() == 1, "{line}");
        assert!(!line.trim_end().contains(is_deceptive), "{line:?}");
        let (_, rest) = line.split_once(&format!(" {} ", std::process::id())).unwrap();
        assert_eq!(rest, "testapp.1: two | lines E1123  [2J  forged address=10.0.0.1\n");
    }

    #[test]
    fn a_message_of_a_command_has_its_shape() {
        let lines = written(Form::Message("calicoctl"), || {
            let _span = super::super::task("testapp.1").entered();
            tracing::warn!(address = %"10.0.0.1", "two\nlines");
            tracing::error!("it failed");
        });
        assert_eq!(
            lines,
            "calicoctl: warning: testapp.1: two | lines address=10.0.0.1\n\
             calicoctl: testapp.1: it failed\n"
        );
    }

    #[test]
    fn an_object_has_its_shape() {
        let line = written(LogFormat::Json, || {
            tracing::error!(task = "a.1", code = 7, "two\nlines");
        });
        let mut object: Value = serde_json::from_str(&line).unwrap();
        let time = object.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{time}");
        let pid = std::process::id();
        assert_eq!(
            object,
            serde_json::json!({
                "level": "error", "pid": pid, "task": "a.1", "message": "two\nlines", "code": "7"
            })
        );
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[tokio::test]
    async fn what_a_task_spawns_names_it() {
        let line = written(LogFormat::Text, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            std::thread::scope(|scope| {
                let dispatch = tracing::dispatcher::get_default(Clone::clone);
                scope.spawn(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        let span = super::super::task("b.2");
                        let inner = span.in_scope(|| super::super::in_task(async { tracing::info!("done") }));
                        runtime.block_on(inner);
                    });
                });
            });
        });
        assert!(line.contains(" b.2: done\n"), "{line}");
    }
}
