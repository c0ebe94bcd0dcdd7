//! What the user's page says, statement by statement, and what it leaves behind when everything is taken away.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::apps::{launch, launch_app, Running};
use crate::checks::{Checks, Ended};
use crate::lab::{eventually, script, source, Given, Lab, Output};
use crate::traces::Traces;

pub const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
pub const WORKERS: [&str; 2] = ["h2", "h3"];
const FIRST: f64 = 150.0;
const REPEATED: f64 = 50.0;
const SOON: Duration = Duration::from_secs(60);

/// A lab with the page's cluster on it, or on its way there.
pub struct Cluster {
    pub lab: Lab,
    pub given: Given,
    /// As they were before the first play.
    before: Vec<Traces>,
    archive: PathBuf,
}

pub fn address(host: &str) -> String {
    format!("10.77.0.1{}", host.trim_start_matches('h'))
}

fn run(command: &mut Command) -> Result<(), Ended> {
    let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or_else(|| Ended(format!("{command:?} failed: {text}")))
}

impl Cluster {
    /// Three hosts as an operator of Mesos has them: Docker, Consul, and agents that keep their flags in two ways.
    pub fn up(given: Given) -> Result<Self, Ended> {
        let lab = Lab::up(HOSTS.len())?;
        let program = lab.folder.join("standin");
        let own = std::env::current_exe().map_err(|error| format!("cannot name this program: {error}"))?;
        run(Command::new("strip").arg("-o").arg(&program).arg(own))?;
        let archive = lab.folder.join("node.tar");
        let mut image = Command::new(script("node-image.sh"));
        match &given.peers {
            Some(peers) => image.arg("calico").arg(peers),
            None => image.arg("standin").arg(&program),
        };
        run(image.arg("calico/node:test").arg(&archive))?;
        let busybox = lab.folder.join("busybox.tar");
        run(Command::new(script("node-image.sh")).args(["busybox", "busybox:latest"]).arg(&busybox))?;
        for (host, kind) in WORKERS.into_iter().zip(["slave", "agent"]) {
            lab.load_image(host, &busybox)?;
            lab.agent(host, kind, &program)?;
        }
        let mut cluster = Self { lab, given, before: Vec::new(), archive };
        cluster.before = cluster.traces()?;
        Ok(cluster)
    }

    pub fn before(&self) -> &[Traces] {
        &self.before
    }

    fn traces(&self) -> Result<Vec<Traces>, Ended> {
        HOSTS.iter().map(|host| Traces::of(&self.lab, host)).collect()
    }

    /// The package and the image, which are not to be had from anywhere; all other variables are left to their defaults.
    pub fn variables(&self) -> Vec<String> {
        let package = &self.given.package;
        let variables = json!({
            "calico_mesos_package": fs::canonicalize(package).unwrap_or_else(|_| package.clone()),
            "calico_image": "calico/node:test",
            "calico_image_archive": self.archive,
        });
        let mut words = vec!["-e".to_owned(), variables.to_string()];
        if self.given.peers.is_some() {
            // It was built without CGO.
            words.extend([
                "-e".to_owned(),
                json!({"calico_node_environment": {"FELIX_DebugSkipCTLBCleanup": "true"}}).to_string(),
            ]);
        }
        words
    }

    pub fn play(&self, playbook: &str, more: &[&str]) -> Result<Output, Ended> {
        let words = [self.variables(), more.iter().map(|word| (*word).to_owned()).collect()].concat();
        self.lab.play(playbook, &words)
    }

    pub fn must_play(&self, more: &[&str]) -> Result<Output, Ended> {
        let output = self.play("site.yml", more)?;
        if !output.ok {
            return Err(format!("the playbook failed:\n{}", output.tail()).into());
        }
        Ok(output)
    }
}

/// The line of a host in Ansible's recap.
fn recap(output: &Output, host: &str) -> String {
    let line = output
        .text
        .lines()
        .find(|line| line.split(':').next().is_some_and(|name| name.trim() == host) && line.contains("ok="));
    line.unwrap_or("no line in the recap").to_owned()
}

pub fn nothing_changed(checks: &mut Checks, output: &Output) {
    for host in HOSTS {
        checks.contains(
            &format!("a repeated play changes nothing on {host}"),
            &recap(output, host),
            "changed=0 ",
        );
    }
}

