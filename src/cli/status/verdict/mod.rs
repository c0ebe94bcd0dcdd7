//! From facts to verdicts: pure, a function a part of the host.

mod bgp;
mod datastore;
mod felix;
mod pools;

use std::collections::BTreeMap;

use serde_json::{json, Value};

use super::draft::{some, Draft, StatusCheck};
use super::facts::{AgentFacts, DockerFacts, HostFacts, TaskFacts};
use crate::cli::output::count;

/// Percent of the quota, and of a pool's addresses, from which on there is something to do.
const NEARLY_FULL: u64 = 80;
const FULL: u64 = 95;

/// All verdicts, in the order in which they are printed.
pub fn all(facts: &HostFacts) -> Vec<StatusCheck> {
    let store = facts.store.as_ref().ok();
    let mut checks = vec![
        node(facts),
        datastore::datastore(&facts.store, facts.now),
        felix::felix(facts, store),
        felix::policy(facts),
        bgp::bgp(facts, store),
        docker(&facts.docker),
        consul(facts.consul.as_ref()),
        agent(&facts.agents),
        tasks(&facts.tasks),
    ];
    checks.extend(pools::pools(facts));
    checks
}

/// This host as Calico has it.
pub fn node(facts: &HostFacts) -> StatusCheck {
    let mut draft = Draft::default();
    let node = &facts.node;
    draft.say(format!("Calico node {}", node.name));
    let mut known = Value::Null;
    if let Ok(store) = &facts.store {
        match &store.record {
            Some(record) => {
                let addresses = [&record.ipv4, &record.ipv6].into_iter().flatten();
                addresses.for_each(|address| draft.say(address.clone()));
                known = json!(true);
            }
            None => {
                known = json!(false);
                draft.fail(
                    "the datastore has no Node of this name: no address can be assigned here",
                    "start calico/node on this host, or run `calico-mesos node init`; node.name in config.toml must be the name that calico/node uses",
                );
            }
        }
        match &store.cluster {
            None => draft.fail(
                "the datastore has no ClusterInformation",
                "start calico/node once in this cluster, or run `calico-mesos node init`",
            ),
            Some(cluster) => {
                if !cluster.guid.is_empty() {
                    draft.say(format!("cluster {}", cluster.guid));
                }
                match cluster.ready {
                    Some(true) => {}
                    Some(false) => draft.fail(
                        "the datastore is locked: no task can start",
                        "unlock it when the work on it is done: calicoctl datastore migrate unlock",
                    ),
                    None => draft.fail(
                        "ClusterInformation lacks datastoreReady: no task can start",
                        "start calico/node once in this cluster, or run any `calicoctl apply`",
                    ),
                }
            }
        }
    }
    draft.done("node", json!({ "name": node.name, "host": node.host, "in_datastore": known }))
}

/// Docker and its runtime `calico`.
pub fn docker(docker: &Result<DockerFacts, String>) -> StatusCheck {
    let mut draft = Draft::default();
    let docker = match docker {
        Ok(docker) => docker,
        Err(why) => {
            draft.fail(
                why.clone(),
                "start Docker (systemctl start docker) and look at its log (journalctl -u docker); until it answers only commands can start",
            );
            return draft.done("docker", json!({ "error": why }));
        }
    };
    draft.say(docker.version.clone());
    let install = "run `calico-mesos node install-runtime --reload`";
    let version = if docker.ours { concat!(" ", env!("CARGO_PKG_VERSION")) } else { "" };
    match (&docker.runtime, &docker.fault, &docker.file) {
        (None, _, Some((file, Some(program)))) => draft.fail(
            format!("no runtime calico, though {} names {program}: dockerd has not read it", file.display()),
            "make dockerd read it: kill -HUP its pid, or run `calico-mesos node install-runtime --reload`",
        ),
        (None, ..) => draft.fail("it has no runtime calico: no container with Calico can start", install),
        (Some(path), Some(fault), _) => draft.fail(format!("runtime calico > {path}: {fault}"), install),
        (Some(path), None, Some((file, Some(program)))) if program != path => draft.warn(
            format!("runtime calico > {path}, but {} names {program}", file.display()),
            "make dockerd read the file again: kill -HUP its pid",
        ),
        (Some(path), None, Some((file, None))) => draft.warn(
            format!(
                "runtime calico > {path}, but not in {}: it is lost with dockerd's next start",
                file.display()
            ),
            install,
        ),
        (Some(path), None, _) => draft.say(format!("runtime calico > {path}{version}")),
    }
    draft.done(
        "docker",
        json!({
            "version": docker.version, "runtime": docker.runtime,
            "file": docker.file.as_ref().map(|(file, _)| file),
            "file_runtime": docker.file.as_ref().and_then(|(_, program)| program.clone()),
        }),
    )
}

