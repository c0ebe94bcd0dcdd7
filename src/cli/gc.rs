//! `calico-mesos gc`: takes away what is left of tasks whose executor is dead.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{json, Value};

use crate::calico::Kind;
use crate::config::Config;
use crate::task::cleaner::{
    self, Cleaned, DecommissionTerms, Decommissioned, Fate, GoneDocker, Item, ItemKind, Silent, Verdict,
};
use crate::task::report::figures::{self, Figures};

use super::complete;
use super::output::{count, table, Format, Out, Output};
use super::{complaint, Failed};

/// A dry run found something.
const FOUND: u8 = 3;

#[derive(Debug, clap::Args)]
pub struct GcArguments {
    /// Only print what would be done; exit code 3 when there is something to do
    #[arg(long)]
    dry_run: bool,
    /// The age from which things that are in no journal are removed, such as 5m; default: gc.grace of the configuration
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    output: Output,
    /// Print nothing when there was nothing to do, for timers
    #[arg(long)]
    quiet: bool,
    /// Finish the records that name the Docker at this address, which is gone for good; refused while something listens
    /// there
    #[arg(long, value_name = "ADDRESS", conflicts_with = "node")]
    forget_docker: Option<String>,
    /// With --decommission: the node in Calico that is gone
    #[arg(long, value_name = "NAME", requires = "decommission", add = complete::names(Kind::Node))]
    node: Option<String>,
    /// Remove all that Calico holds for the tasks of a host that died for good; run it on another host
    #[arg(long, requires = "node")]
    decommission: bool,
    /// Take the node for dead, even if it shows signs of life
    #[arg(long, requires = "decommission")]
    yes: bool,
}

