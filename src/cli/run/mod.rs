//! `calico-mesos run APP.json`: a Marathon app on this machine, launched as a Mesos agent would.
//!
//! ```text
//!  app.json ─► place (daemons of our own, or this machine's) ─► local_run (embedded agent, real executors)
//!                                                                 │  table, DNS names, output, --then
//!  "left behind: nothing" ◄─ place closed ◄─ inventory ◄─ Ctrl-C, --for, or all tasks over
//! ```
//!
//! From the moment a place exists there is one way out, and it removes everything: [`run`] never
//! returns early between opening and closing it, and no signal ends the program by itself.

mod confirm;
mod derived;
mod executor;
mod hook;
mod instances;
mod inventory;
mod launch;
mod local_run;
mod notes;
mod place;
mod remains;
mod report;
mod summary;
mod task;
mod timing;
mod waiting;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::rig::agent::marathon::{App, AppChoice, AppError};

use super::interrupt::Interrupt;
use super::output::Out;
use super::{programs, Failed};

use launch::Launch;
use place::RunPlace;
use summary::AppSummary;

#[derive(Debug, clap::Args)]
pub struct RunArguments {
    /// A Marathon app definition.
    #[arg(value_name = "APP.json")]
    app: PathBuf,
    /// The id of the app to launch, where the file holds several: a list or a group.
    #[arg(long = "app", value_name = "ID")]
    id: Option<String>,
    /// How many instances; default: what the app definition says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    instances: Option<u32>,
    /// End after this time, such as 30s or 5m.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    limit: Option<Duration>,
    /// Use a private etcd, dockerd and (where found) Consul, all removed at the end: needs no configuration.
    #[arg(long, conflicts_with = "register")]
    dev: bool,
    /// Do not ask before launching on this machine's own daemons.
    #[arg(long)]
    yes: bool,
    /// Register the tasks in Consul.
    #[arg(long)]
    register: bool,
    /// The custom executor of apps that name none, like Marathon's option of that name; //cmd is Marathon's own way.
    #[arg(long, value_name = "PATH")]
    executor: Option<String>,
    /// Run this shell command when all tasks run (see CM_* in its environment), then kill the tasks.
    #[arg(long = "then", value_name = "COMMAND")]
    hook: Option<String>,
    /// Keep sandboxes and logs when something fails.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use the app definition {path}")]
    App {
        path: PathBuf,
        #[source]
        source: AppError,
    },
    #[error("run needs root: it makes network namespaces and interfaces (try sudo)")]
    NotRoot,
    #[error("the app {0} has 0 instances; use --instances 1")]
    NoInstances(String),
}

/// Exit code 0 when every task ran and everything is gone, 1 otherwise.
pub async fn run(arguments: RunArguments, config: &Path, out: &Out) -> Result<ExitCode, Failed> {
    let choice = AppChoice { app: arguments.id.as_deref(), executor: arguments.executor.as_deref() };
    let mut app = read(&arguments.app, &choice)?;
    let instances = arguments.instances.unwrap_or(app.instances);
    if instances == 0 {
        return Err(RunError::NoInstances(app.id.clone()).into());
    }
    let executor = executor::choose(&mut app, arguments.dev)?;
    let runtime = arguments.dev.then(programs::runtime).transpose()?;
    if !nix::unistd::geteuid().is_root() {
        return Err(RunError::NotRoot.into());
    }
    let interrupt = Interrupt::listen(out)?;
    let infos = instances::describe(&app, instances).await?;
    let say_notes =
        || notes::of(&app, &infos, arguments.dev).iter().for_each(|note| out.line(format!("note: {note}")));
    let place = match runtime {
        Some(runtime) => {
            out.line(report::dev_banner());
            executor
                .replaces
                .iter()
                .for_each(|missing| out.line(report::replaced(missing, &executor.program)));
            say_notes();
            RunPlace::dev(runtime).await?
        }
        None => {
            let place = RunPlace::here(config, arguments.register)?;
            say_notes();
            let summary = AppSummary::of(&infos[0], &place.config);
            if !confirm::confirm(&place, &summary, infos.len(), arguments.yes, &interrupt, out).await? {
                out.line("nothing was launched");
                return Ok(ExitCode::FAILURE);
            }
            place
        }
    };
    // No `?` from here on until the place is closed.
    let launch = Launch { place: &place, arguments: &arguments, interrupt: &interrupt, out };
    let mut result = launch.run(executor.program, infos).await;
    let keep = arguments.keep && result.has_failed();
    let folder = place.folder.clone();
    result.left.extend(place.close(keep).await);
    if keep {
        out.line(format!("kept for inspection: {}", folder.display()));
    }
    out.line(result.last_line());
    Ok(if result.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(path: &Path, choice: &AppChoice<'_>) -> Result<App, RunError> {
    let file = std::fs::read(path).map_err(|source| RunError::Read { path: path.into(), source })?;
    App::read(&file, choice).map_err(|source| RunError::App { path: path.into(), source })
}
