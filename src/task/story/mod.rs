//! Every Calico task of this host as an operator sees it, living or ended.
//!
//! ```text
//!  journal ──► living tasks, and those that wait for their teardown ──┐
//!  audit trail ──► launches, addresses, endings, also of ended tasks ─┴► Story ──► find    by id, app, address
//!                                                                          ├─────► facts   the host, Calico, Consul
//!                                                                          └─────► sandbox its output
//! ```
//!
//! Nothing here changes anything, and nothing but `facts` needs a service.

pub mod facts;
mod find;
mod sandbox;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::Config;
use crate::error::chain;
use crate::names::ContainerId;
use crate::task::channel::Ending;
use crate::task::network::holds;
use crate::task::record::journal::{self, Journal, JournalError, View};
use crate::task::record::published::{CommittedNote, Told};
use crate::task::report::trail::{Life, Trail};

pub use find::{find, NotFound};
pub use sandbox::{sandbox, Sandbox};

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoryPhase {
    /// Its launch is under way.
    Starting,
    Running,
    /// Its executor lives, and the audit trail does not go back to its launch.
    Alive,
    /// It is over, and its executor takes it down.
    Ending,
    /// Its executor is dead; the next cleaner takes it down.
    Waiting,
    Ended,
}

impl StoryPhase {
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Alive => "alive",
            Self::Ending => "ending",
            Self::Waiting => "waiting for teardown",
            Self::Ended => "ended",
        }
    }
}

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    pub container: ContainerId,
    /// Empty where only a cleaner has written about it.
    pub task: String,
    pub app: String,
    pub framework: String,
    pub state: StoryPhase,
    /// The addresses that it has; of an ended one, those that it had.
    pub addresses: Vec<IpAddr>,
    pub profiles: Vec<String>,
    /// None of an ended task.
    pub view: Option<View>,
    /// None where the audit trail has nothing of it.
    pub life: Option<Life>,
    /// What its health check says; none without a check, or without Consul.
    pub health: Option<String>,
}

