//! Looks for everything of tasks on this host, in Calico, in Docker and in Consul.
//!
//! The order of the looks makes the comparison possible. An executor writes its journal record before it makes
//! anything, and removes the record when nothing is left. So what the survey has seen belongs to no task if it had no
//! record before everything else was looked at and has none afterwards.
//!
//! The survey reads those of Calico's blocks that belong to this node, and all blocks once an hour; see `borrowed.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::calico::{self, CalicoError, Datastore, Inventory};
use crate::config::Config;
use crate::consul::{self, Service};
use crate::error::chain;
use crate::host::processes::boot_id;
use crate::names::{ContainerId, ORCHESTRATOR};
use crate::net::{self, forward, netns, Namespace};
use crate::task::network;
use crate::task::network::holds;
use crate::task::record::journal::{Journal, JournalError, Peeked};
use crate::task::record::published::Told;
use crate::task::request::{CONTAINER_PREFIX, RUNTIME};
use crate::workload::{ContainerState, Docker, DockerHost};

use super::forget::GoneDocker;
use super::seen::{Death, Folder, SeenContainer, SeenRecord, Survey};
use super::{adopted, borrowed};

impl Survey {
    /// Looks at everything. Only a journal that cannot be read is an error, and a node without a name.
    pub async fn take(config: &Config, gone: Option<&GoneDocker>) -> Result<Self, SurveyError> {
        let mut survey = Self::new(calico::node_name(config).map_err(SurveyError::Node)?);
        survey.before = files(config)?.iter().filter_map(|path| container_of(path)).collect();
        survey.journal_since = journal_since(&config.paths.journal());
        survey.calico(config).await;
        survey.consul(config).await;
        survey.folders(config);
        let dockers = survey.journal(config, gone)?;
        survey.docker(dockers, config).await;
        // After all that shows containers: one of another configuration is known by its interface alone.
        survey.kernel(config).await;
        // The records say which Dockers there are, so they were read before; a launch that began meanwhile has
        // its record by now.
        survey.journal(config, gone)?;
        survey.told(config);
        survey.lacking(config).await;
        Ok(survey)
    }

    async fn calico(&mut self, config: &Config) {
        let node = self.node.clone();
        let known = borrowed::known(config);
        let look = async {
            let mut datastore = Datastore::connect(config).await?;
            match &known {
                Some(blocks) => datastore.inventory(&node, blocks).await,
                None => datastore.whole_inventory(&node).await,
            }
        };
        let seen: Result<Inventory, CalicoError> = look.await;
        match seen {
            Ok(inventory) => {
                self.borrowed = known.is_none().then(|| borrowed::of(&inventory, &node));
                self.sort(inventory);
            }
            Err(error) => self.cannot("Calico", true, chain(&error)),
        }
    }

    async fn consul(&mut self, config: &Config) {
        if !config.consul.enabled {
            return;
        }
        let look = async { consul::Client::new(config)?.services().await };
        let seen: Result<Vec<Service>, consul::ConsulError> = look.await;
        match seen {
            Ok(services) => {
                for service in services {
                    if let Some(container) = service.container() {
                        self.trace(container).services.push(service);
                    }
                }
            }
            Err(error) => self.cannot("Consul", false, chain(&error)),
        }
    }

    async fn kernel(&mut self, config: &Config) {
        match net::purposes().await {
            Ok(purposes) => {
                for (name, purpose) in &purposes {
                    let Some(purpose) = purpose else { continue };
                    let container = container_of(Path::new(purpose)).filter(|container| {
                        *purpose == network::purpose(config, container) && *name == container.interface()
                    });
                    if let Some(container) = container {
                        self.trace(container).veth = Some(name.clone());
                    }
                }
                // It belongs to another configuration of this host, or to a release that wrote no purpose.
                for (container, trace) in &mut self.traces {
                    let name = container.interface();
                    if purposes.contains_key(&name) {
                        trace.veth = Some(name);
                    }
                }
            }
            Err(error) => self.cannot("interfaces", true, chain(&error)),
        }
        match forward::all().await {
            Ok(all) => {
                for (container, mappings) in all {
                    // The table is shared by all configurations of this host: where there is an interface that
                    // is not of this one, there may be a task.
                    let ours = self.traces.get(&container).is_some_and(|trace| trace.veth.is_some());
                    if ours || !net::exists(&container.interface()).await.unwrap_or(true) {
                        self.trace(container).ports = mappings;
                    }
                }
            }
            Err(error) => self.cannot("forwarded ports", false, chain(&error)),
        }
    }

