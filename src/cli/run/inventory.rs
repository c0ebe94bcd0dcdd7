//! Lists what exists of some tasks in Consul, in etcd, in the kernel, in Docker and in our files.
//!
//! `run` makes the list while the tasks run and again when they have ended. It prints "left behind: nothing" only when
//! each of these places could be read and held nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::calico::{self, CalicoError, Datastore};
use crate::cli::output::count;
use crate::config::Config;
use crate::consul;
use crate::error::chain;
use crate::limits::RUN_LOOK;
use crate::names::ContainerId;
use crate::workload::{Docker, DockerError, DockerHost};

use super::task::RunTask;

/// The tasks to look for, and what is kept from one look to the next.
pub struct RunInventory<'a> {
    config: &'a Config,
    docker: &'a str,
    containers: Vec<ContainerId>,
    /// Docker's names of those that are its containers.
    names: Vec<String>,
    /// Addresses that endpoints of these tasks had, or that the tasks reported.
    addresses: BTreeSet<IpAddr>,
    /// Tasks without Calico are not looked for in etcd.
    calico: bool,
}

/// What a look found; every entry is a thing with its name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SeenOnHost {
    pub services: BTreeSet<String>,
    pub endpoints: BTreeSet<String>,
    pub veths: BTreeSet<String>,
    pub namespaces: BTreeSet<String>,
    pub addresses: BTreeSet<String>,
    pub containers: BTreeSet<String>,
    /// Journal records and volatile folders.
    pub others: BTreeSet<String>,
    /// Places that could not be looked at, and why.
    pub unknown: Vec<String>,
}

impl SeenOnHost {
    fn kinds(&self) -> [(&'static str, &BTreeSet<String>); 7] {
        [
            ("Consul entry", &self.services),
            ("endpoint", &self.endpoints),
            ("veth", &self.veths),
            ("namespace", &self.namespaces),
            ("address", &self.addresses),
            ("container", &self.containers),
            ("other", &self.others),
        ]
    }

    /// Adds what was seen at another time.
    pub fn add(&mut self, other: Self) {
        self.services.extend(other.services);
        self.endpoints.extend(other.endpoints);
        self.veths.extend(other.veths);
        self.namespaces.extend(other.namespaces);
        self.addresses.extend(other.addresses);
        self.containers.extend(other.containers);
        self.others.extend(other.others);
        self.unknown.extend(other.unknown);
    }

    /// `2 endpoints, 2 veths`: what is here and not in `rest`.
    pub fn without(&self, rest: &Self) -> String {
        let kinds = self.kinds().into_iter().zip(rest.kinds()).take(5);
        let counts = kinds.map(|((noun, all), (_, rest))| (all.difference(rest).count(), noun));
        counts
            .filter(|(number, _)| *number > 0)
            .map(|(number, noun)| count(number, noun))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// One entry a thing, for a list of what is left.
    pub fn list(&self) -> Vec<String> {
        let kinds = self.kinds().into_iter();
        let things = kinds.flat_map(|(noun, things)| {
            things
                .iter()
                .map(move |thing| if noun == "other" { thing.clone() } else { format!("{noun} {thing}") })
        });
        things.chain(self.unknown.iter().map(|why| format!("perhaps more: {why}"))).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.list().is_empty()
    }
}

impl<'a> RunInventory<'a> {
    pub fn new(config: &'a Config, docker: &'a str, calico: bool) -> Self {
        let addresses = BTreeSet::new();
        Self { config, docker, containers: Vec::new(), names: Vec::new(), addresses, calico }
    }

    /// Looks for everything that carries the name of one of the tasks. A task without a name has made nothing.
    pub async fn look(&mut self, tasks: &[RunTask]) -> SeenOnHost {
        self.containers = tasks.iter().filter_map(|task| task.container.clone()).collect();
        self.names = tasks.iter().filter_map(RunTask::container_name).collect();
        self.addresses.extend(tasks.iter().flat_map(|task| &task.addresses));
        let mut seen = SeenOnHost::default();
        if self.containers.is_empty() {
            return seen;
        }
        self.consul(&mut seen).await;
        if self.calico {
            self.datastore(&mut seen).await;
        }
        self.kernel(&mut seen);
        self.files(&mut seen);
        if !self.names.is_empty() {
            self.docker(&mut seen).await;
        }
        seen
    }

    /// Waits until every task is in Consul, or `limit` has passed: registration runs beside the task.
    pub async fn registered(&self, limit: Duration) -> bool {
        let begin = std::time::Instant::now();
        while begin.elapsed() < limit {
            let mut seen = SeenOnHost::default();
            self.consul(&mut seen).await;
            if self
                .containers
                .iter()
                .all(|container| seen.services.iter().any(|id| id.contains(container.as_str())))
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    async fn consul(&self, seen: &mut SeenOnHost) {
        if !self.config.consul.enabled {
            return;
        }
        let ask = async { consul::Client::new(self.config)?.services().await };
        match tokio::time::timeout(RUN_LOOK, ask).await {
            Ok(Ok(services)) => {
                let ids = services.into_iter().map(|service| service.id);
                seen.services = ids.filter(|id| self.is_ours(id)).collect();
            }
            Ok(Err(error)) => seen.unknown.push(format!("Consul: {}", chain(&error))),
            Err(_) => seen.unknown.push("Consul does not answer".into()),
        }
    }

    async fn datastore(&mut self, seen: &mut SeenOnHost) {
        match tokio::time::timeout(RUN_LOOK, self.ask_datastore(seen)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => seen.unknown.push(format!("etcd: {}", chain(&error))),
            Err(_) => seen.unknown.push("etcd does not answer".into()),
        }
    }

    /// Endpoints first; then every address that an endpoint of these tasks ever had, in its block.
    async fn ask_datastore(&mut self, seen: &mut SeenOnHost) -> Result<(), CalicoError> {
        let node = calico::node_name(self.config)?;
        let mut datastore = Datastore::connect(self.config).await?;
        for endpoint in datastore.list_endpoints(&node).await? {
            if self.is_ours(&endpoint.container_id) || self.is_ours(&endpoint.workload) {
                self.addresses.extend(endpoint.addresses);
                seen.endpoints.insert(endpoint.name);
            }
        }
        for address in &self.addresses {
            let holder = datastore.holder_of(*address).await?;
            if holder.and_then(|holder| holder.handle).is_some_and(|handle| self.is_ours(&handle)) {
                seen.addresses.insert(address.to_string());
            }
        }
        Ok(())
    }

    /// Links and namespaces.
    fn kernel(&self, seen: &mut SeenOnHost) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo");
        if let Err(error) = &mounts {
            seen.unknown.push(format!("mounts: {error}"));
        }
        let mounts = mounts.unwrap_or_default();
        // Not /sys/class/net, which shows the namespace that /sys was mounted in.
        let links = std::fs::read_to_string("/proc/self/net/dev");
        if let Err(error) = &links {
            seen.unknown.push(format!("links: {error}"));
        }
        let links = links.unwrap_or_default();
        for container in &self.containers {
            let link = container.interface();
            if links.lines().any(|line| line.split(':').next().map(str::trim) == Some(&*link)) {
                seen.veths.insert(link);
            }
            let path = self.config.paths.task_run(container).join("netns");
            let path = path.to_string_lossy();
            if mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*path)) {
                seen.namespaces.insert(path.into_owned());
            }
        }
    }

    fn files(&self, seen: &mut SeenOnHost) {
        let paths = &self.config.paths;
        for folder in [paths.journal(), paths.run.join("tasks"), paths.run.join("containers")] {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let target = std::fs::read_link(&path).unwrap_or_default();
                if self.is_ours(&path.to_string_lossy()) || self.is_ours(&target.to_string_lossy()) {
                    seen.others.insert(path.display().to_string());
                }
            }
        }
    }

