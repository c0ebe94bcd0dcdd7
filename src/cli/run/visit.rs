//! What happens between opening and closing a place. Nothing in here returns early.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::cli::interrupt::Interrupt;
use crate::cli::output::Out;
use crate::error::chain;
use crate::mesos::messages::TaskInfo;
use crate::task::cleaner::{sweep, Sweep};

use super::census::{Census, Seen};
use super::place::Place;
use super::session::Session;
use super::task::Task;
use super::words::Words;
use super::{hook, report, Arguments};

/// Consul has its entries a few milliseconds after a task runs.
const REGISTRATION: Duration = Duration::from_secs(3);

pub struct Visit<'a> {
    pub place: &'a Place,
    pub arguments: &'a Arguments,
    pub interrupt: &'a Interrupt,
    pub out: &'a Out,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Result {
    failed: bool,
    /// Counted, for people: `2 veths, 2 namespaces`.
    removed: String,
    /// Things that should be gone and are not.
    pub left: Vec<String>,
}

impl Result {
    pub fn has_failed(&self) -> bool {
        self.failed || !self.left.is_empty()
    }

    pub fn last_line(&self) -> String {
        let removed = match self.removed.is_empty() {
            true => "nothing had to be removed".to_owned(),
            false => format!("removed {}", self.removed),
        };
        match self.left.is_empty() {
            true => format!("{removed}; left behind: nothing"),
            false => format!("{removed}; left behind:\n  {}", self.left.join("\n  ")),
        }
    }
}

impl Visit<'_> {
    /// Launches, shows, waits, kills, counts.
    pub async fn pay(&self, executor: PathBuf, infos: Vec<TaskInfo>) -> Result {
        let words = Words::of(&infos[0], &self.place.config);
        let mut result = Result::default();
        self.introduce(&words, infos.len()).await;
        if self.interrupt.count() > 0 {
            return result;
        }
        let mut session = match Session::start(self.place, executor, self.out, self.interrupt).await {
            Ok(session) => session,
            Err(error) => {
                self.complain(&error);
                return Result { failed: true, ..result };
            }
        };
        if let Err(error) = session.launch(infos, self.place).await {
            self.complain(&error);
            result.failed = true;
        }
        session.settle().await;
        let mut census = Census::new(&self.place.config, &self.place.docker, words.is_calico());
        // Twice: Consul's entries come a little later, and some tasks are gone by then.
        let mut before = census.take(&session.tasks).await;
        result.failed |= session.tasks.iter().any(Task::has_failed);
        if !result.failed && self.interrupt.count() == 0 {
            result.failed |= self.attend(&mut session, &words, &census).await;
            before.add(census.take(&session.tasks).await);
        }
        session.stop().await;
        result.failed |= session.tasks.iter().any(Task::has_failed);
        let after = self.tidy(&mut census, &session.tasks).await;
        result.removed = before.without(&after);
        result.left = after.list();
        result
    }

    async fn introduce(&self, words: &Words, instances: usize) {
        let overview = report::overview(self.place, words).await;
        if self.place.is_dev() {
            self.out.line(report::dev_details(self.place));
        } else {
            self.out.line(format!("sandboxes in {}", self.place.folder.display()));
        }
        self.out.line(report::headline(words, instances, overview.as_ref()));
    }

    /// From RUNNING to the moment when the tasks shall end. True when something failed.
    async fn attend(&self, session: &mut Session<'_>, words: &Words, census: &Census<'_>) -> bool {
        if words.dns.is_some() {
            census.registered(REGISTRATION).await;
        }
        self.out.line(report::table(&session.tasks, words));
        for line in report::dns(&session.tasks, words, self.place) {
            self.out.line(line);
        }
        match &self.arguments.hook {
            None => {
                session.watch(self.arguments.limit).await;
                false
            }
            Some(command) => self.then(command, session, words).await,
        }
    }

    async fn then(&self, command: &str, session: &mut Session<'_>, words: &Words) -> bool {
        let environment = hook::environment(&session.tasks, self.place, words);
        let limit = self.arguments.limit.unwrap_or(Duration::MAX);
        let ended: std::io::Result<Option<ExitStatus>> = tokio::select! {
            ended = hook::run(command, environment, self.interrupt) => ended,
            () = tokio::time::sleep(limit) => Ok(None),
            never = session.listen() => match never {},
        };
        match ended {
            Ok(None) => false,
            Ok(Some(status)) if status.success() => false,
            Ok(Some(status)) => {
                self.out.line(format!("the command of --then ended with {status}"));
                true
            }
            Err(error) => {
                self.complain(&error);
                true
            }
        }
    }

    /// Removes containers and whatever an executor could not take down itself, and looks again.
    async fn tidy(&self, census: &mut Census<'_>, tasks: &[Task]) -> Seen {
        let first = census.take(tasks).await;
        if first.is_empty() {
            return first;
        }
        census.remove_containers().await;
        let after = census.take(tasks).await;
        if after.is_empty() {
            return after;
        }
        match sweep(&self.place.config).await {
            Ok(Sweep::Done { .. } | Sweep::Busy) => {}
            Err(error) => self.complain(&error),
        }
        census.remove_containers().await;
        census.take(tasks).await
    }

    fn complain(&self, error: &(dyn std::error::Error + 'static)) {
        eprintln!("calico-mesos: {}", chain(error));
    }
}
