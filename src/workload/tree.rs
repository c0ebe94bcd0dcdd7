//! A process and all that descends from it, killed so that nothing gets away.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// How long a process may take to notice that it is stopped.
const NOTICE: Duration = Duration::from_millis(2);
const LOOKS: usize = 50;

/// Stops parents before it looks for their children, so that none is missed, and kills them all at last.
pub(super) async fn kill_tree(root: i32) {
    let mut tree = BTreeSet::from([root]);
    let mut fresh = vec![root];
    while !fresh.is_empty() {
        for pid in &fresh {
            // One that is gone has no children any more, here as below.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGSTOP);
        }
        for pid in &fresh {
            for _ in 0..LOOKS {
                if !stat(*pid).is_some_and(|stat| matches!(stat.state, 'R' | 'S' | 'D')) {
                    break;
                }
                tokio::time::sleep(NOTICE).await;
            }
        }
        fresh = children(&tree);
        tree.extend(&fresh);
    }
    for pid in tree {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Those that are not in the tree yet, of all that are.
fn children(tree: &BTreeSet<i32>) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| !tree.contains(pid) && stat(*pid).is_some_and(|stat| tree.contains(&stat.parent)))
        .collect()
}

struct Stat {
    state: char,
    parent: i32,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in brackets and may hold anything, brackets too.
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat { state: words.next()?.chars().next()?, parent: words.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn children_of_children_die_too_and_nobody_else() {
        let script = "sh -c 'sh -c \"echo up; sleep 600 & sleep 600\" & sleep 600' & setsid sleep 600 & wait";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let root = i32::try_from(child.id()).unwrap();
        let mut tree = BTreeSet::from([root]);
        while tree.len() < 7 {
            let found = children(&tree);
            tree.extend(found);
            tokio::task::yield_now().await;
        }
        kill_tree(root).await;
        child.wait().unwrap();
        // Orphans are reaped by whoever inherits them; till then they are zombies.
        let alive = |pid: &i32| stat(*pid).is_some_and(|stat| stat.state != 'Z');
        while tree.iter().any(alive) {
            tokio::task::yield_now().await;
        }
        assert!(stat(std::process::id() as i32).is_some());
    }
}
