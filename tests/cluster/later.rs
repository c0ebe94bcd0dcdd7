//! What happens to a cluster later, under running tasks: `make test-cluster-all`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::apps::{launch_app, Running};
use crate::checks::{Checks, Ended};
use crate::lab::{eventually, source};
use crate::page::{nothing_changed, Cluster, WORKERS};

const SOON: Duration = Duration::from_secs(60);

/// Tasks with what must not change about them.
struct Living {
    tasks: Vec<(Running, String)>,
}

impl Living {
    fn launch(cluster: &Cluster) -> Result<Self, Ended> {
        let launch = |host: &&str| {
            let name = format!("lives-{host}");
            let task =
                launch_app(&cluster.lab, host, &name, json!({"CALICO_IP": "auto", "CALICO_PROFILE": "dev"}))?;
            let pid = task.pid(&cluster.lab);
            Ok((task, pid))
        };
        Ok(Self { tasks: WORKERS.iter().map(launch).collect::<Result<_, Ended>>()? })
    }

    /// They run on, and are reached from the other host.
    fn check(&self, checks: &mut Checks, cluster: &Cluster, when: &str) {
        for (task, pid) in &self.tasks {
            checks.equals(&format!("{} lives on after {when}", task.name), &task.pid(&cluster.lab), pid);
            let from = if task.host == "h2" { "h3" } else { "h2" };
            let reached = task.is_reached_from(&cluster.lab, from);
            checks.holds(&format!("{} is reached from {from} after {when}", task.name), reached);
        }
    }
}

pub fn run(checks: &mut Checks, cluster: &Cluster) -> Result<(), Ended> {
    checks.phase("playbook, interrupted", |checks| interrupted(checks, cluster))?;
    let living = checks.phase("tasks", |_| Living::launch(cluster))?;
    checks.phase("package upgraded and downgraded", |checks| other_package(checks, cluster, &living))?;
    checks.phase("agent restarted", |checks| agent_restarted(checks, cluster, &living))?;
    checks.phase("pool changed", |checks| pool_changed(checks, cluster, &living))?;
    checks.phase("a host removed", |checks| host_removed(checks, cluster, living))
}

/// Killed twice at work; run again it ends where it would have ended.
fn interrupted(checks: &mut Checks, cluster: &Cluster) -> Result<(), Ended> {
    for task in ["etcd : Run etcd", "calico : Install the package", "calico : Run calico/node"] {
        let reached = cluster.lab.play_until("site.yml", &cluster.variables(), task)?;
        checks.holds(
            &format!("the playbook is killed at {task:?}"),
            reached.then_some(()).ok_or_else(|| "it ended before".to_owned()),
        );
    }
    cluster.must_play(&[])?;
    let output = cluster.must_play(&[])?;
    nothing_changed(checks, &output);
    for host in WORKERS {
        let active =
            cluster.lab.try_sh(host, "systemctl is-active calico-node etcd calico-mesos-gc.timer").text;
        checks.equals(&format!("everything runs on {host}"), active.trim(), "active\nactive\nactive");
    }
    Ok(())
}

/// The package that was given, under another version.
fn package(cluster: &Cluster) -> Result<PathBuf, Ended> {
    let path = std::env::var_os("CALICO_MESOS_NEXT_PACKAGE").map(PathBuf::from).filter(|path| path.is_file());
    path.ok_or_else(|| {
        Ended(format!("CALICO_MESOS_NEXT_PACKAGE is not a file (beside {})", cluster.given.package.display()))
    })
}

fn installed(cluster: &Cluster, host: &str) -> String {
    cluster.lab.try_sh(host, "dpkg-query -W -f '${Version}' calico-mesos").text.trim().to_owned()
}

fn other_package(checks: &mut Checks, cluster: &Cluster, living: &Living) -> Result<(), Ended> {
    let before = installed(cluster, "h2");
    let given = |path: &Path| json!({"calico_mesos_package": path}).to_string();
    let next = given(&package(cluster)?);
    cluster.must_play(&["-e", &next])?;
    for host in WORKERS {
        let now = installed(cluster, host);
        checks.holds(
            &format!("the package of {host} is another one"),
            (now != before && !now.is_empty()).then_some(()).ok_or(now),
        );
    }
    living.check(checks, cluster, "an upgrade of the package");
    let task = launch_app(&cluster.lab, "h2", "upgraded", json!({"CALICO_IP": "auto"}))?;
    checks.holds("the upgraded host launches tasks", task.is_reached_from(&cluster.lab, "h3"));
    task.end(&cluster.lab)?;
    let output = cluster.must_play(&["-e", &next])?;
    nothing_changed(checks, &output);
    cluster.must_play(&[])?;
    for host in WORKERS {
        checks.equals(
            &format!("the package of {host} is the one of before"),
            &installed(cluster, host),
            &before,
        );
    }
    living.check(checks, cluster, "a downgrade of the package");
    Ok(())
}

