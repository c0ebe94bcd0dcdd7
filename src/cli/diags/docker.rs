//! What Docker says of itself, its networks and its containers, field by field.
//!
//! Only the fields that are named here are taken. Left out are environments (the names of variables stay), arguments of
//! commands (the program stays), values of labels (their names stay), and options of log and volume drivers: tasks and
//! schedulers put credentials into all of them. What a name of a variable gives away as a secret is looked for in all
//! other texts besides.

use serde_json::{json, Map, Value};

use crate::cli::node::agents;
use crate::cli::status::docker_host;
use crate::config::Config;
use crate::error::chain;
use crate::workload::Docker;

use super::bag::Bag;
use super::mask::is_secret;

/// No more containers are inspected.
const MOST: usize = 300;
const INFO: [&str; 36] = [
    "Architecture",
    "BridgeNfIp6tables",
    "BridgeNfIptables",
    "CgroupDriver",
    "CgroupVersion",
    "ContainerdCommit",
    "Containers",
    "ContainersPaused",
    "ContainersRunning",
    "ContainersStopped",
    "Debug",
    "DefaultAddressPools",
    "DefaultRuntime",
    "DockerRootDir",
    "Driver",
    "ExperimentalBuild",
    "FirewallBackend",
    "IPv4Forwarding",
    "Images",
    "InitBinary",
    "KernelVersion",
    "LiveRestoreEnabled",
    "LoggingDriver",
    "MemTotal",
    "NCPU",
    "NEventsListener",
    "NFd",
    "NGoroutines",
    "Name",
    "OSType",
    "OperatingSystem",
    "RuncCommit",
    "SecurityOptions",
    "ServerVersion",
    "SystemTime",
    "Warnings",
];

/// Reads one part after another, so that those before one that hangs are kept.
pub async fn read(config: &Config, bag: Bag) {
    let agents = agents::running();
    let host = match docker_host(config, agents.iter()) {
        Ok(host) => host,
        Err(error) => return bag.error("docker", error),
    };
    let docker = match Docker::connect_with(&host, config.docker.tls(), "").await {
        Ok(docker) => docker,
        Err(error) => return bag.error("docker", chain(&error)),
    };
    bag.add("docker/address.txt", format!("{}\n{}\n", docker.address(), docker.version()));
    type Chosen = fn(&Value) -> Value;
    let parts: [(&str, &str, &'static str, Chosen); 3] = [
        ("docker/version.json", "/version", "report its version", Value::clone),
        ("docker/info.json", "/info", "report its state", info),
        ("docker/networks.json", "/networks", "list its networks", |list| each(list, network)),
    ];
    for (name, path, doing, chosen) in parts {
        match docker.document(path, doing).await {
            Ok(value) => bag.add(name, chosen(&value).to_string()),
            Err(error) => bag.error(name, chain(&error)),
        }
    }
    containers(&docker, &bag).await;
}

async fn containers(docker: &Docker, bag: &Bag) {
    const NAME: &str = "docker/containers.json";
    let list = match docker.document("/containers/json?all=1", "list its containers").await {
        Ok(list) => list,
        Err(error) => return bag.error(NAME, chain(&error)),
    };
    let list = list.as_array().cloned().unwrap_or_default();
    let mut shown: Vec<Value> = list.iter().map(listed).collect();
    for (entry, shown) in list.iter().zip(&mut shown).take(MOST) {
        let Some(id) = entry["Id"].as_str().filter(|id| id.chars().all(|c| c.is_ascii_alphanumeric())) else {
            continue;
        };
        match docker.document(&format!("/containers/{id}/json"), "inspect a container").await {
            Ok(value) => {
                bag.secrets(secrets(&value));
                if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), inspected(&value)) {
                    shown.extend(more);
                }
            }
            Err(error) => bag.error(&format!("{NAME}, {id}"), chain(&error)),
        }
    }
    if list.len() > MOST {
        bag.error(NAME, format!("of {} containers only the first {MOST} are inspected", list.len()));
    }
    bag.add(NAME, Value::from(shown).to_string());
}

fn each(list: &Value, chosen: fn(&Value) -> Value) -> Value {
    list.as_array().into_iter().flatten().map(chosen).collect()
}

fn fields(value: &Value, names: &[&str]) -> Map<String, Value> {
    let field = |name: &&str| Some(((*name).to_owned(), value.get(*name)?.clone()));
    names.iter().filter_map(field).collect()
}

