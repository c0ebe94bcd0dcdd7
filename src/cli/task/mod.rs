//! `calico-mesos task …`: the Calico tasks of this host, living and ended.
//!
//! A task is named by any unique beginning of its id or of its container's, by its app, or by an address. All verbs
//! need root, which owns the journal and the audit trail; none changes anything.

mod exec;
mod list;
mod logs;
mod show;
mod text;

use std::process::ExitCode;

use crate::task::story::{find, Stories, Story};

use super::output::count;
use super::session::Session;
use super::Failed;

#[derive(Debug, clap::Subcommand)]
pub enum TaskVerb {
    /// List the Calico tasks of this host
    List(list::TaskListArguments),
    /// Tell everything about a task: its launch step by step, its interface, its endpoint, its end
    Show(show::TaskShowArguments),
    /// Run a program of this host in a task's network namespace: tcpdump, ss, ping, dig
    Exec(exec::TaskExecArguments),
    /// Print what a task and its executor have written
    Logs(logs::TaskLogsArguments),
}

pub async fn task(verb: TaskVerb, session: &Session) -> Result<ExitCode, Failed> {
    match verb {
        TaskVerb::List(arguments) => list::list(&arguments, session).await,
        TaskVerb::Show(arguments) => show::show(&arguments, session).await,
        TaskVerb::Exec(arguments) => exec::exec(arguments, session),
        TaskVerb::Logs(arguments) => logs::logs(&arguments, session).await,
    }
}

/// All tasks of this host, with warnings of records that cannot be read.
fn stories(session: &Session, ended: bool) -> Result<Stories, Failed> {
    let stories = Stories::read(&session.config, ended)?;
    for (path, why) in &stories.unreadable {
        tracing::warn!("the journal file {} is left out: {why}", path.display());
    }
    for (path, number) in &stories.damaged {
        tracing::warn!("{} of {} cannot be read and are left out", count(*number, "line"), path.display());
    }
    Ok(stories)
}

/// The one task that a word of the command line means.
fn the_task(session: &Session, word: &str) -> Result<Story, Failed> {
    let stories = stories(session, true)?;
    Ok(find(&stories.tasks, word)?.clone())
}
