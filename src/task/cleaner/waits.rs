//! What a cleaner could not do, or leaves to an operator, in the cleaner's log.
//!
//! A cleaner comes by every half minute. A line for every run would push out what was done, so that a wait is written
//! when it begins, and again when its reason changes or the host has restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::host::files;
use crate::task::report::audit;

use super::execute::{self, Fate};
use super::plan::{Item, ItemKind, Verdict};
use super::seen::{SeenRecord, Survey};

/// Each kind of wait once, by what it is about and why.
type Waits = BTreeSet<(String, String)>;

/// Writes down what is new among them.
pub(super) fn note(config: &Config, survey: &Survey, items: &[(Item, Fate)]) {
    let waits = of(config, survey, items);
    let file = file(config);
    let known = fs::read_to_string(&file).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().collect();
    let now: BTreeMap<String, &(String, String)> = waits.iter().map(|wait| (key(wait), wait)).collect();
    for (_, (about, line)) in now.iter().filter(|(key, _)| !known.contains(key.as_str())) {
        audit::cleaner_says(config, about, line);
    }
    if !now.keys().map(String::as_str).eq(known) {
        if let Err(error) = remember(config, &file, now.keys()) {
            tracing::debug!("cannot write {}: {error}", file.display());
        }
    }
}

fn of(config: &Config, survey: &Survey, items: &[(Item, Fate)]) -> Waits {
    let silent = survey.silent.iter();
    let silent =
        silent.map(|silent| (silent.source.to_owned(), format!("cannot be queried: {}", silent.why)));
    let waits = items.iter().filter_map(|(item, fate)| {
        let line = match fate {
            // Both holders have been named.
            Fate::Left(_) if item.verdict == Verdict::Conflict => return None,
            Fate::Left(why) => format!("left for the next cleaner: {why}"),
            Fate::Untouched if is_for_an_operator(item) => {
                format!("{} {} is left to an operator: {}", item.kind.word(), item.name, item.why)
            }
            _ => return None,
        };
        Some((about(config, survey, item), line))
    });
    silent.chain(waits).collect()
}

/// What nothing backs, and what cannot be read.
fn is_for_an_operator(item: &Item) -> bool {
    let holds_much = matches!(item.kind, ItemKind::Journal | ItemKind::Block);
    item.verdict == Verdict::Report || (item.verdict == Verdict::Unknown && holds_much)
}

/// The task, as far as it is known.
fn about(config: &Config, survey: &Survey, item: &Item) -> String {
    let Some(container) = &item.container else { return survey.node.clone() };
    match (survey.records.get(container), survey.traces.get(container)) {
        (Some(SeenRecord::Dead(record, _) | SeenRecord::Living(Some(record))), _) => {
            record.identity.task_id.clone()
        }
        (_, Some(trace)) => execute::record(config, survey, container, trace).identity.task_id,
        _ => container.to_string(),
    }
}

/// The same for the same wait: times and counts in a reason differ from run to run.
fn key((about, line): &(String, String)) -> String {
    let line: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
    format!("{about}: {line}").replace('\n', " ")
}

fn file(config: &Config) -> PathBuf {
    config.paths.run.join("gc-waits")
}

fn remember<'a>(
    config: &Config,
    file: &Path,
    keys: impl ExactSizeIterator<Item = &'a String>,
) -> io::Result<()> {
    if keys.len() == 0 {
        return files::remove(file);
    }
    files::make_private(&config.paths.run)?;
    let text: String = keys.map(|key| format!("{key}\n")).collect();
    files::replace_as(file, 0o600, |new| new.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::Component;
    use crate::names::ContainerId;
    use crate::task::cleaner::seen::Silent;

    fn item(verdict: Verdict, kind: ItemKind, container: Option<&ContainerId>) -> Item {
        let (name, why) = ("x".to_owned(), "why".to_owned());
        Item { verdict, kind, name, age: None, why, container: container.cloned() }
    }

    #[test]
    fn a_wait_is_written_when_it_begins_and_when_its_reason_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        (config.paths.log, config.paths.run) = (dir.path().join("log"), dir.path().join("run"));
        let written = || {
            let text = fs::read_to_string(Component::Gc.current(&config.paths.log)).unwrap_or_default();
            let lines = text.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap().to_owned());
            lines.collect::<Vec<_>>()
        };
        let container = ContainerId::random();
        let mut survey = Survey::new("agent-17".to_owned());
        let left = |why: &str| {
            let of = |kind| (item(Verdict::Remove, kind, Some(&container)), Fate::Left(why.to_owned()));
            vec![of(ItemKind::Endpoint), of(ItemKind::Address)]
        };
        let idle = [(item(Verdict::Keep, ItemKind::Veth, Some(&container)), Fate::Untouched)];
        note(&config, &survey, &idle);
        assert!(written().is_empty() && !config.paths.run.exists());

        note(&config, &survey, &left("etcd is away after 3 s"));
        note(&config, &survey, &left("etcd is away after 4 s"));
        let first = format!("{container}: left for the next cleaner: etcd is away after 3 s");
        assert_eq!(written(), [first.as_str()]);

        survey.silent.push(Silent { source: "Consul", why: "refused".to_owned(), essential: false });
        let mut items = left("no user");
        items.push((item(Verdict::Conflict, ItemKind::Address, None), Fate::Left("decide".to_owned())));
        items.push((item(Verdict::Report, ItemKind::Veth, Some(&container)), Fate::Untouched));
        items.push((item(Verdict::Unknown, ItemKind::Block, None), Fate::Untouched));
        for _ in 0..3 {
            note(&config, &survey, &items);
        }
        let mut told = written().split_off(1);
        told.sort();
        let mut expected = [
            "Consul: cannot be queried: refused".to_owned(),
            format!("{container}: left for the next cleaner: no user"),
            format!("{container}: veth x is left to an operator: why"),
            "agent-17: block x is left to an operator: why".to_owned(),
        ];
        expected.sort();
        assert_eq!(told, expected);

        survey.silent.clear();
        note(&config, &survey, &idle);
        assert!(!file(&config).exists());
        note(&config, &survey, &left("no user"));
        assert_eq!(written().len(), 6);
    }
}