fn agent_restarted(checks: &mut Checks, cluster: &Cluster, living: &Living) -> Result<(), Ended> {
    for (host, unit) in WORKERS.into_iter().zip(["mesos-slave", "mesos-agent"]) {
        cluster
            .lab
            .sh(host, &format!("systemctl restart {unit} && sleep 1 && systemctl is-active {unit}"))?;
    }
    living.check(checks, cluster, "a restart of the agents");
    let task = launch_app(&cluster.lab, "h3", "restarted", json!({"CALICO_IP": "auto"}))?;
    checks.holds("the restarted agent launches tasks", task.is_reached_from(&cluster.lab, "h2"));
    task.end(&cluster.lab)?;
    let output = cluster.must_play(&[])?;
    nothing_changed(checks, &output);
    Ok(())
}

/// The new pool is used, the old one disabled and kept.
fn pool_changed(checks: &mut Checks, cluster: &Cluster, living: &Living) -> Result<(), Ended> {
    let network = json!({"calico_network": "10.200.0.0/16"}).to_string();
    let output = cluster.must_play(&["-e", &network])?;
    checks.contains("the play names the pool that it disables", &output.text, "192.168.0.0/16");
    let pools = cluster.lab.try_sh("h2", "calicoctl pool show").text;
    checks.contains("the new pool is there", &pools, "10.200.0.0/16");
    checks.contains("the old pool is kept", &pools, "192.168.0.0/16");
    living.check(checks, cluster, "a change of the pool");
    let task = launch_app(&cluster.lab, "h2", "moved", json!({"CALICO_IP": "auto"}))?;
    let moved = task.address.starts_with("10.200.");
    checks.holds(
        "a new task has an address of the new pool",
        moved.then_some(()).ok_or_else(|| task.address.clone()),
    );
    checks.holds("it is reached from the other host", task.is_reached_from(&cluster.lab, "h3"));
    task.end(&cluster.lab)?;
    let output = cluster.must_play(&["-e", &network])?;
    nothing_changed(checks, &output);
    Ok(())
}

/// A worker that was a member of etcd leaves the cluster; the others go on.
fn host_removed(checks: &mut Checks, cluster: &Cluster, living: Living) -> Result<(), Ended> {
    let lab = &cluster.lab;
    let (leaving, staying): (Vec<_>, Vec<_>) =
        living.tasks.into_iter().partition(|(task, _)| task.host == "h3");
    for (task, _) in leaving {
        task.end(lab)?;
    }
    let network = json!({"calico_network": "10.200.0.0/16"}).to_string();
    let output = cluster.play("absent.yml", &["-e", &network, "--limit", "h3"])?;
    checks.holds(
        "everything is taken away from one host",
        output.ok.then_some(()).ok_or_else(|| output.tail()),
    );
    let gone = || {
        let nodes = lab.try_sh("h2", "calico-mesos node show").text;
        (!nodes.contains("h3")).then_some(()).ok_or(nodes)
    };
    checks.holds("the datastore has no node h3 any more", eventually(SOON, gone));
    let members =
        lab.try_sh("h1", "ETCDCTL_API=3 etcdctl --endpoints=http://127.0.0.1:2379 member list").text;
    checks.holds("etcd has no member h3 any more", (!members.contains("h3")).then_some(()).ok_or(members));
    for (task, pid) in staying {
        checks.equals(&format!("{} lives on", task.name), &task.pid(lab), &pid);
        checks.holds("it is reached from a host of the cluster", task.is_reached_from(lab, "h2"));
    }
    let without = source("tests/cluster/page/without-h3.ini").display().to_string();
    let output = cluster.play("site.yml", &["-e", &network, "-i", &without])?;
    checks.holds(
        "two members of etcd are refused without etcd_allow_even",
        (!output.ok && output.text.contains("etcd_allow_even")).then_some(()).ok_or_else(|| output.tail()),
    );
    let even = json!({"etcd_allow_even": true}).to_string();
    let output = cluster.play("site.yml", &["-e", &network, "-e", &even, "-i", &without])?;
    checks.holds(
        "the playbook runs for the hosts that are left",
        output.ok.then_some(()).ok_or_else(|| output.tail()),
    );
    Ok(())
}