pub fn deploy(checks: &mut Checks, cluster: &Cluster) -> Result<(), Ended> {
    checks.phase("playbook, --check --diff", |checks| {
        cluster.must_play(&["--check", "--diff"])?;
        for ((host, before), after) in HOSTS.iter().zip(&cluster.before).zip(cluster.traces()?) {
            checks.holds(
                &format!("--check before the first play changes nothing on {host}"),
                before.same(&after),
            );
        }
        Ok(())
    })?;
    checks.phase("playbook, first time", |checks| {
        let output = cluster.must_play(&[])?;
        checks.within("the playbook, first time,", output.took, FIRST);
        Ok(())
    })?;
    checks.phase("playbook, repeated", |checks| {
        let output = cluster.must_play(&[])?;
        nothing_changed(checks, &output);
        checks.within("the playbook, repeated,", output.took, REPEATED);
        Ok(())
    })
}

/// The page's variables with their defaults, and what runs where.
pub fn deployed(checks: &mut Checks, cluster: &Cluster) {
    let lab = &cluster.lab;
    for host in HOSTS {
        let health = lab.try_sh(
            host,
            "ETCDCTL_API=3 etcdctl --endpoints=http://127.0.0.1:2379 endpoint health --cluster 2>&1",
        );
        let healthy = health.text.matches("is healthy").count();
        checks.equals(
            &format!("etcd on {host} answers on etcd_client_port 2379 and sees three members"),
            &healthy.to_string(),
            "3",
        );
    }
    let enabled = lab.try_sh("h1", "systemctl is-active calico-node; docker ps -q");
    checks.holds(
        "a host that is no worker has no calico/node",
        (!enabled.text.contains("\nactive") && !enabled.text.starts_with("active"))
            .then_some(())
            .ok_or(enabled.text),
    );
    for host in WORKERS {
        for unit in ["calico-node", "calico", "calico-mesos-gc.timer", "calico-mesos-proxy.socket"] {
            checks.equals(
                &format!("{unit} is active on {host}"),
                lab.try_sh(host, &format!("systemctl is-active {unit}")).text.trim(),
                "active",
            );
        }
        let flags = lab.try_sh(host, "cat /var/lib/mesos/lab/flags.json").text;
        let flags: serde_json::Value = serde_json::from_str(&flags).unwrap_or_default();
        let word = flags["words"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|word| word.as_str()?.strip_prefix("--executor_environment_variables="));
        let variable = flags["environment"]["MESOS_EXECUTOR_ENVIRONMENT_VARIABLES"].as_str();
        let given = word.chain(variable).next().unwrap_or("{}");
        let given: serde_json::Value = serde_json::from_str(given).unwrap_or_default();
        checks.equals(
            &format!("the agent of {host} passes DOCKER_HOST by --executor_environment_variables"),
            given["DOCKER_HOST"].as_str().unwrap_or("nothing"),
            "localhost:2377",
        );
        checks.contains(
            &format!("the agent of {host} says that it has Calico"),
            &flags.to_string(),
            "calico:true",
        );
        checks.contains(
            &format!("port 2377 of {host} answers as Docker does"),
            &lab.try_sh(host, "curl -s -m 5 http://localhost:2377/_ping").text,
            "OK",
        );
    }
    for (name, hosts) in [("etcd", &HOSTS[..]), ("calico", &WORKERS[..])] {
        let found = records(&lab.try_sh("h1", &format!("dig @localhost -p 8600 {name}.service.consul")).text);
        for host in hosts {
            let there = found.contains(&format!("A {}", address(host)));
            let expected = format!("{name} of {host} is a service in Consul");
            checks.holds(&expected, there.then_some(()).ok_or_else(|| found.join("; ")));
        }
    }
}

/// Both digs of the page, and the query of the port.
fn dns(checks: &mut Checks, lab: &Lab, host: &str, app: &Running) {
    let direct = "testapp-direct.service.consul";
    let mut answers = |expected: String, question: String, wanted: &str| {
        let look = || {
            let found = records(&lab.try_sh(host, &format!("dig @localhost -p 8600 {question}")).text);
            found.iter().any(|record| record == wanted).then_some(()).ok_or_else(|| found.join("; "))
        };
        checks.holds(&expected, eventually(Duration::from_secs(15), look));
    };
    answers(
        format!("testapp.service.consul, asked on {host}, is the Docker host's address"),
        "testapp.service.consul".to_owned(),
        &format!("A {}", address(&app.host)),
    );
    answers(
        format!("{direct}, asked on {host}, is the address in Calico's network"),
        direct.to_owned(),
        &format!("A {}", app.address),
    );
    let hex: String =
        app.address.split('.').map(|part| format!("{:02x}", part.parse::<u8>().unwrap_or(0))).collect();
    answers(
        format!("an SRV query on {host} returns SERVICE_PORT 3000"),
        format!("{direct} SRV"),
        &format!("SRV 1 1 3000 {hex}.addr.dc1.consul."),
    );
}

