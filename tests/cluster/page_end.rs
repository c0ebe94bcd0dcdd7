//! The page's log folders, a host that reboots, and everything taken away.

use std::time::Duration;

use crate::apps::{launch_app, Running};
use crate::checks::{Checks, Ended};
use crate::lab::{eventually, Lab};
use crate::page::{Cluster, HOSTS, WORKERS};
use crate::traces::Traces;

const SOON: Duration = Duration::from_secs(90);
/// A file may end with the line that filled it.
const BOUND: u64 = 1_000_000 + 4096;

/// The sizes of a component's files: the newest of them is `current`.
fn sizes(lab: &Lab, host: &str, component: &str) -> Vec<u64> {
    let text = format!("cd /var/log/calico/{component} && stat -c '%s' current* @* 2>/dev/null");
    lab.try_sh(host, &text).text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Has Felix write so much that its log turns over.
fn fill(lab: &Lab, host: &str, megabytes: u32) -> Result<(), Ended> {
    let text = format!(
        "pid=$(pgrep -of 'calico-node -felix') && head -c {megabytes}000000 /dev/zero | tr '\\0' x | fold -w 200 >/proc/$pid/fd/1"
    );
    lab.sh(host, &text).map(|_| ())
}

fn bounded(lab: &Lab, host: &str, component: &str) -> Result<(), String> {
    let sizes = sizes(lab, host, component);
    let right = (10..=11).contains(&sizes.len()) && sizes.iter().all(|size| *size <= BOUND);
    right.then_some(()).ok_or_else(|| format!("{} files of {sizes:?} bytes", sizes.len()))
}

pub fn logs(checks: &mut Checks, cluster: &Cluster) -> Result<(), Ended> {
    let lab = &cluster.lab;
    for component in ["runtime", "proxy", "audit", "felix"] {
        let current =
            lab.try_sh("h2", &format!("test -f /var/log/calico/{component}/current && echo yes")).text;
        checks.equals(
            &format!("{component} logs to a folder of its own under /var/log/calico"),
            current.trim(),
            "yes",
        );
    }
    fill(lab, "h2", 13)?;
    let look = || bounded(lab, "h2", "felix");
    checks.holds("10 files of 1 MB are kept of Felix's log", eventually(Duration::from_secs(20), look));
    for _ in 0..2 {
        lab.sh("h2", "systemctl restart calico-node")?;
    }
    fill(lab, "h2", 13)?;
    checks.holds(
        "the same after calico/node has started twice again",
        eventually(Duration::from_secs(20), look),
    );
    let docker = lab.try_sh("h2", "docker inspect -f '{{.HostConfig.LogConfig}}' calico-node").text;
    let is_bounded = docker.contains("max-size") || docker.contains("{none ");
    checks.holds("Docker's own log of calico/node is bounded", is_bounded.then_some(()).ok_or(docker));
    Ok(())
}

/// An executor is killed: the timer's cleaner takes away what it leaves, and says so in a log of its own.
pub fn executor_killed(checks: &mut Checks, cluster: &Cluster) -> Result<(), Ended> {
    let lab = &cluster.lab;
    let task = launch_app(lab, "h2", "doomed", serde_json::json!({"CALICO_IP": "auto"}))?;
    lab.sh("h2", &format!("kill -KILL {}", task.executor))?;
    let gone = || {
        let text = lab.try_sh("h2", "calicoctl endpoint show --detailed; ip route").text;
        (!text.contains(&format!("{} ", task.address))).then_some(()).ok_or(text)
    };
    checks.holds("the endpoint of a killed executor's task is cleaned up", eventually(SOON, gone));
    let log = lab.try_sh("h2", "test -s /var/log/calico/gc/current && echo yes").text;
    checks.equals("gc logs to a folder of its own under /var/log/calico", log.trim(), "yes");
    let text = format!("docker rm -f {}; rm -f /var/lib/mesos/lab/doomed.*", task.container);
    lab.sh("h2", &text).map(|_| ())
}

/// One host reboots under running tasks: the others' do not notice, its own are cleaned up, and it serves again.
pub fn reboot(checks: &mut Checks, cluster: &Cluster, tasks: &[Running]) -> Result<(), Ended> {
    let lab = &cluster.lab;
    let elsewhere: Vec<(&Running, String)> =
        tasks.iter().filter(|task| task.host != "h3").map(|task| (task, task.pid(lab))).collect();
    lab.host_sh(&["reboot", "h3"])?;
    let active = || {
        let state = lab.try_sh("h3", "systemctl is-active docker calico-node etcd mesos-agent").text;
        (state.split_whitespace().all(|word| word == "active")).then_some(()).ok_or(state)
    };
    checks.holds(
        "after a reboot docker, calico/node, etcd and the agent run by themselves",
        eventually(SOON, active),
    );
    for (task, pid) in elsewhere {
        checks.equals(&format!("{} on {} runs on", task.name, task.host), &task.pid(lab), &pid);
    }
    for task in tasks.iter().filter(|task| task.host == "h3") {
        let gone = || {
            let text = lab.try_sh("h2", "calicoctl endpoint show --detailed").text;
            (!text.contains(&task.address)).then_some(()).ok_or(text)
        };
        checks.holds(
            &format!("the endpoint of {}, which the reboot ended, is cleaned up", task.name),
            eventually(SOON, gone),
        );
        let folder = "/var/lib/mesos/lab";
        lab.sh(
            "h3",
            &format!(
                "rm -f {folder}/{0}.json {folder}/{0}.state; docker rm -f {1} >/dev/null",
                task.name, task.container
            ),
        )?;
    }
    let health = || {
        let text = lab
            .try_sh(
                "h1",
                "ETCDCTL_API=3 etcdctl --endpoints=http://127.0.0.1:2379 endpoint health --cluster 2>&1",
            )
            .text;
        (text.matches("is healthy").count() == 3).then_some(()).ok_or(text)
    };
    checks.holds("etcd has three members again", eventually(SOON, health));
    let again = launch_app(
        lab,
        "h3",
        "again",
        serde_json::json!({"CALICO_IP": "192.168.77.7", "CALICO_PROFILE": "shop"}),
    )?;
    checks.equals("its address is free for the next task", &again.address, "192.168.77.7");
    // Felix lets no other host into a profile.
    let from = if cluster.given.peers.is_some() { "h3" } else { "h2" };
    checks.holds(&format!("the new task is reached from {from}"), again.is_reached_from(lab, from));
    again.end(lab)
}

/// Refused while tasks live; then nothing is left.
pub fn purge(checks: &mut Checks, cluster: &Cluster, tasks: &[Running]) -> Result<(), Ended> {
    let lab = &cluster.lab;
    let living: Vec<&Running> = tasks.iter().filter(|task| task.host == "h2").collect();
    let refused = cluster.play("absent.yml", &[])?;
    let is_refused = !refused.ok && refused.text.contains("h2");
    checks.holds(
        "calico_state: absent is refused while tasks live",
        is_refused.then_some(()).ok_or_else(|| refused.text.clone()),
    );
    let running = living.iter().all(|task| task.pid(lab).starts_with("true "));
    checks.holds(
        "the tasks run on after that",
        running.then_some(()).ok_or_else(|| "one has ended".to_owned()),
    );
    for task in living {
        task.end(lab)?;
    }
    let output = cluster.play("absent.yml", &[])?;
    if !output.ok {
        return Err(format!("the playbook with calico_state: absent failed:\n{}", output.tail()).into());
    }
    for host in WORKERS {
        let text = "! dpkg-query -W calico-mesos 2>/dev/null || apt-get -qq purge calico-mesos 2>&1";
        let purged = lab.try_sh(host, text);
        checks.holds(&format!("the package is purged on {host}"), purged.ok.then_some(()).ok_or(purged.text));
    }
    for (host, before) in HOSTS.iter().zip(cluster.before()) {
        let after = Traces::of(lab, host)?;
        checks.holds(&format!("nothing is left on {host}"), before.same(&after));
    }
    Ok(())
}
