//! The steps that make or change a launcher folder (pure): from what is there to what should be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The one program of the launcher folder that is ours.
pub use crate::mesos::flags::PROGRAM as EXECUTOR;

/// What the file in a launcher folder remembers: it distinguishes a link of ours from any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The agent's own launcher folder.
    pub from: PathBuf,
    pub executor: PathBuf,
    /// The topmost folder that had to be made for the folder.
    pub made: PathBuf,
}

/// An entry of the launcher folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderEntry {
    Link(PathBuf),
    Other,
}

/// One change. A link is never edited, always replaced by a rename.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderStep {
    Add(OsString),
    Change(OsString),
    Remove(OsString),
}

impl Mark {
    /// Where the link of this name leads.
    pub fn target(&self, name: &OsStr) -> PathBuf {
        match name == EXECUTOR {
            true => self.executor.clone(),
            false => self.from.join(name),
        }
    }

    /// Did a run that left this mark make this entry?
    fn made_it(&self, name: &OsStr, entry: &FolderEntry) -> bool {
        *entry == FolderEntry::Link(self.target(name))
    }
}

/// The changes that lead from `found` to one link for each of `programs`, or the names that are in
/// the way. `old` is the mark that was found, `new` the one to write; other entries stay.
pub fn plan(
    found: &BTreeMap<OsString, FolderEntry>,
    programs: &BTreeSet<OsString>,
    old: &Mark,
    new: &Mark,
) -> Result<Vec<FolderStep>, Vec<OsString>> {
    let (mut steps, mut foreign) = (Vec::new(), Vec::new());
    for name in programs {
        match found.get(name) {
            None => steps.push(FolderStep::Add(name.clone())),
            Some(entry) if new.made_it(name, entry) => {}
            Some(entry) if old.made_it(name, entry) => steps.push(FolderStep::Change(name.clone())),
            Some(_) => foreign.push(name.clone()),
        }
    }
    let gone = found.iter().filter(|(name, entry)| !programs.contains(*name) && old.made_it(name, entry));
    steps.extend(gone.map(|(name, _)| FolderStep::Remove(name.clone())));
    match foreign.is_empty() {
        true => Ok(steps),
        false => Err(foreign),
    }
}

/// Entries that no run with this mark made.
pub fn strangers(found: &BTreeMap<OsString, FolderEntry>, mark: &Mark) -> Vec<OsString> {
    found.iter().filter(|(name, entry)| !mark.made_it(name, entry)).map(|(name, _)| name.clone()).collect()
}

/// `added a, b; removed c`, or in a dry run `to add: a, b; to remove: c`; nothing: `None`.
pub fn told(steps: &[FolderStep], dry_run: bool) -> Option<String> {
    let names = |kind: fn(&FolderStep) -> Option<&OsString>| {
        let names: Vec<String> =
            steps.iter().filter_map(kind).map(|name| name.to_string_lossy().into_owned()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let parts = [
        ("added", "to add:", names(|step| if let FolderStep::Add(name) = step { Some(name) } else { None })),
        (
            "changed",
            "to change:",
            names(|step| if let FolderStep::Change(name) = step { Some(name) } else { None }),
        ),
        (
            "removed",
            "to remove:",
            names(|step| if let FolderStep::Remove(name) = step { Some(name) } else { None }),
        ),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(done, to_do, names)| Some(format!("{} {}", if dry_run { to_do } else { done }, names?)))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The names in one line of a message.
pub fn list(names: &[OsString]) -> String {
    names.iter().map(|name| Path::new(name).display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(from: &str, executor: &str) -> Mark {
        Mark { from: from.into(), executor: executor.into(), made: "/launcher".into() }
    }

    fn names(names: &[&str]) -> BTreeSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    fn found(links: &[(&str, &str)]) -> BTreeMap<OsString, FolderEntry> {
        links.iter().map(|(name, target)| (name.into(), FolderEntry::Link(target.into()))).collect()
    }

    #[test]
    fn upgrades_of_mesos_and_of_calico_mesos_change_only_their_links() {
        let old = mark("/libexec", "/opt/1/calico-executor");
        let here = found(&[
            ("mesos-docker-executor", "/opt/1/calico-executor"),
            ("mesos-fetcher", "/libexec/mesos-fetcher"),
            ("mesos-old", "/libexec/mesos-old"),
            ("tool", "/opt/tool"),
        ]);
        let programs = names(&["mesos-docker-executor", "mesos-fetcher", "mesos-new"]);
        assert_eq!(
            plan(&here, &programs, &old, &old).unwrap(),
            [FolderStep::Add("mesos-new".into()), FolderStep::Remove("mesos-old".into())]
        );
        let new = mark("/libexec", "/opt/2/calico-executor");
        let steps = plan(&here, &programs, &old, &new).unwrap();
        assert_eq!(
            told(&steps, false).unwrap(),
            "added mesos-new; changed mesos-docker-executor; removed mesos-old"
        );
        assert_eq!(told(&steps[..1], true).unwrap(), "to change: mesos-docker-executor");
        assert_eq!(told(&[], true), None);
        assert_eq!(strangers(&here, &old), ["tool"]);
    }

    #[test]
    fn what_is_not_ours_is_never_replaced() {
        let mark = mark("/libexec", "/opt/calico-executor");
        let mut here = found(&[("mesos-docker-executor", "/opt/wrapper")]);
        here.insert("mesos-fetcher".into(), FolderEntry::Other);
        let programs = names(&["mesos-docker-executor", "mesos-fetcher", "mesos-executor"]);
        assert_eq!(
            plan(&here, &programs, &mark, &mark).unwrap_err(),
            ["mesos-docker-executor", "mesos-fetcher"]
        );
    }

    #[test]
    fn an_interrupted_change_is_finished() {
        let (old, new) = (mark("/a", "/x"), mark("/b", "/x"));
        let here = found(&[("mesos-docker-executor", "/x"), ("p", "/b/p"), ("q", "/a/q")]);
        let programs = names(&["mesos-docker-executor", "p", "q"]);
        assert_eq!(plan(&here, &programs, &old, &new).unwrap(), [FolderStep::Change("q".into())]);
    }
}
