//! Everything that there is, found out by looking, one line a thing: what a life may leave behind, and what
//! belongs to somebody else.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::machine::Machine;
use crate::processes;
use crate::world::sh;

pub type Things = BTreeSet<String>;

/// Looks everywhere. A place that cannot be looked at is a thing that is left.
pub async fn take(machine: &Machine) -> Things {
    let mut things = Things::new();
    datastore(machine, &mut things).await;
    consul(machine, &mut things).await;
    containers(machine, &mut things).await;
    kernel(machine, &mut things);
    files(machine, &mut things);
    runtimes(machine, &mut things);
    for process in processes::of(machine) {
        things.insert(format!("process {process}"));
    }
    things
}

async fn datastore(machine: &Machine, things: &mut Things) {
    let Ok(mut client) = etcd_client::Client::connect([&machine.world.stack.etcd_endpoint], None).await
    else {
        things.insert("etcd cannot be asked".into());
        return;
    };
    let all = etcd_client::GetOptions::new().with_prefix();
    let Ok(answer) = client.get("/calico/", Some(all)).await else {
        things.insert("etcd does not answer".into());
        return;
    };
    for kv in answer.kvs() {
        let (key, value) = (kv.key_str().unwrap(), kv.value_str().unwrap());
        if key.contains("/assignment/") {
            addresses(key, &serde_json::from_str(value).unwrap(), things);
        } else if !key.contains("/ipam/v2/host/") {
            things.insert(format!("key {key} = {value}"));
        }
    }
}

/// An empty block, and whose it is, is nobody's leak: Calico keeps them.
fn addresses(key: &str, block: &Value, things: &mut Things) {
    let cidr = block["cidr"].as_str().unwrap_or(key);
    for (ordinal, index) in block["allocations"].as_array().into_iter().flatten().enumerate() {
        if let Some(index) = index.as_u64() {
            things.insert(format!("address {cidr} + {ordinal}: {}", block["attributes"][index as usize]));
        }
    }
}

async fn consul(machine: &Machine, things: &mut Things) {
    let url = format!("{}/v1/agent/services", machine.world.stack.consul.as_ref().unwrap().url());
    let Ok(Value::Object(services)) = serde_json::from_str(&sh(&format!("curl -s -m 10 {url}"))) else {
        things.insert("Consul does not answer".into());
        return;
    };
    things.extend(services.iter().map(|(id, service)| format!("service {id} = {service}")));
}

/// An exited container is the agent's to remove, if the agent knows it.
async fn containers(machine: &Machine, things: &mut Things) {
    let asked = machine.world.stack.docker.request("GET", "/containers/json?all=1", b"").await;
    let list: Option<Vec<Value>> = asked.ok().and_then(|(_, text)| serde_json::from_str(&text).ok());
    let Some(list) = list else {
        things.insert("Docker does not answer".into());
        return;
    };
    for container in list {
        let (name, state) = (&container["Names"][0], container["State"].as_str().unwrap_or_default());
        let known = !name.as_str().is_some_and(|name| name.starts_with("/calico-mesos-"));
        if state != "exited" || !known {
            things.insert(format!("container {name} {} {state}", container["Id"]));
        }
    }
}

fn kernel(machine: &Machine, things: &mut Things) {
    let links: Value = serde_json::from_str(&sh("ip -j link")).unwrap_or_default();
    for link in links.as_array().into_iter().flatten() {
        things.insert(format!("link {} {}", link["ifname"], link["address"]));
    }
    for (kind, command) in [
        ("route", "ip route show table all; ip -6 route show table all"),
        ("neighbour", "ip neigh show nud permanent; ip neigh show proxy; ip -6 neigh show proxy"),
    ] {
        // `linkdown` and such depend on the other end of a link, which ends a moment before it.
        things.extend(sh(command).lines().map(|line| format!("{kind} {}", line.trim())));
    }
    let ruleset: Value = serde_json::from_str(&sh("nft -j list ruleset")).unwrap_or_default();
    for object in ruleset["nftables"].as_array().into_iter().flatten() {
        rules(object.clone(), things);
    }
    let dir = machine.world.stack.dir.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    // Docker's own namespaces, whose names change with every start of a container.
    let of_docker = format!("{dir}/d/x/netns/");
    let of_tasks = |point: &&str| point.starts_with(&dir) && !point.starts_with(&of_docker);
    things.extend(points.filter(of_tasks).map(|point| format!("mount {point}")));
}

/// One object of nft's; the elements of a map are things of their own.
fn rules(mut object: Value, things: &mut Things) {
    let Some((kind, body)) = object.as_object_mut().and_then(|object| object.iter_mut().next()) else {
        return;
    };
    if kind == "metainfo" {
        return;
    }
    let kind = kind.clone();
    let body = body.as_object_mut().unwrap();
    body.remove("handle");
    let elements = body.remove("elem");
    let name = format!(
        "{} {} {}",
        body["family"],
        body.get("table").unwrap_or(&Value::Null),
        body.get("name").unwrap_or(&Value::Null)
    );
    for element in elements.iter().flat_map(|elements| elements.as_array()).flatten() {
        things.insert(format!("nft element of {name}: {element}"));
    }
    things.insert(format!("nft {kind} {}", Value::Object(body.clone())));
}

fn files(machine: &Machine, things: &mut Things) {
    let paths = &machine.world.config.paths;
    walk(&paths.run, things);
    walk(&paths.journal(), things);
    walk(&paths.bindings(), things);
    // What a cleaner remembers of the last look at the whole cluster is no task's either.
    for folder in ["tasks", "containers", "docker", "addresses", "borrowed.json"] {
        things.remove(&format!("file {}", paths.run.join(folder).display()));
    }
    // What this host's dockerd said once, which is no task's.
    for entry in std::fs::read_dir(paths.run.join("docker")).into_iter().flatten().flatten() {
        things.remove(&format!("file {}", entry.path().display()));
    }
}

fn walk(folder: &Path, things: &mut Things) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        things.insert(format!("file {}", path.display()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, things);
        }
    }
}

/// What containerd, runc and the kernel keep of a container as long as it has processes, by Docker's id.
fn runtimes(machine: &Machine, things: &mut Things) {
    let docker = machine.world.stack.docker.dir.display().to_string();
    let cgroups = format!("/sys/fs/cgroup/*/{0} /sys/fs/cgroup/{0}", processes::cgroup(machine));
    let found = sh(&format!(
        "find {docker}/x {cgroups} -type d -regextype egrep -regex '.*/[0-9a-f]{{64}}' 2> /dev/null"
    ));
    // Where dockerd has the pipes of a start that its containerd did not live to see; it is the size of a folder.
    let pipes = format!("{docker}/x/containerd/");
    let is_pipes = |path: &&str| path.strip_prefix(&pipes).is_some_and(|rest| !rest.contains('/'));
    for path in found.lines().filter(|path| !is_pipes(path)) {
        // One thing, however many controllers there are.
        let id = path.rsplit('/').next().unwrap_or(path);
        let path = if path.starts_with("/sys/") { format!("cgroup {id}") } else { path.to_owned() };
        things.insert(format!("runtime state {path}"));
    }
}
