//! The audit trail: which task had which address from when to when, and what every launch and every teardown did.
//!
//! It is made of JSON lines below `<paths.log>/audit/`, in three logs, because they answer different questions and grow
//! at different speeds. The one of addresses answers "whose was 192.168.17.70 at noon" with a few hundred bytes an
//! address. `tasks/` has two long lines a life, with the time of each step, and must not rotate the addresses away.
//! `changes/` holds what operators changed by commands. What a cleaner removes is also in its own log, for people.
//!
//! The trail follows what has happened: a line is written after the datastore has confirmed. The journal names the
//! addresses that are held, so that a cleaner reports those that went by a release whose answer was lost. An executor
//! that is killed between the answer and its note in the journal leaves the line to the cleaner, which may repeat it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{json, Map, Value};

use crate::config::Config;
use crate::logging::{timestamp, Component, Log};

use crate::task::channel::{Ending, Order, Outcome};
use crate::task::network;
use crate::task::record::journal::{Owner, Record};
use crate::task::report::steps::{Step, Steps};
use crate::task::teardown::Report;

/// Whose address or life it is. A cleaner that finds things without a record leaves open what it cannot know.
#[derive(Serialize)]
struct Subject<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    task: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    app: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    framework: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    container: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    handle: &'a str,
}

impl<'a> From<&'a Record> for Subject<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            task: &record.identity.task_id,
            app: &record.identity.app,
            framework: &record.framework,
            container: record.container.as_str(),
            node: &record.identity.node,
            handle: &record.identity.handle,
        }
    }
}

impl<'a> From<&'a Order> for Subject<'a> {
    fn from(order: &'a Order) -> Self {
        Self {
            task: &order.description.task_id,
            app: &order.description.app,
            framework: &order.framework,
            container: order.container.as_str(),
            node: "",
            handle: "",
        }
    }
}

/// Who writes.
#[derive(PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// The task's own executor.
    Executor,
    /// The process that cleans up: `calico-mesos gc`, or the next executor.
    Gc,
}

impl By {
    /// This process, about the task of that record.
    fn this(record: &Record) -> Self {
        match record.owner == Owner::current() {
            true => Self::Executor,
            false => Self::Gc,
        }
    }
}

#[derive(Serialize)]
struct Line<'a, T> {
    time: String,
    event: &'a str,
    #[serde(flatten)]
    about: T,
    #[serde(flatten)]
    subject: Subject<'a>,
    by: By,
    pid: u32,
    version: &'a str,
}

#[derive(Serialize)]
struct Address<'a> {
    address: IpAddr,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    profiles: &'a [String],
}

#[derive(Serialize)]
struct Conflict<'a> {
    address: IpAddr,
    /// The holder of the same address in the datastore.
    holder: &'a str,
}

#[derive(Default, Serialize)]
struct Life<'a> {
    /// How the task ended, or how far it is.
    #[serde(flatten)]
    ending: Ending,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    addresses: &'a [IpAddr],
    /// Milliseconds since the clock of the [`Steps`] started.
    steps: Map<String, Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [String],
    /// With a launch: where the executor works, and the task's output lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<PathBuf>,
}

/// An agent starts an executor in its sandbox.
fn sandbox() -> Option<PathBuf> {
    std::env::current_dir().ok()
}

/// What is known without an outcome.
fn word(outcome: &str) -> Ending {
    Ending { outcome: outcome.to_owned(), ..Ending::default() }
}

/// The datastore has these addresses down for the task.
pub fn given(config: &Config, record: &Record, addresses: &[IpAddr], profiles: &[String]) {
    write_addresses(config, "given", record, addresses, profiles);
}

/// The datastore has these addresses free again.
pub fn returned(config: &Config, record: &Record, addresses: &[IpAddr]) {
    write_addresses(config, "returned", record, addresses, &[]);
}

/// The datastore had lost these addresses, or other records of the living task, and has them again.
pub(in crate::task) fn written_again(config: &Config, record: &Record, addresses: &[IpAddr], what: &str) {
    write_addresses(config, "restored", record, addresses, &[]);
    cleaner_says(config, &record.identity.task_id, &format!("written again in Calico's datastore: {what}"));
}

/// The task lives with an address that the datastore gives to something else.
pub(in crate::task) fn conflict(config: &Config, record: &Record, address: IpAddr, holder: &str) {
    write(config, Component::Addresses, "conflict", Conflict { address, holder }, record);
    let line = format!(
        "CONFLICT: it lives here with {address}, which Calico's datastore gives to {holder}; end one of the two"
    );
    cleaner_says(config, &record.identity.task_id, &line);
}

/// The task runs: its launch is over.
pub(in crate::task) fn runs(config: &Config, record: &Record, addresses: &[IpAddr], steps: &Steps) {
    let (ending, steps) = (word("running"), times(steps, |_| true));
    let life = Life { ending, addresses, steps, sandbox: sandbox(), ..Life::default() };
    write(config, Component::Tasks, "launch", life, record);
}

