//! `calico-mesos task logs`: the files `stdout` and `stderr` of a task's sandbox.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::sleep;

use crate::cli::complete;
use crate::cli::follow::Follow;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Out;
use crate::cli::session::Session;
use crate::cli::Failed;
use crate::task::story::{sandbox, Sandbox, Stories, Story, StoryPhase};

/// Between two looks at the files.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks at the files between two looks at the journal: is the task still there?
const JOURNAL_EVERY: u32 = 10;

#[derive(Debug, clap::Args)]
pub struct TaskLogsArguments {
    /// Any unique beginning of its id or of its container's, its app, or an address
    #[arg(value_name = "ID", add = complete::tasks())]
    task: String,
    /// Go on with what is written, until the task has ended or Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Begin with the last LINES lines of each file
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<usize>,
    /// Print this file alone; otherwise each goes to the output of its name
    #[arg(long, value_enum)]
    only: Option<LogFile>,
}

/// A file of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFile {
    /// What the task writes to its standard output
    Stdout,
    /// The executor's log, with what the task writes to its standard error
    Stderr,
}

/// One file and where its lines go.
struct Source {
    follow: Follow,
    out: Out,
}

pub async fn logs(arguments: &TaskLogsArguments, session: &Session) -> Result<ExitCode, Failed> {
    let story = super::the_task(session, &arguments.task)?;
    let Some(sandbox) = sandbox(&story) else {
        let why = match story.state {
            StoryPhase::Ended => {
                "the audit trail does not hold its launch any more, or an older release launched it"
            }
            _ => "its executor is gone, and the audit trail does not hold its launch",
        };
        return Err(format!("the sandbox of {} is unknown: {why}", story.task).into());
    };
    let mut sources = sources(arguments, session, &story, &sandbox)?;
    let interrupt = arguments.follow.then(|| Interrupt::listen(&session.out)).transpose()?;
    let mut looks = 0;
    loop {
        // Looked at before the files: what an ended task wrote is there by then.
        let over = interrupt.is_none() || (looks % JOURNAL_EVERY == 0 && !lives(session, &story));
        looks += 1;
        for source in &mut sources {
            print(source);
        }
        let Some(interrupt) = interrupt.as_ref().filter(|_| !over) else { break };
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = interrupt.asked() => break,
        }
        for source in &mut sources {
            source.follow.follow_rotation();
        }
    }
    for source in &mut sources {
        if let Some(line) = source.follow.last_line() {
            source.out.line(line);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A chunk at a time: a file may be larger than this program's memory.
fn print(source: &mut Source) {
    let mut lines = Vec::new();
    while source.follow.more(&mut lines) && !source.out.closed().is_cancelled() {
        if !lines.is_empty() {
            lines.push(String::new());
            source.out.part(&lines.join("\n"));
            lines.clear();
        }
    }
}

fn sources(
    arguments: &TaskLogsArguments,
    session: &Session,
    story: &Story,
    sandbox: &Sandbox,
) -> Result<Vec<Source>, Failed> {
    let both = [(LogFile::Stdout, "stdout"), (LogFile::Stderr, "stderr")];
    let mut sources = Vec::new();
    for (stream, name) in both.into_iter().filter(|(stream, _)| arguments.only.is_none_or(|it| it == *stream))
    {
        let out = match (stream, arguments.only) {
            (LogFile::Stderr, None) => Out::stderr(),
            _ => session.out.clone(),
        };
        match Follow::begin(sandbox.reach.join(name), arguments.tail) {
            Ok(follow) => sources.push(Source { follow, out }),
            // An agent makes both, and removes them with the folder.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(format!("cannot read {}: {error}", sandbox.path.join(name).display()).into())
            }
        }
    }
    if sources.is_empty() {
        let (task, path) = (&story.task, sandbox.path.display());
        let text = match sandbox.reach.exists() {
            true => format!("{task} has no output in its sandbox {path}: the agent keeps it elsewhere"),
            false => format!(
                "the sandbox of {task}, {path}, is gone: the agent removes it some time after the task's end"
            ),
        };
        return Err(text.into());
    }
    Ok(sources)
}

/// Whether the journal still has the task.
fn lives(session: &Session, story: &Story) -> bool {
    Stories::lives(&session.config, &story.container)
}
