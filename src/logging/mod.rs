//! Logs on standard error: the executor's in the form of the other Mesos programs, the warnings of `calico-mesos` in
//! the form of its error messages.
//!
//! How much is written comes from the configuration, the agent's flags or an operator's variable, and not from
//! RUST_LOG, which a task can set. Other crates log only warnings at any level: what they add may hold secrets. All
//! that a task's life spawns names the task: see [`task`] and [`spawn`].
//!
//! What has to outlive a sandbox goes to files below `paths.log` besides: [`Log`], a folder for each [`Component`].

mod component;
mod file;
mod line;
mod rotated;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::OnceLock;

use tokio::task::JoinHandle;
use tracing::instrument::Instrumented;
use tracing::{Instrument, Level, Span};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{fmt, registry, reload, Registry};

use crate::config::{Config, LogLevel, Logs as Settings};

use file::Both;

pub use component::Component;
pub use file::{timestamp, Log};
pub use rotated::Rotated;

/// Changes how much is written.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// For `calico-executor`: one line a step. Nothing happens when a logger is set already. `flag`: the agent's
/// `--logging_level`, which counts where the configuration sets none.
pub fn executor(settings: &Settings, flag: &str) {
    steps(settings, flag, std::io::stderr);
}

/// For a service: the same, in the component's log besides. The configuration's faults are the service's to report.
pub fn service(component: Component, path: &Path) {
    match Config::load(path) {
        Ok(config) => {
            let both = Both(Log::of(component, &config));
            steps(&config.log, "INFO", move || both.clone());
        }
        Err(_) => executor(&Config::log_only(path), "INFO"),
    }
}

fn steps<W>(settings: &Settings, flag: &str, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = settings.level.map_or_else(|| level_of_flag(flag), level);
    let (filter, handle) = reload::Layer::new(ours(level));
    let lines = fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        // Telling on standard error that standard error is a broken pipe would panic.
        .log_internal_errors(false)
        .event_format(line::Line(settings.format.into()));
    let logger = registry().with(filter).with(line::Tasks).with(lines);
    if tracing::subscriber::set_global_default(logger).is_ok() {
        std::panic::set_hook(Box::new(panicked));
        if settings.level.is_none() {
            let _ = FILTER.set(handle);
        }
    }
}

/// In the form of all other lines, with the task in whose life it happened.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    tracing::error!("an internal error{place}: {}", panic.payload_as_str().unwrap_or("unknown"));
}

/// By this variable of an agent other programs of Mesos write more.
pub const VERBOSITY: &str = "GLOG_v";

/// Follows the operator's [`VERBOSITY`], where the configuration names no level. Not before a task is known: one that
/// carries the variable itself has set it.
pub fn follow_verbosity(value: Option<&str>) {
    let is_verbose = value.and_then(|value| value.parse::<u32>().ok()).is_some_and(|value| value > 0);
    if let Some(filter) = FILTER.get().filter(|_| is_verbose) {
        // The logger lives as long as the process.
        let _ = filter.reload(ours(Level::DEBUG));
    }
}

/// For `calico-mesos`: warnings and errors alone, in the form of its own messages, which begin with the name under which
/// it was called. Nothing happens when a logger is set already.
pub fn cli(program: &'static str) {
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .event_format(line::Line(line::Form::Message(program)));
    let logger = registry().with(ours(Level::WARN)).with(line::Tasks).with(lines);
    let _ = tracing::subscriber::set_global_default(logger);
}

fn ours(level: Level) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN.min(level.into()))
        .with_target(env!("CARGO_CRATE_NAME"), level)
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    }
}

/// An agent's words; an unknown one counts as INFO, as the stock executor's default.
fn level_of_flag(flag: &str) -> Level {
    match flag {
        "WARNING" => Level::WARN,
        "ERROR" => Level::ERROR,
        _ => Level::INFO,
    }
}

thread_local! {
    /// The tasks that this thread's runtime runs, for lines that no single one of them is the subject of.
    static NAMED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// As long as it lives, lines about the whole executor name this task. An executor has one thread for its tasks.
pub struct Named(String);

impl Named {
    /// Once for each task at a time.
    pub fn begin(id: &str) -> Self {
        NAMED.with_borrow_mut(|named| named.insert(id.to_owned()));
        Self(id.to_owned())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // At the thread's end the set may be gone before.
        let _ = NAMED.try_with(|named| named.borrow_mut().remove(&self.0));
    }
}

/// The tasks that this thread's runtime runs: `web.1, web.2`.
fn named() -> Option<String> {
    let list = |named: &RefCell<BTreeSet<String>>| {
        let named = named.borrow();
        (!named.is_empty()).then(|| named.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    };
    NAMED.try_with(list).ok().flatten()
}

/// What happens within names the task, at every level.
pub fn task(id: &str) -> Span {
    tracing::error_span!("task", task = id)
}

/// Spawns what belongs to the same task as its caller.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(in_task(future))
}

/// The same for what is spawned elsewhere, as in a set of tasks.
pub fn in_task<F: Future>(future: F) -> Instrumented<F> {
    future.in_current_span()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    /// Where tests read what was logged.
    #[derive(Clone, Default)]
    pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
