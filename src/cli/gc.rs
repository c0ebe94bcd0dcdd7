//! `calico-mesos gc`: takes down the journal records whose executors are dead.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{json, Value};

use crate::config::Config;
use crate::task::gc::{sweep, Sweep, Swept};

use super::output::{count, table, Format, Out};
use super::Failed;

/// A dry run found something.
const FOUND: u8 = 3;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only tell what would be removed; exit code 3 when there is something.
    #[arg(long)]
    dry_run: bool,
    #[arg(long, value_enum, default_value = "table")]
    output: Format,
}

/// Exit code 1 when something could not be removed: it stays in the journal for the next run.
pub async fn gc(arguments: Arguments, config: &Path, out: &Out) -> Result<ExitCode, Failed> {
    let config = Config::load(config)?;
    let (swept, unreadable) = match sweep(&config, arguments.dry_run).await? {
        Sweep::Busy => {
            out.line(match arguments.output {
                Format::Table => "another cleaner is at work on this host".to_owned(),
                Format::Json => json!({ "busy": true, "tasks": [], "unreadable": [] }).to_string(),
            });
            return Ok(ExitCode::SUCCESS);
        }
        Sweep::Done { swept, unreadable } => (swept, unreadable),
    };
    match arguments.output {
        Format::Json => {
            let unreadable: Vec<Value> =
                unreadable.iter().map(|(path, why)| json!({ "path": path, "why": why })).collect();
            let tasks: Vec<Value> = swept.iter().map(as_json).collect();
            out.line(json!({ "busy": false, "tasks": tasks, "unreadable": unreadable }).to_string());
        }
        Format::Table => {
            print(&swept, arguments.dry_run, out);
            for (path, why) in &unreadable {
                out.line(format!("{} is left alone: {why}", path.display()));
            }
        }
    }
    let incomplete = swept.iter().any(|item| item.report.as_ref().is_some_and(|report| !report.complete()));
    Ok(match (incomplete, arguments.dry_run && !swept.is_empty()) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(FOUND),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn print(swept: &[Swept], dry_run: bool, out: &Out) {
    if swept.is_empty() {
        out.line("nothing to clean up: no dead executor left anything behind");
        return;
    }
    let rows: Vec<Vec<String>> = swept
        .iter()
        .map(|item| vec![item.task_id.clone(), item.container.clone(), item.written.clone(), result(item)])
        .collect();
    out.line(table(&["TASK", "CONTAINER", "STARTED", "RESULT"], &rows));
    if dry_run {
        out.line(format!(
            "{} to clean up; 'calico-mesos gc' without --dry-run does it",
            count(swept.len(), "task")
        ));
    }
}

fn result(item: &Swept) -> String {
    match &item.report {
        None => "would be removed".to_owned(),
        Some(report) if report.complete() => {
            let addresses: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
            match addresses.is_empty() {
                true => "removed".to_owned(),
                false => format!("removed, {} given back", addresses.join(" ")),
            }
        }
        Some(report) => format!("not yet: {}", report.errors.join("; ")),
    }
}

fn as_json(item: &Swept) -> Value {
    let report = item.report.as_ref().map(|report| {
        json!({
            "complete": report.complete(),
            "services": report.services,
            "container": report.container,
            "killed": report.killed,
            "interface": report.interface,
            "endpoint": report.endpoint,
            "addresses": report.addresses,
            "errors": report.errors,
        })
    });
    json!({ "task": item.task_id, "container": item.container, "started": item.written, "removed": report })
}
