//! `scripts/made.sh`: the demo's list of what it has made.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::machine::{root, App, Machine};

/// `--left` of a list, from where the list was made or from outside.
fn left(list: &std::path::Path) -> (bool, String) {
    let script = root().join("scripts/made.sh");
    let output = Command::new("bash").arg(script).arg("--left").arg(list).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_a_cluster_makes_is_listed_and_what_others_make_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (made, there) = (dir.path().join("made"), dir.path().join("there"));
    let script = root().join("scripts/made.sh");
    // Another program's: a link, a route, and a process that names the folder.
    let then = format!(
        "ip link add other type dummy && ip link set other up && ip route add 203.0.113.0/24 dev other
         tail -f \"$CM_FOLDER/config.toml\" > /dev/null & echo $! > {0}/looker
         {1} \"$CM_FOLDER\" $CM_ADDRESSES > {2} && ! {1} --left {2} > {3}
         ip link delete other; kill $(cat {0}/looker)",
        dir.path().display(),
        script.display(),
        made.display(),
        there.display(),
    );
    let app = App::calico("exec sleep 1000");
    let outcome = Machine::start(&["run", &app.path, "--dev", "--then", &then]).finish();
    outcome.expect(0);

    let list = fs::read_to_string(&made).unwrap();
    let kinds: BTreeSet<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
    for kind in ["folder", "process", "mount", "cgroup", "link", "route", "rules", "setting"] {
        assert!(kinds.contains(kind), "no {kind} in {list}");
    }
    for name in ["etcd", "consul", "dockerd", "containerd", "calico-executor", "sleep"] {
        // `process PID START NAME`; a Consul of the cache has its version in its name.
        let mut processes = list.lines().filter_map(|line| line.strip_prefix("process ")?.split(' ').nth(2));
        assert!(processes.any(|process| process.starts_with(name)), "no {name} in {list}");
    }
    assert!(!list.contains("other") && !list.contains("203.0.113"), "{list}");
    let looker = fs::read_to_string(dir.path().join("looker")).unwrap();
    assert!(!list.contains(&format!("process {} ", looker.trim())), "{list}");

    // While the tasks ran all of it was there, and after them nothing is.
    assert_eq!(fs::read_to_string(&there).unwrap(), list);
    assert_eq!(left(&made), (true, String::new()));

    // What is there after all is named.
    let kept = tempfile::tempdir().unwrap();
    let line = format!("folder {}\n", kept.path().display());
    fs::write(&made, format!("process {} 1 gone\n{line}", std::process::id())).unwrap();
    assert_eq!(left(&made), (false, line));
}