/// All tasks that this host knows of.
#[derive(Debug, Default)]
pub struct Stories {
    /// First those that live, by their task ids; then the ended ones, the latest first.
    pub tasks: Vec<Story>,
    /// Files of the journal that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Files of the audit trail with lines that cannot be read, and how many.
    pub damaged: BTreeMap<PathBuf, usize>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    #[error("cannot list the tasks of this host: the journal and the audit trail are readable by root only; run this as root (sudo)")]
    NotRoot,
    #[error("cannot list the tasks of this host")]
    Journal(#[from] JournalError),
    #[error("cannot read the audit trail below {folder}")]
    Trail {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Stories {
    /// Reads journal and audit trail. A trail that cannot be read is an error only where ended tasks are wanted: what
    /// lives is in the journal.
    pub fn read(config: &Config, ended: bool) -> Result<Self, StoryError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(StoryError::NotRoot);
        }
        let mut stories = Self::default();
        // The journal first: a task that ends meanwhile has its last line in the trail.
        let views = stories.views(config)?;
        let alive: HashSet<ContainerId> = views.iter().map(|view| view.record.container.clone()).collect();
        let mut trail = match Trail::read_where(config, |container| ended || alive.contains(container)) {
            Ok(trail) => trail,
            Err(source) => {
                let error = StoryError::Trail { folder: config.paths.log.join("audit"), source };
                if ended {
                    return Err(error);
                }
                tracing::warn!("{}", chain(&error));
                Trail::default()
            }
        };
        stories.damaged = std::mem::take(&mut trail.damaged);
        let held = held(config);
        for view in views {
            let life = trail.lives.remove(&view.record.container);
            stories.tasks.push(living(config, view, life, trail.since.as_deref(), &held));
        }
        stories.tasks.sort_by(|one, other| one.task.cmp(&other.task));
        if ended {
            let mut over: Vec<Story> =
                trail.lives.into_iter().map(|(container, life)| over(container, life)).collect();
            over.sort_by(|one, other| newest(other).cmp(newest(one)));
            stories.tasks.extend(over);
        }
        Ok(stories)
    }

    /// Whether the journal of this host still has the task.
    pub fn lives(config: &Config, container: &ContainerId) -> bool {
        journal::path(&config.paths.journal(), container).exists()
    }

    fn views(&mut self, config: &Config) -> Result<Vec<View>, StoryError> {
        let folder = config.paths.journal();
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut views = Vec::new();
        for path in Journal::open(&folder)?.files()? {
            match View::of(&path)? {
                Some(Ok(view)) => views.push(view),
                Some(Err(why)) => self.unreadable.push((path, why)),
                None => {}
            }
        }
        Ok(views)
    }
}

/// The addresses that tasks of this host hold.
fn held(config: &Config) -> BTreeMap<ContainerId, Vec<IpAddr>> {
    let mut held: BTreeMap<ContainerId, Vec<IpAddr>> = BTreeMap::new();
    for link in holds::links(config) {
        let address = link.file_name().and_then(|name| name.to_str()?.parse().ok());
        let container = std::fs::read_link(&link).ok().and_then(|target| holds::container_of(&target));
        if let (Some(address), Some(container)) = (address, container) {
            held.entry(container).or_default().push(address);
        }
    }
    held
}

fn living(
    config: &Config,
    view: View,
    life: Option<Life>,
    since: Option<&str>,
    held: &BTreeMap<ContainerId, Vec<IpAddr>>,
) -> Story {
    let record = &view.record;
    let container = record.container.clone();
    let kept = CommittedNote::of(config, &container).read().map(|(kept, _)| kept);
    let mut tenures = life.iter().flat_map(|life| &life.addresses).filter(|its| its.returned.is_none());
    let told = Told::of(config, &container).read().map(|(services, _)| services).unwrap_or_default();
    let health = told.iter().find_map(|service| service.health.as_ref());
    Story {
        task: record.identity.task_id.clone(),
        app: record.identity.app.clone(),
        framework: record.framework.clone(),
        state: state(&view, life.as_ref(), since),
        addresses: match (&kept, held.get(&container)) {
            (Some(kept), _) => kept.addresses().collect(),
            (None, Some(held)) => held.clone(),
            // The host has rebooted since, or the task has given its addresses back.
            (None, None) if tenures.clone().next().is_none() => view.held.clone(),
            (None, None) => tenures.clone().map(|tenure| tenure.address).collect(),
        },
        profiles: match &kept {
            Some(kept) => kept.profiles().to_vec(),
            None => tenures.next_back().map(|tenure| tenure.profiles.clone()).unwrap_or_default(),
        },
        health: health.map(|health| if health.healthy { "healthy" } else { "unhealthy" }.to_owned()),
        container,
        life,
        view: Some(view),
    }
}

fn over(container: ContainerId, life: Life) -> Story {
    Story {
        container,
        task: life.task.clone(),
        app: life.app.clone(),
        framework: life.framework.clone(),
        state: StoryPhase::Ended,
        addresses: life.addresses.iter().map(|tenure| tenure.address).collect(),
        profiles: life.addresses.last().map(|tenure| tenure.profiles.clone()).unwrap_or_default(),
        view: None,
        health: None,
        life: Some(life),
    }
}

/// `since`: how far back the audit trail goes.
fn state(view: &View, life: Option<&Life>, since: Option<&str>) -> StoryPhase {
    let launched = life.and_then(|life| life.launch.as_ref());
    match (view.owned, &view.ending, launched) {
        (false, ..) => StoryPhase::Waiting,
        (true, Some(_), _) => StoryPhase::Ending,
        (true, None, Some(_)) => StoryPhase::Running,
        (true, None, None) if since.is_some_and(|since| seconds(since) <= seconds(&view.record.written)) => {
            StoryPhase::Starting
        }
        (true, None, None) => StoryPhase::Alive,
    }
}

/// A time of RFC 3339 without what stands behind its seconds.
fn seconds(time: &str) -> &str {
    time.get(.."2026-11-28T20:00:00".len()).unwrap_or(time)
}

impl Story {
    /// When it began, as far as that is known: RFC 3339.
    pub fn began(&self) -> Option<&str> {
        let given =
            || self.life.as_ref()?.addresses.iter().filter_map(|tenure| tenure.given.as_deref()).min();
        let launch = || self.life.as_ref()?.launch.as_ref().map(|launch| launch.time.as_str());
        self.view.as_ref().map(|view| view.record.written.as_str()).or_else(given).or_else(launch)
    }

    /// How it ended, and when.
    pub fn ending(&self) -> Option<(&Ending, Option<&str>)> {
        let concluded = self.view.as_ref().and_then(|view| view.ending.as_ref()).map(|ending| (ending, None));
        let told = || self.life.as_ref()?.ending().map(|(ending, time)| (ending, Some(time)));
        match &self.view {
            Some(view) if view.owned => concluded,
            _ => concluded.or_else(told),
        }
    }

    /// The release of its executor.
    pub fn version(&self) -> Option<&str> {
        let owner = self.view.as_ref().map(|view| view.record.owner.version.as_str());
        let part = || self.life.as_ref().and_then(|life| life.launch.as_ref().or(life.teardowns.last()));
        owner.or_else(|| part().map(|part| part.version.as_str()))
    }
}

fn newest(story: &Story) -> &str {
    story.life.as_ref().map_or("", Life::newest)
}

#[cfg(test)]
mod tests;
