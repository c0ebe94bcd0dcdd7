//! The user's page as an acceptance test: three real systemd hosts, the roles, the package, apps, and nothing left at the end.
//!
//! Run by `make test-cluster`, `make test-cluster-all` and `make test-cluster-calico` (see the Makefile). The hosts come from
//! scripts/cluster; on them this very program stands in for the Mesos agent and for calico/node, see [`standin`].
//!
//! ```text
//!  hosts ─► --check ─► playbook ─► again ─► the page's statements ─► reboot ─► everything taken away ─► as before
//! ```

mod apps;
mod checks;
mod lab;
mod later;
mod page;
mod page_end;
mod standin;
mod traces;

use std::process::ExitCode;

use crate::checks::{Checks, Ended};
use crate::lab::Given;
use crate::page::Cluster;

fn main() -> ExitCode {
    if let Some(end) = standin::run() {
        return end;
    }
    let mut checks = Checks::default();
    let given = match Given::read() {
        Ok(given) => given,
        Err(Ended(why)) => {
            eprintln!("cluster: {why}");
            return ExitCode::FAILURE;
        }
    };
    let cluster = match checks.phase("hosts", |_| Cluster::up(given)) {
        Ok(cluster) => cluster,
        Err(ended) => {
            checks.close(Some(ended));
            return ExitCode::FAILURE;
        }
    };
    let ended = match std::env::args().any(|word| word == "later") {
        true => later::run(&mut checks, &cluster),
        false => page(&mut checks, &cluster),
    }
    .err();
    let failed = ended.is_some() || checks.has_failed();
    if failed {
        println!("consoles, journals and what Ansible printed: {}", cluster.lab.keep().display());
    }
    if failed && lab::kept() {
        println!("the hosts stay: LAB={} scripts/cluster/host.sh in h1 ...", cluster.lab.folder.display());
        std::mem::forget(cluster);
    } else {
        drop(cluster);
    }
    if checks.close(ended) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn page(checks: &mut Checks, cluster: &Cluster) -> Result<(), Ended> {
    page::deploy(checks, cluster)?;
    checks.phase("what runs where", |checks| {
        page::deployed(checks, cluster);
        Ok(())
    })?;
    let mut tasks = checks.phase("the page's app", |checks| Ok(vec![page::app(checks, cluster)?]))?;
    tasks.extend(checks.phase("other apps", |checks| page::other_apps(checks, cluster))?);
    checks.phase("logs", |checks| page_end::logs(checks, cluster))?;
    checks.phase("an executor killed", |checks| page_end::executor_killed(checks, cluster))?;
    checks.phase("a host reboots", |checks| page_end::reboot(checks, cluster, &tasks))?;
    checks.phase("everything taken away", |checks| page_end::purge(checks, cluster, &tasks))
}