/// Consul's agent on this host.
pub fn consul(consul: Option<&Result<usize, String>>) -> StatusCheck {
    let mut draft = Draft::default();
    match consul {
        None => draft.say("not used: consul.enabled is false"),
        Some(Ok(entries)) => draft.say(match entries {
            1 => "1 entry of Calico tasks".to_owned(),
            entries => format!("{entries} entries of Calico tasks"),
        }),
        Some(Err(why)) => draft.fail(
            why.clone(),
            "start Consul's agent (systemctl start consul), or set consul.enabled = false; until it answers tasks run without a name",
        ),
    }
    let entries = consul.and_then(|consul| consul.as_ref().ok());
    draft.done("consul", json!({ "enabled": consul.is_some(), "entries": entries }))
}

/// How the Mesos agents of this host start their executors.
pub fn agent(agents: &[AgentFacts]) -> StatusCheck {
    let mut draft = Draft::default();
    if agents.is_empty() {
        draft.warn(
            "no Mesos agent runs on this host, or its process cannot be seen from here",
            "start the agent with the flags that `calico-mesos node install` prints",
        );
    }
    for AgentFacts { agent, wired } in agents {
        let dir = agent.launcher_dir.as_ref().map(|dir| dir.display().to_string());
        match (wired, dir) {
            (true, Some(dir)) => draft.say(format!("pid {}, launches from {dir}", agent.pid)),
            (_, dir) => draft.warn(
                format!("pid {} launches from {}: only custom executors of ours get Calico", agent.pid, dir.unwrap_or_else(|| "Mesos' own folder".to_owned())),
                "restart it with the flags that `calico-mesos node install` prints, unless all apps name calico-executor as their executor",
            ),
        }
        let docker = |list: &String| list.split(',').any(|name| name.trim() == "docker");
        if agent.containerizers.as_ref().is_none_or(|list| !docker(list)) {
            draft.warn(
                format!("pid {} has no --containerizers=docker,…", agent.pid),
                "without it the agent starts no Docker task: --containerizers=docker,mesos",
            );
        }
    }
    let list: Vec<Value> = agents
        .iter()
        .map(|AgentFacts { agent, wired }| {
            json!({ "pid": agent.pid, "launcher_dir": agent.launcher_dir, "wired": wired, "work_dir": agent.work_dir })
        })
        .collect();
    draft.done("agent", json!({ "agents": list }))
}

/// The journal.
pub fn tasks(tasks: &Result<TaskFacts, String>) -> StatusCheck {
    let mut draft = Draft::default();
    let tasks = match tasks {
        Ok(tasks) => tasks,
        Err(why) => {
            draft.warn(why.clone(), "run status as root: the journal is root's");
            return draft.done("tasks", json!({ "error": why }));
        }
    };
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    tasks.living.iter().for_each(|task| *versions.entry(&task.version).or_default() += 1);
    let by_version: Vec<String> =
        versions.iter().rev().map(|(version, number)| format!("{number} on {version}")).collect();
    draft.say(match by_version.is_empty() {
        true => "0 running".to_owned(),
        false => format!("{} running: {}", tasks.living.len(), by_version.join(", ")),
    });
    match tasks.dead.len() {
        0 => draft.say("0 waiting for teardown"),
        number => draft.warn(
            format!("{number} waiting for teardown: {}", some(&tasks.dead)),
            "the next `calico-mesos gc` removes what they left; install its timer: calico-mesos node install-timer",
        ),
    }
    if !tasks.unreadable.is_empty() {
        draft.warn(
            format!(
                "{} that this release cannot read: {}",
                count(tasks.unreadable.len(), "record"),
                some(&tasks.unreadable)
            ),
            "`calico-mesos gc` of the release that wrote them reads them; move files that are not the journal's out of its folder",
        );
    }
    draft.done(
        "tasks",
        json!({
            "running": tasks.living.len(), "by_version": versions,
            "waiting_for_teardown": tasks.dead.len(), "unreadable": tasks.unreadable.len(),
        }),
    )
}

#[cfg(test)]
mod tests;