/// The records of an answer, each from its type on.
fn records(answer: &str) -> Vec<String> {
    let record = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (!line.starts_with(';') && words.get(2) == Some(&"IN")).then(|| words[3..].join(" "))
    };
    answer.lines().filter_map(record).collect()
}

/// The five commands of the page, on a host.
fn commands(checks: &mut Checks, lab: &Lab, app: &Running) {
    for (command, wanted) in [
        ("help", "verbs"),
        ("status", "Felix"),
        ("profile show --detailed", "dev"),
        ("endpoint show --detailed", &app.address),
        ("pool show", "192.168.0.0/16"),
    ] {
        let output = lab.try_sh("h2", &format!("calicoctl {command} 2>&1"));
        checks.holds(
            &format!("calicoctl {command} succeeds"),
            output.ok.then_some(()).ok_or_else(|| output.text.clone()),
        );
        checks.contains(
            &format!("calicoctl {command} shows what it is about"),
            &output.text.to_lowercase(),
            &wanted.to_lowercase(),
        );
    }
}

/// The page's app, asked for as the page does.
pub fn app(checks: &mut Checks, cluster: &Cluster) -> Result<Running, Ended> {
    let lab = &cluster.lab;
    let app = launch(lab, "h2", "testapp", &source("tests/cluster/page/testapp.json"))?;
    let in_network = app.address.starts_with("192.168.");
    checks.holds(
        "the page's app has an address of calico_network",
        in_network.then_some(()).ok_or_else(|| app.address.clone()),
    );
    checks.equals("its container has that address alone", &app.inside(lab), &format!("{}/32", app.address));
    for host in HOSTS {
        dns(checks, lab, host, &app);
    }
    if cluster.given.peers.is_none() {
        // Felix lets into a profile what has that profile, and other hosts have none.
        let ping = || {
            let output = lab.try_sh("h3", &format!("ping -c 1 -W 2 {}", app.address));
            output.ok.then_some(()).ok_or(output.text)
        };
        checks.holds("another host reaches the app at its address", eventually(SOON, ping));
    }
    commands(checks, lab, &app);
    Ok(app)
}

/// Apps of other kinds, and what Docker's own clients get.
pub fn other_apps(checks: &mut Checks, cluster: &Cluster) -> Result<Vec<Running>, Ended> {
    let lab = &cluster.lab;
    let web = launch_app(lab, "h3", "web", json!({"CALICO_IP": "192.168.77.7", "CALICO_PROFILE": "shop"}))?;
    checks.equals("an app gets the address that CALICO_IP names", &web.address, "192.168.77.7");
    checks.contains(
        "a profile that was not there is made",
        &lab.try_sh("h2", "calicoctl profile show").text,
        "shop",
    );
    checks.holds("its own host reaches it", web.is_reached_from(lab, "h3"));
    let other = launch_app(lab, "h2", "other", json!({"CALICO_IP": "auto", "CALICO_PROFILE": "shop"}))?;
    // Debian's static busybox has no wget that works without the libraries of its libc.
    let text = format!(
        "docker exec {} sh -c \"printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} 3000\"",
        other.container, web.address
    );
    let look = || {
        let output = lab.try_sh("h2", &text);
        output.text.contains("hello").then_some(()).ok_or(output.text)
    };
    checks.holds("tasks of one profile reach each other from host to host", eventually(SOON, look));
    let stock = launch_app(lab, "h3", "stock", json!({}))?;
    let network = format!("docker inspect -f '{{{{.HostConfig.Runtime}}}} {{{{.HostConfig.NetworkMode}}}} {{{{.NetworkSettings.IPAddress}}}}' {}", stock.container);
    let network = lab.try_sh("h3", &network).text;
    let as_stock =
        network.starts_with("runc ") && network.contains(" 172.17.") || network.starts_with("runc host");
    checks.holds(
        "an app without the variables has Docker's own network and runtime",
        as_stock.then_some(()).ok_or(network),
    );
    let text = "docker -H tcp://localhost:2377 run --rm -e CALICO_IP=auto -e CALICO_PROFILE=dev busybox ip -o -4 addr show scope global";
    checks.contains(
        "a client of the proxy at port 2377 gets an address of calico_network",
        &lab.try_sh("h2", text).text,
        "192.168.",
    );
    stock.end(lab)?;
    Ok(vec![web, other])
}
