//! Reads the facts. Each part has its own time limit, and none needs another: with the datastore away the rest is read.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::timeout;

use crate::calico::{self, CalicoError, Datastore, Identity, Object};
use crate::cli::node::{agents, launcher_folder};
use crate::cli::session::Session;
use crate::cli::{programs, runtime};
use crate::config::{Config, Dataplane, PolicyWait};
use crate::consul;
use crate::error::chain;
use crate::host::processes::{all_are_seen, command_line, pids, Stat};
use crate::limits::STATUS_LOOK;
use crate::net;
use crate::task::record::journal::View;
use crate::task::story::{Stories, Story, StoryPhase};
use crate::workload::{Docker, DockerHost};

use super::bird;
use super::damage;
use super::facts::{
    AgentFacts, ClusterFacts, DockerFacts, FelixFacts, HostFacts, NodeFacts, NodeRecord, PoolFacts,
    StoreFacts, TaskFact, TaskFacts,
};

/// `USER_HZ`, the unit of start times: 100 on every architecture that Docker runs on.
const TICKS: f64 = 100.0;
/// Calico's AS number where none is set.
const DEFAULT_AS: &str = "64512";

/// Reads everything.
pub async fn facts(session: &Session) -> HostFacts {
    let config = &session.config;
    let name = calico::node_name(config).unwrap_or_else(|error| chain(&error));
    let run = config.paths.endpoint_status.parent().unwrap_or(Path::new("/")).to_owned();
    let (v4, v6) = (run.join("bird.ctl"), run.join("bird6.ctl"));
    let agents = agents();
    let (store, tasks, filters, bird, bird6, docker, consul) = tokio::join!(
        store(config, &name),
        tasks(config),
        filters(),
        bird::ask(&v4),
        bird::ask(&v6),
        docker(config, &agents),
        consul(config),
    );
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    HostFacts {
        now: SystemTime::now(),
        node: NodeFacts {
            host,
            name,
            origin: session.origin.to_string(),
            local: config.node.dataplane == Dataplane::Local,
            policy_required: config.policy.wait == PolicyWait::Required,
        },
        store,
        felix: FelixFacts {
            process: felix(),
            all_seen: all_are_seen(),
            filters,
            folder: config.paths.endpoint_status.clone(),
            folder_exists: config.paths.endpoint_status.is_dir(),
        },
        tasks,
        bird,
        bird6,
        docker,
        consul,
        agents,
        mtu: net::mtu(config),
    }
}

async fn store(config: &Config, node: &str) -> Result<StoreFacts, String> {
    let read = async {
        let mut datastore = Datastore::connect(config).await?;
        read_store(&mut datastore, node).await
    };
    match timeout(STATUS_LOOK, read).await {
        Ok(result) => result.map_err(|error: CalicoError| chain(&error)),
        Err(_) => Err(format!(
            "etcd at {} does not answer within {} s",
            config.etcd.endpoints.join(", "),
            STATUS_LOOK.as_secs()
        )),
    }
}

