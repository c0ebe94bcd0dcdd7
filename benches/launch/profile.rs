//! Where the milliseconds of a launch go: the median time of each step, out of the audit trail of the launches that
//! were measured.

use std::collections::BTreeMap;
use std::path::Path;

use calico_mesos::task::report::steps::Step;
use serde_json::Value;

use super::figures::Figure;

/// Steps whose end waits for Docker's answer, of tasks in a container.
const OF_DOCKER: [Step; 3] = [Step::Created, Step::Waiting, Step::Started];

/// One app's launches.
#[derive(Default)]
pub struct Profile {
    steps: BTreeMap<&'static str, Figure>,
}

impl Profile {
    /// The launches of an app, after those of the warm-up.
    pub fn read(log: &Path, app: &str, warm_up: usize) -> Self {
        let text = std::fs::read_to_string(log.join("audit/tasks/current"))
            .expect("the executors wrote their steps");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let launches = lines.filter(|line| line["event"] == "launch" && line["app"] == app).skip(warm_up);
        let mut profile = Self::default();
        for launch in launches {
            for step in Step::ALL {
                if let Some(at) = launch["steps"][step.name()].as_f64() {
                    profile.steps.entry(step.name()).or_default().push(at);
                }
            }
        }
        profile
    }

    /// A line a step in the order of time: when it was done, and what it is.
    pub fn print(&self, title: &str, in_docker: bool) {
        println!("\n{title}, ms after the executor has the task");
        let mut steps: Vec<(&str, f64)> = self.steps.iter().map(|(name, at)| (*name, at.median())).collect();
        steps.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (name, at) in steps {
            let docker = in_docker && OF_DOCKER.iter().any(|step| step.name() == name);
            println!("{name:<14} {at:>8.1}{}", if docker { "  Docker" } else { "" });
        }
    }
}