    fn folders(&mut self, config: &Config) {
        let inhabited = netns::inhabited();
        for path in entries(&config.paths.run.join("tasks")) {
            let Some(container) = container_of(&path).filter(|_| path.is_dir()) else { continue };
            let namespace = Namespace::open(&network::namespace(config, &container)).ok();
            self.trace(container).folder = Some(Folder {
                made: fs::metadata(&path).and_then(|meta| meta.created().or_else(|_| meta.modified())).ok(),
                bound: namespace.is_some(),
                inhabited: namespace.is_some_and(|namespace| inhabited.contains(&namespace.inode())),
                path,
            });
        }
        for link in entries(&config.paths.run.join("containers")).into_iter().chain(holds::links(config)) {
            let target = fs::read_link(&link).ok();
            let container = target.as_deref().and_then(container_of);
            if let Some(container) = container.filter(|_| !link.exists()) {
                self.trace(container).dangling.push(link);
            }
        }
    }

    /// Reads the records anew; the Dockers that have to be asked.
    fn journal(
        &mut self,
        config: &Config,
        gone: Option<&GoneDocker>,
    ) -> Result<BTreeSet<String>, SurveyError> {
        (self.records, self.strangers) = Default::default();
        let boot = boot_id();
        let mut dockers = BTreeSet::new();
        for path in files(config)? {
            let Some(peeked) = Journal::peek(&path).map_err(SurveyError::Journal)? else { continue };
            let seen = match peeked {
                Peeked::Owned(record) => SeenRecord::Living(record),
                Peeked::Orphan(record) if adopted::lives(config, &record) => SeenRecord::Living(Some(record)),
                Peeked::Orphan(record) => {
                    let death = match (record.owner.boot_id == boot, record.owner.lives()) {
                        (false, _) => Death::Rebooted,
                        (true, true) => Death::LetGo,
                        (true, false) => Death::Died,
                    };
                    SeenRecord::Dead(record, death)
                }
                Peeked::Unreadable { why } => SeenRecord::Unreadable(why),
            };
            match &seen {
                SeenRecord::Dead(record, _) if gone.is_some_and(|gone| gone.is_named_by(record)) => {}
                SeenRecord::Living(Some(record)) | SeenRecord::Dead(record, _) => {
                    dockers.extend(record.backing.docker().map(str::to_owned))
                }
                _ => {}
            }
            match (container_of(&path), seen) {
                (Some(container), seen) => {
                    self.records.insert(container, seen);
                }
                (None, SeenRecord::Unreadable(why)) => self.strangers.push((path, why)),
                (None, _) => self.strangers.push((path, "its name is not that of a container".into())),
            }
        }
        let usual = usual(config);
        // It backs nothing any more, even where the configuration names it still.
        if gone.is_some_and(|gone| gone.is_at(&usual)) {
            return Ok(dockers);
        }
        // A host without Docker runs commands alone.
        if dockers.is_empty() && config.docker.host.is_none() && !is_there(&usual) {
            return Ok(dockers);
        }
        dockers.insert(usual);
        Ok(dockers)
    }

    async fn docker(&mut self, dockers: BTreeSet<String>, config: &Config) {
        for address in dockers {
            let Err(why) = self.ask_docker(&address, config).await else { continue };
            let hint = match address == usual(config) {
                true => String::new(),
                false => format!(
                    "; if that Docker is gone for good, `calico-mesos gc --forget-docker {address}` finishes the \
                     records that name it"
                ),
            };
            self.cannot("Docker", true, why + &hint);
        }
    }