/// Exit code 1 when something could not be looked at or done: the next run tries again.
pub async fn gc(arguments: GcArguments, config: &Path, out: &Out) -> Result<ExitCode, Failed> {
    let config = Config::load(config)?;
    let grace = arguments.grace.unwrap_or(config.gc.grace);
    let dry_run = arguments.dry_run;
    if let Some(node) = &arguments.node {
        let terms = DecommissionTerms { grace, dead: arguments.yes, dry_run };
        let done = cleaner::decommission(&config, node, terms).await?;
        tell_decommissioned(node, &done, &arguments, out);
        let complete = !done.items.iter().any(|(_, fate)| fate.is_left());
        let work = done.items.iter().any(|(item, _)| item.verdict.is_work());
        return Ok(exit_code(complete, dry_run && work));
    }
    let gone = match &arguments.forget_docker {
        Some(address) => Some(GoneDocker::at(address).await?),
        None => None,
    };
    let Some(cleaned) = cleaner::clean_without(&config, grace, dry_run, gone.as_ref()).await? else {
        if arguments.quiet {
            return Ok(ExitCode::SUCCESS);
        }
        match arguments.output.output {
            Format::Table | Format::Wide | Format::Name => out.line("another cleaner runs on this host"),
            format => out.value(format, &json!({ "busy": true })),
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !dry_run {
        let figures = Figures { pools: figures::pools(&config).await, ..cleaned.figures.clone() };
        if let Err(error) = figures::write(&config, &figures) {
            // Everything else has been done.
            eprintln!("{}", complaint(&error));
        }
    }
    let silent = arguments.quiet && cleaned.complete() && cleaned.work() == 0;
    match arguments.output.output {
        _ if silent => {}
        Format::Table | Format::Wide => tell(&cleaned, gone.as_ref(), dry_run, out),
        Format::Name => names(&cleaned.items, out),
        format => out.value(format, &as_json(&cleaned, gone.as_ref(), dry_run)),
    }
    Ok(exit_code(cleaned.complete(), dry_run && cleaned.work() > 0))
}

fn exit_code(complete: bool, found: bool) -> ExitCode {
    match (complete, found) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(FOUND),
        (true, false) => ExitCode::SUCCESS,
    }
}

fn tell(cleaned: &Cleaned, gone: Option<&GoneDocker>, dry_run: bool, out: &Out) {
    let living = count(cleaned.figures.tasks, "live task");
    out.line(format!("{}, grace {}, {living} skipped", cleaned.node, duration(cleaned.grace)));
    if let Some(gone) = gone {
        let named = count(cleaned.without_docker, "record");
        out.line(format!("{gone} is treated as gone for good: {named} of dead executors named it"));
    }
    for Silent { source, why, .. } in &cleaned.silent {
        out.line(format!("cannot query {source}: {why}"));
    }
    tell_items(&cleaned.items, dry_run, cleaned.silent.is_empty(), out);
}

fn tell_decommissioned(node: &str, done: &Decommissioned, arguments: &GcArguments, out: &Out) {
    match arguments.output.output {
        Format::Table | Format::Wide => {}
        Format::Name => return names(&done.items, out),
        format => {
            let items: Vec<Value> = done.items.iter().map(item_as_json).collect();
            let found = json!({
                "node": node, "dry_run": arguments.dry_run, "items": items, "signs_of_life": done.signs,
                "not_asked": done.silent,
            });
            return out.value(format, &found);
        }
    }
    tell_node(node, done, arguments.dry_run, out);
}

/// What has become of a dead node's tasks, for people.
pub(super) fn tell_node(node: &str, done: &Decommissioned, dry_run: bool, out: &Out) {
    out.line(format!("{node}, to be decommissioned"));
    for sign in &done.signs {
        out.line(format!("sign of life: {sign}"));
    }
    for why in &done.silent {
        out.line(format!("not checked for signs of life: {why}"));
    }
    tell_items(&done.items, dry_run, true, out);
}

/// What was or would be done something about.
fn names(items: &[(Item, Fate)], out: &Out) {
    items.iter().filter(|(item, _)| item.verdict.is_work()).for_each(|(item, _)| out.line(&item.name));
}

/// The table, and how much of what it has. What is kept is of interest beforehand only.
fn tell_items(items: &[(Item, Fate)], dry_run: bool, all_seen: bool, out: &Out) {
    let shown = |(item, _): &&(Item, Fate)| {
        // What cannot be read wants an operator.
        dry_run || item.verdict != Verdict::Keep || matches!(item.kind, ItemKind::Journal | ItemKind::Block)
    };
    let rows: Vec<Vec<String>> = items.iter().filter(shown).map(row).collect();
    if !rows.is_empty() {
        let first = if dry_run { "WOULD" } else { "DID" };
        out.line(table(&[first, "KIND", "NAME", "AGE", "WHY"], &rows));
    }
    out.line(summary(items, dry_run, all_seen));
}

fn row((item, fate): &(Item, Fate)) -> Vec<String> {
    let age = item.age.map_or_else(|| "-".to_owned(), duration);
    let (word, why) = match fate {
        Fate::Left(error) if item.verdict == Verdict::Conflict => {
            (item.verdict.word().to_owned(), format!("{}; {error}", item.why))
        }
        Fate::Left(error) => ("could not".to_owned(), format!("{}: {error}", item.why)),
        Fate::Gone => ("was gone".to_owned(), item.why.clone()),
        Fate::Untouched | Fate::Done => (item.verdict.word().to_owned(), item.why.clone()),
    };
    vec![word, item.kind.word().to_owned(), item.name.clone(), age, why]
}

fn summary(items: &[(Item, Fate)], dry_run: bool, all_seen: bool) -> String {
    let number =
        |of: &dyn Fn(&Item, &Fate) -> bool| items.iter().filter(|(item, fate)| of(item, fate)).count();
    let left = number(&|item, fate| item.verdict != Verdict::Conflict && fate.is_left());
    let gone = number(&|_, fate| *fate == Fate::Gone);
    let by_us = |fate: &Fate| !fate.is_left() && *fate != Fate::Gone;
    let register = number(&|item, fate| item.verdict == Verdict::Register && by_us(fate));
    let restore = number(&|item, fate| item.verdict == Verdict::Restore && by_us(fate));
    let again = [Verdict::Register, Verdict::Restore];
    let remove =
        number(&|item, fate| item.verdict.is_work() && !again.contains(&item.verdict) && by_us(fate));
    let verdict = |wanted| number(&|item, _| item.verdict == wanted);
    let to = if dry_run { "to remove" } else { "removed" };
    let to_restore = if dry_run { "to write again" } else { "written again" };
    let to_register = if dry_run { "to register again" } else { "registered again" };
    let parts = [
        (remove, to),
        (register, to_register),
        (restore, to_restore),
        (verdict(Verdict::Conflict), "in conflict"),
        (gone, "gone meanwhile"),
        (left, "could not be done"),
        (verdict(Verdict::Report), "without a journal"),
        (verdict(Verdict::Keep), "kept"),
        (verdict(Verdict::Unknown), "unknown"),
    ];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let told = parts.map(|(number, what)| format!("{number} {what}")).collect::<Vec<_>>().join(", ");
    let nothing = if all_seen { "nothing to clean up" } else { "nothing to clean up in what could be read" };
    match (remove + register + restore + left, dry_run) {
        (0, _) if told.is_empty() => nothing.to_owned(),
        (0, _) => format!("{nothing}; {told}"),
        (_, true) => format!("{told}. Nothing was changed; run this without --dry-run to do it."),
        (_, false) => told,
    }
}

/// The time in its largest unit: `2h`, `41d`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86400, "d"), (3600, "h"), (60, "m")];
    match units.iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

fn as_json(cleaned: &Cleaned, gone: Option<&GoneDocker>, dry_run: bool) -> Value {
    let silent = |silent: &Silent| json!({ "source": silent.source, "why": silent.why });
    json!({
        "busy": false,
        "node": cleaned.node,
        "dry_run": dry_run,
        "grace_seconds": cleaned.grace.as_secs(),
        "live_tasks": cleaned.figures.tasks,
        "backlog": cleaned.figures.backlog,
        "orphans": cleaned.figures.leaks,
        "lost": cleaned.figures.lost,
        "conflicts": cleaned.figures.conflicts,
        "executor_versions": cleaned.figures.executors,
        "docker_given_up": gone.map(|gone| json!({
            "address": gone.to_string(), "records": cleaned.without_docker,
        })),
        "items": cleaned.items.iter().map(item_as_json).collect::<Vec<_>>(),
        "not_asked": cleaned.silent.iter().map(silent).collect::<Vec<_>>(),
    })
}

fn item_as_json((item, fate): &(Item, Fate)) -> Value {
    let (done, error) = match fate {
        Fate::Untouched | Fate::Gone => (false, None),
        Fate::Done => (true, None),
        Fate::Left(error) => (false, Some(error)),
    };
    json!({
        "verdict": item.verdict.word(),
        "kind": item.kind.word(),
        "name": item.name,
        "container": item.container,
        "age_seconds": item.age.map(|age| age.as_secs()),
        "why": item.why,
        "done": done,
        "gone": *fate == Fate::Gone,
        "error": error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_printed_in_one_unit() {
        for (seconds, told) in [(0, "0s"), (59, "59s"), (300, "5m"), (7300, "2h"), (41 * 86400 + 5, "41d")] {
            assert_eq!(duration(Duration::from_secs(seconds)), told);
        }
    }
}
