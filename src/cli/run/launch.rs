//! One launch, between the opening and the closing of its place: the tasks start, run and end, and what they made is
//! compared with what is left. Nothing in here returns early.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::cli::complaint;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Out;
use crate::mesos::messages::TaskInfo;
use crate::task::cleaner::sweep;

use super::inventory::{RunInventory, SeenOnHost};
use super::local_run::LocalRun;
use super::place::RunPlace;
use super::summary::AppSummary;
use super::task::RunTask;
use super::{hook, report, RunArguments};

/// Consul has its entries a few milliseconds after a task runs.
const REGISTRATION: Duration = Duration::from_secs(3);

/// A launch of one app, with the place that it runs in.
pub struct Launch<'a> {
    pub place: &'a RunPlace,
    pub arguments: &'a RunArguments,
    pub interrupt: &'a Interrupt,
    pub out: &'a Out,
}

/// The result of a launch.
#[derive(Debug, Default)]
pub struct Result {
    failed: bool,
    /// What was removed, counted for the last line: `2 veths, 2 namespaces`.
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

impl Launch<'_> {
    /// Launches the tasks, shows them, waits for their end or kills them, and lists what is left.
    pub async fn run(&self, executor: PathBuf, infos: Vec<TaskInfo>) -> Result {
        let summary = AppSummary::of(&infos[0], &self.place.config);
        let mut result = Result::default();
        self.introduce(&summary, infos.len()).await;
        if self.interrupt.count() > 0 {
            return result;
        }
        let mut session = match LocalRun::start(self.place, executor, self.out, self.interrupt).await {
            Ok(session) => session,
            Err(error) => {
                self.print_error(&error);
                return Result { failed: true, ..result };
            }
        };
        if let Err(error) = session.launch(infos, self.place).await {
            self.print_error(&error);
            result.failed = true;
        }
        session.settle().await;
        let mut inventory = RunInventory::new(&self.place.config, &self.place.docker, summary.is_calico());
        // Twice: Consul's entries come a little later, and some tasks are gone by then.
        let mut before = inventory.look(&session.tasks).await;
        result.failed |= session.tasks.iter().any(RunTask::has_failed);
        if !result.failed && self.interrupt.count() == 0 {
            result.failed |= self.show_and_wait(&mut session, &summary, &inventory).await;
            before.add(inventory.look(&session.tasks).await);
        }
        session.stop().await;
        result.failed |= session.tasks.iter().any(RunTask::has_failed);
        let after = self.clean_up(&mut inventory, &session.tasks).await;
        result.removed = before.without(&after);
        result.left = after.list();
        result
    }

    async fn introduce(&self, summary: &AppSummary, instances: usize) {
        let overview = report::overview(self.place, summary).await;
        if self.place.is_dev() {
            self.out.line(report::dev_details(self.place));
        } else {
            self.out.line(format!("sandboxes in {}", self.place.folder.display()));
        }
        self.out.line(report::headline(summary, instances, overview.as_ref()));
    }

    /// Shows the tasks, and waits from RUNNING to the moment when they are to end. True when something failed.
    async fn show_and_wait(
        &self,
        session: &mut LocalRun<'_>,
        summary: &AppSummary,
        inventory: &RunInventory<'_>,
    ) -> bool {
        if summary.dns.is_some() {
            inventory.registered(REGISTRATION).await;
        }
        self.out.line(report::table(&session.tasks, summary));
        for line in report::dns(&session.tasks, summary, self.place) {
            self.out.line(line);
        }
        match &self.arguments.hook {
            None => {
                session.watch(self.arguments.limit).await;
                false
            }
            Some(command) => self.run_hook(command, session, summary).await,
        }
    }

    async fn run_hook(&self, command: &str, session: &mut LocalRun<'_>, summary: &AppSummary) -> bool {
        let environment = hook::environment(&session.tasks, self.place, summary);
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
                self.print_error(&error);
                true
            }
        }
    }

    /// Removes the containers and what an executor could not take down itself, and looks again.
    async fn clean_up(&self, inventory: &mut RunInventory<'_>, tasks: &[RunTask]) -> SeenOnHost {
        let first = inventory.look(tasks).await;
        if first.is_empty() {
            return first;
        }
        inventory.remove_containers().await;
        let after = inventory.look(tasks).await;
        if after.is_empty() {
            return after;
        }
        if let Err(error) = sweep(&self.place.config).await {
            self.print_error(&error);
        }
        inventory.remove_containers().await;
        inventory.look(tasks).await
    }

    fn print_error(&self, error: &(dyn std::error::Error + 'static)) {
        eprintln!("{}", complaint(error));
    }
}
