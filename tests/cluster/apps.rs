//! Apps on the hosts: handed to the agent of a host as Marathon would, by a definition.

use std::path::Path;
use std::time::Duration;

use serde_json::{json, Value};

use crate::checks::Ended;
use crate::lab::{eventually, Lab};

const LIMIT: Duration = Duration::from_secs(60);

/// A task that runs.
#[derive(Debug, Clone)]
pub struct Running {
    pub host: String,
    pub name: String,
    pub container: String,
    /// Its process on the host.
    pub executor: i64,
    /// The one that the agent was told of.
    pub address: String,
}

fn state(lab: &Lab, host: &str, name: &str) -> Value {
    let text = lab.try_sh(host, &format!("cat /var/lib/mesos/lab/{name}.state")).text;
    serde_json::from_str(&text).unwrap_or_default()
}

/// Launches the definition in a file, and waits until its task runs.
pub fn launch(lab: &Lab, host: &str, name: &str, file: &Path) -> Result<Running, Ended> {
    lab.put(host, file, &format!("/var/lib/mesos/lab/{name}.json"))?;
    let running = || {
        let state = state(lab, host, name);
        match state["state"].as_str().unwrap_or("nothing") {
            "RUNNING" => Ok(Ok(state)),
            over @ ("FAILED" | "LOST" | "KILLED" | "FINISHED" | "REFUSED" | "ENDING") => {
                Ok(Err(format!("{over}: {}", state["message"])))
            }
            other => Err(format!("the state of {name} is {other}")),
        }
    };
    let state = eventually(LIMIT, running)?.map_err(|why| format!("{name} on {host} does not run: {why}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Running {
        host: host.to_owned(),
        name: name.to_owned(),
        container: format!("mesos-{}", text(&state["container"])),
        executor: state["executor"].as_i64().unwrap_or_default(),
        address: text(&state["addresses"][0]),
    })
}

/// The same with an app of this environment.
pub fn launch_app(lab: &Lab, host: &str, name: &str, environment: Value) -> Result<Running, Ended> {
    let app = json!({
        "id": name, "instances": 1, "cpus": 0.1, "mem": 32, "env": environment,
        "cmd": "echo hello >/tmp/index.html; exec httpd -f -p 3000 -h /tmp",
        "container": {"type": "DOCKER", "docker": {"image": "busybox"}}
    });
    let file = lab.folder.join(format!("{name}.json"));
    std::fs::write(&file, app.to_string())
        .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    launch(lab, host, name, &file)
}

impl Running {
    /// Kills it, and waits until it is gone.
    pub fn end(&self, lab: &Lab) -> Result<(), Ended> {
        let folder = "/var/lib/mesos/lab";
        lab.sh(&self.host, &format!("touch {folder}/{}.kill", self.name))?;
        let gone = || {
            let state = state(lab, &self.host, &self.name);
            let word = state["state"].as_str().unwrap_or("nothing");
            let over = matches!(word, "KILLED" | "FAILED" | "FINISHED" | "LOST");
            over.then_some(()).ok_or_else(|| format!("the state of {} is {word}", self.name))
        };
        eventually(LIMIT, gone)?;
        lab.sh(&self.host, &format!("rm -f {folder}/{0}.json {folder}/{0}.state", self.name)).map(|_| ())
    }

    /// Whether its first process is the one that it was.
    pub fn pid(&self, lab: &Lab) -> String {
        let text =
            format!("docker inspect -f '{{{{.State.Running}}}} {{{{.State.Pid}}}}' {}", self.container);
        lab.try_sh(&self.host, &text).text.trim().to_owned()
    }

    /// The address inside, as the kernel has it.
    pub fn inside(&self, lab: &Lab) -> String {
        let text =
            format!("docker exec {} ip -o -4 addr show scope global | awk '{{print $4}}'", self.container);
        lab.try_sh(&self.host, &text).text.trim().to_owned()
    }

    pub fn is_reached_from(&self, lab: &Lab, host: &str) -> Result<(), String> {
        let text = format!("curl -s -m 5 http://{}:3000/index.html", self.address);
        let look = || {
            let output = lab.try_sh(host, &text);
            output.text.contains("hello").then_some(()).ok_or_else(|| format!("{text}: {:?}", output.text))
        };
        eventually(Duration::from_secs(20), look)
    }
}
