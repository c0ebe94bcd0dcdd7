//! The processes of a command, found in /proc: its session, and all its descendants.
//!
//! A shell puts jobs into groups of their own, and a program may give its children a session of their
//! own: one signal to the process group would miss both.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill as send, killpg, Signal};
use nix::unistd::Pid;

use crate::host::processes::{pids, Stat};

const PAUSE: Duration = Duration::from_millis(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
}

/// Sends the signal to every process of the command once; many programs take a second SIGTERM for haste.
pub(super) fn signal(leader: i32, signal: Signal) {
    let family = family(leader, processes());
    // In one call, so that a member that forks meanwhile is not missed. An empty session is not an error.
    let _ = killpg(Pid::from_raw(leader), signal);
    for entry in family.iter().filter(|entry| entry.group != leader) {
        let _ = send(Pid::from_raw(entry.pid), signal);
    }
}

/// Kills what is left when the leader has been waited for; returns what would not die.
///
/// The number of a session is not given to a new process while the session has members.
pub(super) async fn kill(leader: i32, patience: Duration) -> Vec<i32> {
    let ends = Instant::now() + patience;
    loop {
        let others = processes().into_iter().filter(|entry| entry.pid != leader).collect();
        let left: Vec<i32> = family(leader, others).iter().map(|entry| entry.pid).collect();
        if left.is_empty() || Instant::now() >= ends {
            return left;
        }
        for pid in &left {
            // It may have died by itself meanwhile; the next look shows it.
            let _ = send(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The members of the leader's session, their descendants, and the sessions that those have made.
fn family(leader: i32, mut others: Vec<Entry>) -> Vec<Entry> {
    let mut known = BTreeSet::from([leader]);
    let mut found = Vec::new();
    loop {
        let belongs = |entry: &Entry| {
            [entry.pid, entry.parent, entry.session].iter().any(|number| known.contains(number))
        };
        let (more, rest): (Vec<Entry>, Vec<Entry>) = others.into_iter().partition(belongs);
        if more.is_empty() {
            return found;
        }
        known.extend(more.iter().map(|entry| entry.pid));
        found.extend(more);
        others = rest;
    }
}

/// Every process that can still do something; a zombie cannot.
fn processes() -> Vec<Entry> {
    pids().filter_map(|pid| living(pid, &Stat::of(pid)?)).collect()
}

fn living(pid: i32, stat: &Stat) -> Option<Entry> {
    let entry = Entry { pid, parent: stat.parent()?, group: stat.group()?, session: stat.session()? };
    (!stat.is_dead()).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32, group: i32, session: i32) -> Entry {
        Entry { pid, parent, group, session }
    }

    #[test]
    fn who_belongs_to_a_command() {
        let all = vec![
            entry(9, 12, 9, 9),    // a session made by a grandchild, seen before its maker
            entry(10, 1, 10, 10),  // the leader
            entry(11, 10, 10, 10), // its child
            entry(12, 11, 12, 10), // a job
            entry(13, 1, 11, 10),  // an orphan of the session
            entry(14, 9, 9, 9),    // a child of the other session
            entry(15, 1, 14, 9),   // an orphan of it
            entry(20, 1, 20, 20),  // a stranger
            entry(21, 20, 20, 20), // and its child
        ];
        let mut pids: Vec<i32> = family(10, all.clone()).iter().map(|entry| entry.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(family(30, all), []);
    }

    #[test]
    fn a_name_cannot_hide_a_process() {
        let read = |pid, text| Stat::parse(text).and_then(|stat| living(pid, &stat));
        assert_eq!(read(7, "7 (a) Z 1 (b) R 1 2 3 0 -1"), Some(entry(7, 1, 2, 3)));
        assert_eq!(read(7, "7 (sh) Z 1 2 3 0 -1"), None);
        assert_eq!(read(7, "7 (sh"), None);
    }
}
