//! The audit trail, read back: what it holds of each task, put together.
//!
//! The lines of a task lie in two logs and several pieces of each ([`audit`](super::audit)), some of them where the
//! release before wrote them; the oldest pieces go, so that a life may begin in the middle. A line that cannot be read is counted and left out.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::config::Config;
use crate::logging::Component;
use crate::names::ContainerId;
use crate::task::channel::Ending;

/// All tasks of which the trail holds something, and how far back it goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trail {
    pub lives: BTreeMap<ContainerId, Life>,
    /// The time of the oldest launch or teardown; none: there is no such line.
    pub since: Option<String>,
    /// Lines that cannot be read, by file.
    pub damaged: BTreeMap<PathBuf, usize>,
}

/// What the trail holds of one task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Life {
    pub task: String,
    pub app: String,
    pub framework: String,
    pub node: String,
    /// In the order in which they were given.
    pub addresses: Vec<Tenure>,
    pub launch: Option<Part>,
    /// More than one where a teardown had to be repeated.
    pub teardowns: Vec<Part>,
}

/// From when to when the task had an address.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenure {
    pub address: IpAddr,
    pub profiles: Vec<String>,
    /// RFC 3339, as all times here.
    pub given: Option<String>,
    pub returned: Option<String>,
    /// The holder of the same address in the datastore, where that was another one.
    pub conflict: Option<String>,
}

/// One launch or teardown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    pub time: String,
    pub ending: Ending,
    /// Milliseconds since the beginning, in the order in which they were passed.
    pub steps: Vec<(String, f64)>,
    pub errors: Vec<String>,
    /// `executor` or `gc`.
    pub by: String,
    pub pid: u32,
    pub version: String,
    pub sandbox: Option<PathBuf>,
}

/// A line of either log.
#[derive(Deserialize)]
struct Line {
    time: String,
    event: String,
    container: Option<ContainerId>,
    #[serde(default)]
    task: String,
    #[serde(default)]
    app: String,
    #[serde(default)]
    framework: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    version: String,
    address: Option<IpAddr>,
    #[serde(default)]
    profiles: Vec<String>,
    holder: Option<String>,
    #[serde(default)]
    outcome: String,
    code: Option<Value>,
    message: Option<String>,
    #[serde(default, deserialize_with = "steps")]
    steps: Vec<(String, f64)>,
    #[serde(default)]
    errors: Vec<String>,
    sandbox: Option<PathBuf>,
}

/// Numbers by their names; what is not a number is left out.
fn steps<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
    struct Steps;
    impl<'a> Visitor<'a> for Steps {
        type Value = Vec<(String, f64)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("steps with their times")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut steps = Vec::new();
            while let Some((name, at)) = map.next_entry::<String, Value>()? {
                steps.extend(at.as_f64().map(|at| (name, at)));
            }
            Ok(steps)
        }
    }
    deserializer.deserialize_map(Steps)
}

impl Trail {
    /// Reads all of it. What is not there is empty.
    pub fn read(config: &Config) -> io::Result<Self> {
        Self::read_where(config, |_| true)
    }

    /// The same with the lives of these containers alone: a full trail has twenty thousand.
    pub fn read_where(config: &Config, is_wanted: impl Fn(&ContainerId) -> bool) -> io::Result<Self> {
        let mut trail = Self::default();
        for log in [Component::Tasks, Component::Addresses] {
            for (path, piece) in log.pieces(&config.paths.log)? {
                trail.take_in(&path, BufReader::new(piece), &is_wanted)?;
            }
        }
        Ok(trail)
    }

    fn take_in(
        &mut self,
        path: &Path,
        mut piece: impl BufRead,
        is_wanted: &impl Fn(&ContainerId) -> bool,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        while piece.read_until(b'\n', &mut text)? > 0 {
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) => self.add(line, is_wanted),
                Err(_) if text.trim_ascii().is_empty() => {}
                Err(_) => *self.damaged.entry(path.to_owned()).or_default() += 1,
            }
            text.clear();
        }
        Ok(())
    }

    fn add(&mut self, mut line: Line, is_wanted: &impl Fn(&ContainerId) -> bool) {
        if matches!(line.event.as_str(), "launch" | "teardown") {
            self.since.get_or_insert_with(|| line.time.clone());
        }
        let Some(container) = line.container.take().filter(is_wanted) else { return };
        let life = self.lives.entry(container).or_default();
        for (known, now) in [
            (&mut life.task, &mut line.task),
            (&mut life.app, &mut line.app),
            (&mut life.framework, &mut line.framework),
            (&mut life.node, &mut line.node),
        ] {
            if known.is_empty() {
                *known = std::mem::take(now);
            }
        }
        match line.event.as_str() {
            "launch" => life.launch = Some(line.into()),
            "teardown" => life.teardowns.push(line.into()),
            _ => life.tenure(line),
        }
    }
}