    async fn ask_docker(&mut self, address: &str, config: &Config) -> Result<(), String> {
        let host = DockerHost::parse(address).map_err(|error| chain(&error))?;
        let docker =
            Docker::connect_with(&host, config.docker.tls(), "").await.map_err(|error| chain(&error))?;
        for listed in docker.containers().await.map_err(|error| chain(&error))? {
            // One that was made through the proxy goes by Docker's id, whatever a client calls it, and is never ours to
            // stop or to remove.
            if config.paths.binding(&listed.id).exists() {
                continue;
            }
            let Some(container) = container_named(&listed.name) else { continue };
            let mut state = listed.state;
            let has_record = self.records.contains_key(&container) || self.before.contains(&container);
            if !has_record {
                // It has ended, and is the agent's to remove; or it is not ours.
                if listed.state == ContainerState::Exited || !listed.isolated {
                    continue;
                }
                // Ours by its runtime; not asked for the others, some of which may stand at their gates.
                match docker.look_at(&listed).await.map_err(|error| chain(&error))? {
                    Some((runtime, seen)) if runtime == RUNTIME => state = seen,
                    _ => continue,
                }
            }
            self.trace(container).container = Some(SeenContainer {
                docker: address.to_owned(),
                name: listed.name,
                state,
                created: listed.created,
            });
        }
        Ok(())
    }

    fn told(&mut self, config: &Config) {
        let living = self.records.iter().filter(|(_, seen)| matches!(seen, SeenRecord::Living(_)));
        for container in living.map(|(container, _)| container.clone()).collect::<Vec<_>>() {
            // What is younger than the survey may have reached Consul after Consul was asked.
            let told = Told::of(config, &container).read().filter(|(_, noted)| *noted < self.now);
            if let Some((services, _)) = told {
                self.trace(container).told = services;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    #[error("cannot tell which node of Calico this is")]
    Node(#[source] CalicoError),
    #[error("cannot look through the journal")]
    Journal(#[source] JournalError),
}

/// The journal's files; none when there is no journal.
fn files(config: &Config) -> Result<Vec<PathBuf>, SurveyError> {
    let folder = config.paths.journal();
    if !folder.exists() {
        return Ok(Vec::new());
    }
    Journal::open(&folder).and_then(|journal| journal.files()).map_err(SurveyError::Journal)
}

/// Since when the folder has been there, as far as its file system shows; in whole seconds, like the times that it
/// is compared with: a host's first task makes it.
fn journal_since(folder: &Path) -> Option<SystemTime> {
    let made = fs::metadata(folder).and_then(|meta| meta.created()).ok()?;
    let since = made.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()))
}

/// The container that a file or folder is named after.
fn container_of(path: &Path) -> Option<ContainerId> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".json").unwrap_or(name);
    ContainerId::parse(name).ok().filter(|container| container.as_str() == name)
}

/// `mesos-<id>`, of agents before 1.4 `mesos-<agent id>.<id>`, and what custom executors call theirs.
fn container_named(name: &str) -> Option<ContainerId> {
    let given_by_agent = || name.strip_prefix(ORCHESTRATOR)?.strip_prefix('-')?.rsplit('.').next();
    let id = name.strip_prefix(CONTAINER_PREFIX).or_else(given_by_agent)?;
    ContainerId::parse(id).ok().filter(|container| container.as_str() == id)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// The Docker that tasks of this host use when nothing else is said.
fn usual(config: &Config) -> String {
    config.docker.host.clone().unwrap_or_else(|| DockerHost::DEFAULT.to_owned())
}

fn is_there(address: &str) -> bool {
    address.strip_prefix("unix://").is_none_or(|path| Path::new(path).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_known_by_their_names() {
        let id = "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d";
        let named = |name: &str| container_named(name).map(|container| container.to_string());
        assert_eq!(named(&format!("mesos-{id}")).as_deref(), Some(id));
        assert_eq!(named(&format!("mesos-20150101-1-S0.{id}")).as_deref(), Some(id));
        assert_eq!(
            named(&crate::task::request::container_name(&ContainerId::parse(id).unwrap())).as_deref(),
            Some(id)
        );
        for other in [
            "web",
            "mesos-web",
            id,
            &format!("k8s-{id}"),
            &format!("mesos-{}", id.to_uppercase()),
            &format!("calico-mesos-S0.{id}"),
        ] {
            assert_eq!(named(other), None, "{other}");
        }
        assert_eq!(container_of(Path::new(&format!("/a/{id}.json"))).unwrap().as_str(), id);
        assert_eq!(container_of(Path::new("/a/notes.txt")), None);
    }
}