async fn read_store(datastore: &mut Datastore, node: &str) -> Result<StoreFacts, CalicoError> {
    let health = datastore.health(node).await?;
    let mut damaged = damage::keys(datastore).await?;
    let mut found = Vec::new();
    for kind in damage::READ {
        found.push(damage::read(datastore, kind, &mut damaged).await?);
    }
    let [cluster, nodes, pools, bgp, felix] = <[Vec<Object>; 5]>::try_from(found).unwrap_or_default();
    let usage = datastore.usage().await?;
    let mode = |name: &str, field: &str| {
        let pool = pools.iter().find(|pool| pool.name == name);
        let mode = pool.and_then(|pool| text(&pool.value, &format!("/spec/{field}")));
        mode.is_some_and(|mode| mode != "Never" && !mode.is_empty())
    };
    let default = |objects: &[Object]| objects.iter().find(|object| object.name == "default").cloned();
    let global_as = default(&bgp).and_then(|object| number(&object.value, "/spec/asNumber"));
    let own = |object: &Object| record(&object.value, global_as.clone());
    let felix_routes = felix
        .iter()
        .filter(|object| object.name == "default" || object.name == format!("node.{node}"))
        .any(|object| text(&object.value, "/spec/programClusterRoutes").as_deref() == Some("Enabled"));
    // A pool that Calico cannot read has no usage.
    damaged.extend(
        pools
            .iter()
            .filter(|pool| !usage.iter().any(|usage| usage.name == pool.name))
            .map(|pool| pool.key().to_owned()),
    );
    Ok(StoreFacts {
        health,
        cluster: default(&cluster).map(|object| clusters(&object.value)),
        record: nodes.iter().find(|object| object.name == node).map(own),
        nodes: nodes.len(),
        pools: usage
            .into_iter()
            .map(|usage| PoolFacts {
                vxlan: mode(&usage.name, "vxlanMode"),
                ipip: mode(&usage.name, "ipipMode"),
                usage,
            })
            .collect(),
        felix_routes,
        damaged: damaged.into_iter().collect(),
    })
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// AS numbers are numbers, or text such as `1.10`.
fn number(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn clusters(value: &Value) -> ClusterFacts {
    ClusterFacts {
        guid: text(value, "/spec/clusterGUID").unwrap_or_default(),
        version: text(value, "/spec/calicoVersion").map(|version| version.trim_start_matches('v').to_owned()),
        ready: value.pointer("/spec/datastoreReady").and_then(Value::as_bool),
    }
}

fn record(value: &Value, global_as: Option<String>) -> NodeRecord {
    let own = number(value, "/spec/bgp/asNumber");
    NodeRecord {
        ipv4: text(value, "/spec/bgp/ipv4Address"),
        ipv6: text(value, "/spec/bgp/ipv6Address"),
        inherited: own.is_none(),
        as_number: own.or(global_as).unwrap_or_else(|| DEFAULT_AS.to_owned()),
    }
}

async fn tasks(config: &Config) -> Result<TaskFacts, String> {
    let stories = Stories::read(config, false).map_err(|error| chain(&error))?;
    let mut facts = TaskFacts::default();
    for story in &stories.tasks {
        match (&story.view, story.state) {
            (_, StoryPhase::Waiting) => facts.dead.push(story.task.clone()),
            (Some(view), _) => facts.living.push(fact(config, story, view).await),
            (None, _) => {}
        }
    }
    facts.unreadable = stories.unreadable.iter().map(|(path, _)| path.display().to_string()).collect();
    Ok(facts)
}

async fn fact(config: &Config, story: &Story, view: &View) -> TaskFact {
    let identity: &Identity = &view.record.identity;
    let mut routed = true;
    for address in &story.addresses {
        routed &= net::has_host_route(&identity.interface, *address).await.unwrap_or(false);
    }
    TaskFact {
        id: identity.task_id.clone(),
        version: view.record.owner.version.clone(),
        settled: matches!(story.state, StoryPhase::Running | StoryPhase::Alive),
        routed,
        reported: calico::endpoint_status_file(config, identity).exists(),
    }
}

/// Rules are shown to root only.
async fn filters() -> Option<Result<net::Filters, String>> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    Some(net::filters().await.map_err(|error| chain(&error)))
}

/// The Felix of this network namespace, and how long it has lived. A container of another network may call its
/// programs what it likes.
fn felix() -> Option<(i32, Duration)> {
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    let same = |pid: i32| match fs::read_link(format!("/proc/{pid}/ns/net")) {
        Ok(theirs) => theirs == own,
        // Hidden from all but root.
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    let pid = pids().find(|pid| command_line(*pid).is_some_and(|words| is_felix(&words)) && same(*pid))?;
    Some((pid, age(pid).unwrap_or_default()))
}

/// `calico-felix`, `calico-node -felix`, or since 3.32 `calico component felix`.
fn is_felix(words: &[String]) -> bool {
    let Some((program, words)) = words.split_first() else { return false };
    match Path::new(program).file_name().and_then(|name| name.to_str()) {
        Some("calico-felix") => true,
        Some("calico-node" | "calico") => words.iter().any(|word| word.trim_start_matches('-') == "felix"),
        _ => false,
    }
}

/// How long a process has lived.
pub fn age(pid: i32) -> Option<Duration> {
    let begun = Stat::of(pid)?.start_time()? as f64 / TICKS;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs_f64((uptime - begun).max(0.0)))
}

/// The daemon that the commands of this shell mean.
pub fn docker_host<'a>(
    config: &Config,
    mut agents: impl Iterator<Item = &'a agents::FoundAgent>,
) -> Result<DockerHost, String> {
    let variable = std::env::var("DOCKER_HOST").ok().filter(|value| !value.is_empty());
    let address = variable
        .or_else(|| config.docker.host.clone())
        .or_else(|| agents.find_map(|agent| agent.docker_socket.clone()));
    let host = DockerHost::parse(address.as_deref().unwrap_or(DockerHost::DEFAULT));
    host.map_err(|error| chain(&error))
}