impl Life {
    fn tenure(&mut self, line: Line) {
        let Some(address) = line.address else { return };
        let known = self.addresses.iter().position(|tenure| tenure.address == address);
        let index = known.unwrap_or_else(|| {
            let tenure =
                Tenure { address, profiles: Vec::new(), given: None, returned: None, conflict: None };
            self.addresses.push(tenure);
            self.addresses.len() - 1
        });
        let tenure = &mut self.addresses[index];
        match line.event.as_str() {
            "given" => {
                // Lines of the release before may stand behind later ones.
                if tenure.returned.as_ref().is_some_and(|returned| *returned < line.time) {
                    tenure.returned = None;
                }
                tenure.given.get_or_insert(line.time);
                tenure.profiles = line.profiles;
            }
            "restored" => tenure.returned = None,
            // A cleaner may repeat the line.
            "returned" => drop(tenure.returned.get_or_insert(line.time)),
            "conflict" => tenure.conflict = line.holder,
            _ => {}
        }
    }

    /// How the task ended, and when that was written down, as far as the trail has it.
    pub fn ending(&self) -> Option<(&Ending, &str)> {
        let told = |part: &&Part| part.ending.outcome != "orphaned";
        let torn_down = self.teardowns.iter().rfind(told).or(self.teardowns.last());
        let never_ran = self.launch.as_ref().filter(|launch| launch.ending.outcome != "running");
        torn_down.or(never_ran).map(|part| (&part.ending, part.time.as_str()))
    }

    /// The time of its newest line.
    pub fn newest(&self) -> &str {
        let parts = self.launch.iter().chain(&self.teardowns).map(|part| part.time.as_str());
        let tenures =
            self.addresses.iter().flat_map(|its| [&its.given, &its.returned]).flatten().map(String::as_str);
        parts.chain(tenures).max().unwrap_or_default()
    }
}

impl From<Line> for Part {
    fn from(line: Line) -> Self {
        let mut steps = line.steps;
        steps.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        Self {
            time: line.time,
            ending: Ending { outcome: line.outcome, code: line.code, message: line.message },
            steps,
            errors: line.errors,
            by: line.by,
            pid: line.pid,
            version: line.version,
            sandbox: line.sandbox,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ONE: &str = "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d";

    fn trail(tasks: &[&str], addresses: &[&str]) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.log = dir.path().into();
        for (log, lines) in [(Component::Tasks, tasks), (Component::Addresses, addresses)] {
            let path = log.current(dir.path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, lines.concat()).unwrap();
        }
        (dir, config)
    }

    fn line(time: u32, event: &str, rest: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-28T20:00:{time:02}.000Z\",\"event\":\"{event}\",{rest},\"task\":\"web.1\",\
             \"app\":\"/web\",\"container\":\"{ONE}\",\"by\":\"executor\",\"pid\":7,\"version\":\"0.1.0\"}}\n"
        )
    }

