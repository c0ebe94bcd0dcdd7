//! Every app definition in `marathon-examples/`, run for real: is it what its line in the README says?
//!
//! [`examples!`] makes a test of each file: the embedded agent launches it through the real executor, the
//! function of its name looks at what the file is about, and then it is killed and must leave nothing. Two
//! more tests hold the list against the folder and the folder's README against both.

mod addresses;
mod containers;
mod health;
#[path = "../kit/mod.rs"]
mod kit;
mod ports;

use kit::world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use calico_mesos::mesos::messages::{TaskInfo, TaskState};
use calico_mesos::rig::agent::AgentOptions;
use calico_mesos::rig::daemons::StackOptions;
use serde_json::Value;

use crate::kit::wait::eventually;
use world::{sh, task_info, Task, World, EXECUTOR};

/// Where the files have the executor; ours is where cargo has put it.
const INSTALLED: &str = "/usr/bin/calico-executor";
/// An address of this host, which every world has.
const HOST: &str = "10.99.0.11";

macro_rules! examples {
    ($($module:ident: $($name:ident)*;)*) => {
        $($(
            #[tokio::test]
            async fn $name() {
                $module::$name(Example::read(stringify!($name))).await;
            }
        )*)*
        const TESTED: &[&str] = &[$($(stringify!($name)),*),*];
    };
}

examples! {
    addresses: testapp static_address two_profiles pool dual_stack nested_id calico_network constraints;
    ports: service_ports port_mappings host_ports;
    health: health_http health_https health_tcp health_assigned_port health_command health_marathon_http;
    containers: command volumes parameters kill_grace bridge_network host_network;
}

/// One file, ready to be launched as Marathon would order it.
struct Example {
    app: Value,
    info: TaskInfo,
}

impl Example {
    fn read(test: &str) -> Self {
        let file = folder().join(test.replace('_', "-")).with_extension("json");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut app: Value = serde_json::from_str(&text).unwrap();
        if let Some(executor) = app.get_mut("executor") {
            assert_eq!(*executor, INSTALLED);
            *executor = EXECUTOR.into();
        }
        Self { info: task_info(&app), app }
    }

    /// The ports that Mesos tells others about: those of the host, where there are any.
    fn ports(&self) -> Vec<u16> {
        let discovered = self.info.discovery.iter().filter_map(|discovery| discovery.ports.as_ref());
        discovered.flat_map(|ports| &ports.ports).map(|port| port.number.try_into().unwrap()).collect()
    }

    async fn running<'a>(&self, world: &'a World) -> Task<'a> {
        let task = world.launch_info(self.info.clone()).await;
        task.reaches(TaskState::TaskRunning).await;
        task
    }
}

impl Task<'_> {
    /// Waits until the log tells something.
    async fn tells(&self, words: &str) -> String {
        self.logs(words, 1).await;
        self.log()
    }

    /// Ends the task, of which nothing may be left.
    async fn is_over(&self) {
        let status = self.kill().await;
        assert_eq!(status.state(), TaskState::TaskKilled, "{status:?}\n{}", self.log());
        self.world.nothing_left().await;
    }
}

/// An agent whose operator tells executors of both kinds where Docker and our configuration are.
async fn world_with(
    change: impl FnOnce(&mut StackOptions),
    change_agent: impl FnOnce(&mut AgentOptions),
) -> World {
    // All worlds are on one host, where an address is one task's.
    static POOL: AtomicU8 = AtomicU8::new(0);
    let pool = format!("10.202.{}.0/24", POOL.fetch_add(1, Ordering::Relaxed));
    World::with(
        |stack| {
            stack.pools = vec![pool.parse().unwrap()];
            change(stack);
        },
        |agent| {
            world::tell_custom_executors(agent);
            change_agent(agent);
        },
    )
    .await
}

async fn world() -> World {
    world_with(|_| (), |_| ()).await
}

async fn world_with_consul() -> World {
    world_with(|stack| stack.consul = true, |_| ()).await
}

/// What a web server says, which may need a moment to start.
async fn fetched(url: &str) -> String {
    fetched_by("curl", url).await
}

async fn fetched_by(curl: &str, url: &str) -> String {
    eventually(format!("{url} answers"), async || {
        Some(sh(&format!("{curl} -skfg -m 5 '{url}'"))).filter(|text| !text.is_empty())
    })
    .await
}

/// Where a service is, by Consul's catalogue: address, port and tags, in order.
async fn in_consul(world: &World, service: &str) -> Vec<(String, u64, Vec<String>)> {
    world.registered(service).await;
    let entries = world.consul(&format!("/v1/catalog/service/{service}")).await;
    let tags = |entry: &Value| serde_json::from_value(entry["ServiceTags"].clone()).unwrap();
    let place = |entry: &Value| entry["ServiceAddress"].as_str().unwrap().to_owned();
    let port = |entry: &Value| entry["ServicePort"].as_u64().unwrap();
    let mut all: Vec<_> = entries.as_array().unwrap().iter().map(|e| (place(e), port(e), tags(e))).collect();
    all.sort();
    all
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("marathon-examples")
}

/// All files of the folder but its README.
fn files() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "README.md").collect()
}

#[test]
fn every_file_has_its_test() {
    let tested = TESTED.iter().map(|name| format!("{}.json", name.replace('_', "-")));
    assert_eq!(files(), tested.collect());
}

/// A row of a table begins with `| [file](file) |`, and tells why in the next cell.
#[test]
fn the_readme_says_why_of_every_file() {
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let mut named = Vec::new();
    for row in readme.lines().filter_map(|line| line.strip_prefix("| [")) {
        let (name, rest) = row.split_once("](").unwrap();
        let (link, rest) = rest.split_once(") | ").unwrap();
        assert_eq!(link, name);
        assert!(rest.trim_end_matches(" |").len() > 20, "{name}: {rest}");
        named.push(name.to_owned());
    }
    let once: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(named.len(), once.len(), "some file has two rows");
    assert_eq!(once, files());
}