/// The launch of a task that was never started; nothing about one that was.
pub(in crate::task) fn never_ran(config: &Config, record: &Record, outcome: &Outcome, steps: &Steps) {
    if steps.passed().iter().any(|(step, _)| *step == Step::Running) {
        return;
    }
    let steps = times(steps, |_| true);
    let life = Life { ending: outcome.into(), steps, sandbox: sandbox(), ..Life::default() };
    write(config, Component::Tasks, "launch", life, record);
}

/// A launch that ended before there was a record: nothing had been made, so that no teardown follows.
pub(in crate::task) fn refused(config: &Config, order: &Order, outcome: &Outcome) {
    let life = Life { ending: outcome.into(), sandbox: sandbox(), ..Life::default() };
    write_about(config, Component::Tasks, "launch", life, order.into(), By::Executor);
}

/// The teardown is done, or left to the next cleaner. `ending` is what the task came to; a cleaner does not have it
/// where the executor died before.
pub(in crate::task) fn taken_down(
    config: &Config,
    record: &Record,
    ending: Option<&Ending>,
    report: &Report,
    steps: &Steps,
) {
    let life = Life {
        ending: ending.cloned().unwrap_or_else(|| word("orphaned")),
        addresses: &report.addresses,
        steps: times(steps, |step| step >= Step::Ended),
        errors: &report.errors,
        sandbox: None,
    };
    let by_cleaner = By::this(record) == By::Gc;
    // In an outage a cleaner comes by every half minute: what it could not do would push out all that was done.
    if !by_cleaner || report.complete() || report.has_removed() {
        write(config, Component::Tasks, "teardown", life, record);
    }
    if by_cleaner {
        lines(report).iter().for_each(|line| cleaner_says(config, &record.identity.task_id, line));
    }
}

/// An operator's command changed an object of Calico's or a file: its content before and after, as far as there was one.
pub fn changed(config: &Config, object: &str, before: Option<&Value>, after: Option<&Value>) {
    let line = json!({
        "time": timestamp(),
        "event": "change",
        "object": object,
        "command": std::env::args().collect::<Vec<_>>().join(" "),
        "user": user(),
        "sudo_user": std::env::var("SUDO_USER").ok(),
        "before": before,
        "after": after,
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    Log::of(Component::Changes, config).write(&line.to_string());
}

/// The name of this process's user, or the number where /etc/passwd does not have it: the C library, which may know
/// more, would load its name services from disk, which a static program must not.
fn user() -> String {
    let uid = nix::unistd::getuid().to_string();
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    };
    text.lines().find_map(name).unwrap_or(uid)
}

/// A line of the cleaner's own log, about a task or other work.
pub(in crate::task) fn cleaner_says(config: &Config, about: &str, line: &str) {
    Log::of(Component::Gc, config).say(&format!("{about}: {line}"));
}

/// What a cleaner took away, a thing a line. What it could not is in `cleaner::waits`.
fn lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let mut removed = |there: bool, what: String| lines.extend(there.then_some(what));
    removed(report.services > 0, format!("{} Consul entries removed", report.services));
    removed(report.container, "container stopped or removed".to_owned());
    removed(report.killed > 0, format!("{} processes killed", report.killed));
    removed(report.ports > 0, format!("{} forwarded ports closed", report.ports));
    removed(report.interface, "interface removed".to_owned());
    removed(report.endpoint, "endpoint removed".to_owned());
    removed(!report.addresses.is_empty(), format!("{} given back", network::join(&report.addresses)));
    removed(report.complete(), "nothing is left".to_owned());
    lines
}

fn times(steps: &Steps, wanted: impl Fn(Step) -> bool) -> Map<String, Value> {
    let passed = steps.passed().into_iter().filter(|(step, _)| wanted(*step));
    let tenths = |seconds: f64| (seconds * 10_000.0).round() / 10.0;
    passed.map(|(step, at)| (step.name().to_owned(), tenths(at.as_secs_f64()).into())).collect()
}

fn write_addresses(config: &Config, event: &str, record: &Record, addresses: &[IpAddr], profiles: &[String]) {
    for address in addresses {
        write(config, Component::Addresses, event, Address { address: *address, profiles }, record);
    }
}

fn write<T: Serialize>(config: &Config, log: Component, event: &str, about: T, record: &Record) {
    write_about(config, log, event, about, record.into(), By::this(record));
}

fn write_about<T: Serialize>(
    config: &Config,
    log: Component,
    event: &str,
    about: T,
    subject: Subject<'_>,
    by: By,
) {
    let line = Line {
        time: timestamp(),
        event,
        about,
        subject,
        by,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION"),
    };
    // Plain data with text keys: serialising cannot fail.
    let text = serde_json::to_string(&line).unwrap_or_default();
    Log::of(log, config).write(&text);
}