    async fn docker(&self, seen: &mut SeenOnHost) {
        let ask = async {
            let docker = connect(self.docker, self.config).await?;
            let mut found = BTreeSet::new();
            for name in &self.names {
                match docker.inspect_once(name, RUN_LOOK).await {
                    Ok(_) => drop(found.insert(name.clone())),
                    Err(DockerError::NoContainer { .. }) => {}
                    Err(error) => return Err(chain(&error)),
                }
            }
            Ok::<_, String>(found)
        };
        match tokio::time::timeout(RUN_LOOK, ask).await {
            Ok(Ok(found)) => seen.containers = found,
            Ok(Err(why)) => seen.unknown.push(format!("Docker: {why}")),
            Err(_) => seen.unknown.push("Docker does not answer".into()),
        }
    }

    /// Removes the exited containers, as an agent does after its delay. What stays is seen by the next look.
    pub async fn remove_containers(&self) {
        if self.names.is_empty() {
            return;
        }
        let Ok(docker) = connect(self.docker, self.config).await else { return };
        for name in &self.names {
            let _ = tokio::time::timeout(RUN_LOOK, docker.remove(name, true)).await;
        }
    }

    fn is_ours(&self, text: &str) -> bool {
        self.containers.iter().any(|container| text.contains(container.as_str()))
    }
}

async fn connect(host: &str, config: &Config) -> Result<Docker, String> {
    let host = DockerHost::parse(host).map_err(|error| chain(&error))?;
    Docker::connect_with(&host, config.docker.tls(), "").await.map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(things: &[&str]) -> BTreeSet<String> {
        things.iter().map(|thing| (*thing).to_owned()).collect()
    }

    #[test]
    fn removed_and_remaining_things_are_listed_apart() {
        let before = SeenOnHost {
            services: set(&["a", "b"]),
            veths: set(&["cali1", "cali2"]),
            containers: set(&["mesos-1"]),
            ..SeenOnHost::default()
        };
        let after = SeenOnHost {
            veths: set(&["cali2"]),
            unknown: vec!["etcd: away".into()],
            ..SeenOnHost::default()
        };
        assert_eq!(before.without(&after), "2 Consul entries, 1 veth");
        assert_eq!(after.list(), ["veth cali2", "perhaps more: etcd: away"]);
        assert!(!after.is_empty() && SeenOnHost::default().is_empty());
    }
}