fn keys(value: &Value) -> Value {
    value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

fn info(value: &Value) -> Value {
    let mut chosen = fields(value, &INFO);
    let runtimes = value["Runtimes"].as_object().into_iter().flatten();
    let paths: Map<String, Value> =
        runtimes.map(|(name, runtime)| (name.clone(), runtime["path"].clone())).collect();
    chosen.insert("Runtimes".to_owned(), paths.into());
    chosen.insert("Labels".to_owned(), names(&value["Labels"]));
    chosen.into()
}

/// The names of `NAME=value`, one each.
fn names(list: &Value) -> Value {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.map(|entry| Value::from(entry.split('=').next().unwrap_or_default())).collect()
}

fn network(value: &Value) -> Value {
    let mut chosen =
        fields(value, &["Name", "Id", "Created", "Scope", "Driver", "EnableIPv4", "EnableIPv6", "Internal"]);
    chosen.insert("IPAM".to_owned(), value["IPAM"]["Config"].clone());
    chosen.insert("option_names".to_owned(), keys(&value["Options"]));
    chosen.insert("label_names".to_owned(), keys(&value["Labels"]));
    chosen.into()
}

/// An entry of the list.
fn listed(value: &Value) -> Value {
    let mut chosen =
        fields(value, &["Id", "Names", "Image", "ImageID", "Created", "State", "Status", "Ports"]);
    chosen.insert("label_names".to_owned(), keys(&value["Labels"]));
    chosen.insert("NetworkMode".to_owned(), value["HostConfig"]["NetworkMode"].clone());
    let networks = value["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let addresses = |value: &Value| {
        let names = [
            "NetworkID",
            "EndpointID",
            "Gateway",
            "IPAddress",
            "IPv6Gateway",
            "GlobalIPv6Address",
            "MacAddress",
        ];
        Value::from(fields(value, &names))
    };
    let networks: Map<String, Value> =
        networks.map(|(name, network)| (name.clone(), addresses(network))).collect();
    chosen.insert("Networks".to_owned(), networks.into());
    let mount =
        |value: &Value| Value::from(fields(value, &["Type", "Source", "Destination", "RW", "Propagation"]));
    chosen.insert("Mounts".to_owned(), each(&value["Mounts"], mount));
    chosen.into()
}

/// What only an inspect has.
fn inspected(value: &Value) -> Value {
    let state = ["Pid", "ExitCode", "OOMKilled", "Error", "StartedAt", "FinishedAt"];
    json!({
        "Runtime": value["HostConfig"]["Runtime"],
        "RestartPolicy": value["HostConfig"]["RestartPolicy"]["Name"],
        "RestartCount": value["RestartCount"],
        "LogDriver": value["HostConfig"]["LogConfig"]["Type"],
        "Hostname": value["Config"]["Hostname"],
        "Program": value["Path"],
        "variable_names": names(&value["Config"]["Env"]),
        "Process": fields(&value["State"], &state),
    })
}

/// Values of a container's environment whose names give them away.
fn secrets(value: &Value) -> Vec<String> {
    let variables = value["Config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let pairs = variables.filter_map(|variable| variable.split_once('='));
    pairs
        .filter(|(name, value)| is_secret(name) && !value.starts_with('/'))
        .map(|(_, value)| value.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_container_is_taken_that_could_hold_a_secret() {
        let entry = json!({"Id": "1", "Names": ["/web"], "Command": "sh -c hunter2", "Labels": {"a": "hunter2"},
            "NetworkSettings": {"Networks": {"none": {"IPAddress": "", "DriverOpts": {"a": "hunter2"}}}},
            "Mounts": [{"Type": "bind", "Source": "/a", "Driver": "hunter2"}]});
        let inspect = json!({"Path": "sh", "Args": ["hunter2"], "Config": {"Env": ["A=hunter2", "DB_PASS=s3", "E"],
            "Cmd": ["hunter2"]}, "HostConfig": {"Runtime": "calico", "LogConfig": {"Type": "x", "Config": {"a": "hunter2"}}}});
        let text = format!("{} {}", listed(&entry), inspected(&inspect));
        assert!(!text.contains("hunter2") && !text.contains("s3"), "{text}");
        for part in ["\"label_names\":[\"a\"]", "[\"A\",\"DB_PASS\",\"E\"]", "\"Runtime\":\"calico\"", "/web"]
        {
            assert!(text.contains(part), "{part} {text}");
        }
        assert_eq!(secrets(&inspect), ["s3"]);
        let info = info(&json!({"HttpProxy": "http://u:hunter2@p", "Name": "h", "Labels": ["a=hunter2"],
            "Runtimes": {"calico": {"path": "/x", "runtimeArgs": ["hunter2"]}}}));
        assert_eq!(info, json!({"Name": "h", "Runtimes": {"calico": "/x"}, "Labels": ["a"]}));
    }
}
