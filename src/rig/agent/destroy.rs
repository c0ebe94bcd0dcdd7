//! The end of a container without a warning.
//!
//! A real agent kills everything in the executor's cgroup. Here it is the executor's process group and
//! all its descendants, in any session; only a process that has left the family is missed.

use std::collections::BTreeMap;

use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;

use crate::host::processes::{pids, Stat};

/// The executor's process and all of its family. Stops all of them first, so that none runs away from a list that was
/// just made.
pub fn kill_all(leader: i32) {
    // No executor: everybody on this machine descends from these.
    if leader <= 1 {
        return;
    }
    let mut family = vec![leader];
    loop {
        for pid in &family {
            // Gone already is what is wanted, here and below.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGSTOP);
        }
        let now = descendants(leader);
        if now.len() <= family.len() {
            break;
        }
        family = now;
    }
    let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
    for pid in family {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The process itself first, then its children and theirs.
fn descendants(leader: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in pids() {
        if let Some(parent) = Stat::of(pid).and_then(|stat| stat.parent()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![leader];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn every_descendant_is_killed() {
        let mut leader = Command::new("sh")
            .args(["-c", "setsid sh -c 'echo $$; sleep 1000; echo alive' & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(leader.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        let pid = i32::try_from(leader.id()).unwrap();
        assert!(descendants(pid).contains(&grandchild));
        kill_all(pid);
        leader.wait().unwrap();
        // The end of its output is the end of everybody who held it.
        let mut rest = String::new();
        output.read_line(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}