    #[test]
    fn a_life_is_put_together_from_both_files() {
        let (_dir, config) = trail(
            &[
                &line(
                    2,
                    "launch",
                    r#""outcome":"running","steps":{"running":20.5,"recorded":0.1},"sandbox":"/s""#,
                ),
                &line(8, "teardown", r#""outcome":"orphaned","steps":{},"errors":["address: etcd is away"]"#),
                &line(9, "teardown", r#""outcome":"exited","code":3,"steps":{"ended":1}"#),
            ],
            &[
                &line(1, "given", r#""address":"10.0.0.1","profiles":["dev"]"#),
                &line(9, "returned", r#""address":"10.0.0.1""#),
                &line(10, "returned", r#""address":"10.0.0.1""#),
            ],
        );
        let trail = Trail::read(&config).unwrap();
        let life = &trail.lives[&ContainerId::parse(ONE).unwrap()];
        assert_eq!((life.task.as_str(), life.app.as_str(), trail.lives.len()), ("web.1", "/web", 1));
        let launch = life.launch.as_ref().unwrap();
        assert_eq!(launch.steps, [("recorded".to_owned(), 0.1), ("running".to_owned(), 20.5)]);
        assert_eq!(launch.sandbox.as_deref(), Some(Path::new("/s")));
        assert_eq!(life.teardowns[0].errors, ["address: etcd is away"]);
        let (ending, time) = life.ending().unwrap();
        assert_eq!(
            (ending.outcome.as_str(), ending.code.clone(), &time[17..19]),
            ("exited", Some(3.into()), "09")
        );
        let tenure = &life.addresses[0];
        assert_eq!((life.addresses.len(), tenure.profiles.as_slice()), (1, &["dev".to_owned()][..]));
        assert_eq!(tenure.returned.as_deref(), Some("2026-11-28T20:00:09.000Z"));
        assert_eq!(life.newest(), "2026-11-28T20:00:09.000Z");
        assert_eq!(trail.since.as_deref(), Some("2026-11-28T20:00:02.000Z"));
        let none = Trail::read_where(&config, |_| false).unwrap();
        assert_eq!((none.lives.len(), none.since), (0, trail.since));
    }

    #[test]
    fn damaged_lines_are_counted_and_hide_nothing() {
        let good = line(1, "launch", r#""outcome":"running""#);
        let other_types = line(1, "launch", r#""outcome":7"#);
        let (_dir, config) =
            trail(&["{\n", "\n", "[]\n", &other_types, &good, &good[..30]], &["\u{0}\u{0}", "\n"]);
        let trail = Trail::read(&config).unwrap();
        assert_eq!(trail.lives.len(), 1);
        let path = |log: Component| log.current(&config.paths.log);
        assert_eq!(trail.damaged, [(path(Component::Tasks), 4), (path(Component::Addresses), 1)].into());
    }

    #[test]
    fn pieces_are_read_in_their_order_and_each_file_once() {
        let (dir, config) = trail(&[&line(9, "teardown", r#""outcome":"killed""#)], &[]);
        let tasks = dir.path().join("audit/tasks");
        fs::write(tasks.join("current.1"), line(5, "launch", r#""outcome":"running""#)).unwrap();
        fs::write(tasks.join("current.2"), line(1, "launch", r#""outcome":"failed""#)).unwrap();
        fs::hard_link(tasks.join("current.2"), tasks.join("current.3")).unwrap();
        fs::write(tasks.join("current.old"), "not a piece\n").unwrap();
        let trail = Trail::read(&config).unwrap();
        assert!(trail.damaged.is_empty());
        let life = trail.lives.values().next().unwrap();
        assert_eq!(life.launch.as_ref().unwrap().ending.outcome, "running");
        assert_eq!((life.teardowns.len(), trail.since.unwrap()), (1, "2026-11-28T20:00:01.000Z".into()));
    }

    #[test]
    fn an_upgrade_loses_no_story() {
        let (dir, config) = trail(&[&line(9, "teardown", r#""outcome":"killed""#)], &[]);
        let audit = dir.path().join("audit");
        fs::write(audit.join("tasks.log"), line(5, "launch", r#""outcome":"running""#)).unwrap();
        fs::write(audit.join("tasks.log.1"), line(1, "launch", r#""outcome":"failed""#)).unwrap();
        fs::write(audit.join("addresses.log"), line(3, "given", r#""address":"10.0.0.1""#)).unwrap();
        let trail = Trail::read(&config).unwrap();
        let life = trail.lives.values().next().unwrap();
        assert_eq!(life.launch.as_ref().unwrap().ending.outcome, "running");
        assert_eq!((life.teardowns.len(), life.addresses.len()), (1, 1));
        assert_eq!(trail.since.unwrap(), "2026-11-28T20:00:01.000Z");
    }

    #[test]
    fn a_host_without_a_trail_has_an_empty_one() {
        let mut config = Config::default();
        config.paths.log = "/nonexistent".into();
        assert_eq!(Trail::read(&config).unwrap(), Trail::default());
    }
}
