//! The harness's own test: interrupted in each way, it leaves nothing.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::kit::wait;
use crate::processes;
use crate::world::none;
use crate::world::sh;

/// How long an interrupted run may take to end.
const ENDING: Duration = Duration::from_secs(60);

/// What is done to a run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    CtrlC,
    Terminate,
    KillParent,
}

/// A run of this program in a network of its own, once its tasks run.
struct Run {
    way: Way,
    /// The shell that has started it.
    parent: Child,
    pid: i32,
    folder: PathBuf,
}

impl Run {
    fn start(way: Way) -> Self {
        let script = "ip link set lo up; \"$0\" & echo pid $!; wait $!";
        let mut parent = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .env("LIVES", "1000")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut after = |prefix: &str| {
            let found = lines.find_map(|line| Some(line.strip_prefix(prefix)?.to_owned()));
            found.unwrap_or_else(|| panic!("the run ended before it printed '{prefix}'"))
        };
        let pid = after("pid ").parse().unwrap();
        let folder = PathBuf::from(after("soak: data in "));
        after("LIFE ");
        // Its output goes on, and must not end it.
        std::thread::spawn(move || lines.count());
        Self { way, parent, pid, folder }
    }

    fn strike(&self) {
        let shell = i32::try_from(self.parent.id()).unwrap();
        match self.way {
            Way::CtrlC => processes::signal(self.pid, Signal::SIGINT),
            Way::Terminate => processes::signal(self.pid, Signal::SIGTERM),
            Way::KillParent => processes::signal(shell, Signal::SIGKILL),
        }
    }

    /// What there is of it; empty when all has ended.
    fn left(&self) -> Vec<String> {
        let mut left = processes::below(&self.folder);
        left.extend(processes::is_alive(self.pid).then(|| format!("the run itself, {}", self.pid)));
        left.extend(self.folder.exists().then(|| self.folder.display().to_string()));
        let cgroups =
            format!("find /sys/fs/cgroup -name '{}*' -type d", processes::cgroup_of(&docker(&self.folder)));
        left.extend(sh(&cgroups).lines().map(str::to_owned));
        left
    }
}

fn docker(folder: &Path) -> PathBuf {
    folder.join("d")
}

/// Panics where something is left.
pub fn test() {
    let ways = [Way::CtrlC, Way::Terminate, Way::KillParent];
    let starting = ways.map(|way| std::thread::spawn(move || Run::start(way)));
    let runs = starting.map(|run| run.join().unwrap());
    for mut run in runs {
        let before = run.left();
        // A life's fault may have ended Docker's daemons just then: etcd and Consul, the run and its folder are left.
        assert!(before.len() > 3, "{:?}: {before:#?}", run.way);
        run.strike();
        let begun = Instant::now();
        let left = || none(&run.left());
        wait::blocking(ENDING, format!("nothing is left after {:?}", run.way), left);
        let status = run.parent.wait().unwrap();
        if run.way != Way::KillParent {
            assert_eq!(status.code(), Some(i32::from(crate::INTERRUPTED)), "{:?}", run.way);
        }
        println!("soak: {:?} leaves nothing, after {:.1} s", run.way, begun.elapsed().as_secs_f32());
    }
}