async fn docker(config: &Config, agents: &[AgentFacts]) -> Result<DockerFacts, String> {
    let host = docker_host(config, agents.iter().map(|facts| &facts.agent))?;
    let ask = async {
        let docker =
            Docker::connect_with(&host, config.docker.tls(), "").await.map_err(|error| chain(&error))?;
        let runtimes = docker.runtimes().await.map_err(|error| chain(&error))?;
        Ok::<_, String>((docker.version().to_owned(), runtimes.get(crate::names::RUNTIME).cloned()))
    };
    let limit = STATUS_LOOK;
    let asked = timeout(limit, ask).await;
    let (version, program) =
        asked.map_err(|_| format!("Docker at {host} does not answer within {} s", limit.as_secs()))??;
    Ok(DockerFacts {
        version,
        fault: program.as_deref().and_then(fault),
        ours: program.as_ref().is_some_and(|path| is_ours(path)),
        runtime: program,
        file: registered(&host),
    })
}

/// What is wrong with the runtime's program. A name without a path is looked for by dockerd itself.
fn fault(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => None,
        Ok(_) => Some("it is not a program".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn is_ours(path: &str) -> bool {
    let real = fs::canonicalize(path).ok();
    real.is_some() && real == programs::runtime().ok()
}

/// The configuration file of the daemon that runs here, and the program that it names.
fn registered(host: &DockerHost) -> Option<(PathBuf, Option<String>)> {
    let daemons = runtime::running_daemons();
    // With several daemons it is open which one was asked.
    let [daemon] = daemons.as_slice() else { return None };
    if !matches!(host, DockerHost::Unix(_))
        || daemon.runtimes.iter().any(|name| name == crate::names::RUNTIME)
    {
        return None;
    }
    let text = fs::read_to_string(&daemon.config).unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    Some((daemon.config.clone(), self::text(&json, "/runtimes/calico/path")))
}

async fn consul(config: &Config) -> Option<Result<usize, String>> {
    if !config.consul.enabled {
        return None;
    }
    let ask = async {
        let client = consul::Client::new(config)?;
        client.services().await
    };
    let services = match timeout(STATUS_LOOK, ask).await {
        Ok(services) => services.map_err(|error| chain(&error)),
        Err(_) => Err(format!("Consul at {} does not answer", config.consul.address)),
    };
    Some(services.map(|list| list.iter().filter(|service| service.container().is_some()).count()))
}

fn agents() -> Vec<AgentFacts> {
    let wired = |dir: &PathBuf| launcher_folder::source_of(dir).ok().flatten().is_some();
    let fact = |agent: agents::FoundAgent| AgentFacts {
        wired: agent.launcher_dir.as_ref().is_some_and(wired),
        agent,
    };
    agents::running().into_iter().map(fact).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn felix_is_recognised_by_its_command_line() {
        let is = |line: &str| is_felix(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(is("/usr/bin/calico-felix") && is("calico-node -felix") && is("calico component felix"));
        assert!(!is("calico-node -confd") && !is("vi calico-felix") && !is("calico"));
    }

    #[test]
    fn records_of_any_shape_are_read() {
        let node = json!({"spec": {"bgp": {"ipv4Address": "10.0.0.17/24", "asNumber": 65001}}});
        let read = record(&node, Some("64999".to_owned()));
        assert_eq!(
            (read.ipv4.as_deref(), read.as_number.as_str(), read.inherited),
            (Some("10.0.0.17/24"), "65001", false)
        );
        let read = record(&json!({"spec": {"bgp": []}}), None);
        assert_eq!((read.as_number.as_str(), read.inherited, read.ipv4), ("64512", true, None));
        let cluster = clusters(&json!({"spec": {"calicoVersion": "v3.29.7", "datastoreReady": "yes"}}));
        assert_eq!(cluster, ClusterFacts { version: Some("3.29.7".into()), ..ClusterFacts::default() });
    }

    #[test]
    fn this_process_has_an_age() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(age(own).unwrap() < Duration::from_secs(24 * 3600));
    }
}
