//! What `run` prints of a launch: what it is about to do, the table, and how to find the tasks.

use std::path::Path;

use crate::calico::{self, Datastore, Overview};
use crate::cli::output::{self, count};
use crate::rig::daemons::find_consul;

use super::place::RunPlace;
use super::summary::AppSummary;
use super::task::RunTask;

pub fn dev_banner() -> String {
    match find_consul() {
        Some(_) => "dev mode: private etcd, dockerd and Consul; all removed at the end".to_owned(),
        None => "dev mode: private etcd and dockerd; all removed at the end\n  \
                 no Consul found: no DNS names this time (scripts/consul.sh builds one)"
            .to_owned(),
    }
}

/// A note where the app names an executor that is not installed here.
pub fn replaced(missing: &str, program: &Path) -> String {
    format!("  executor {missing} is not on this machine; used instead: {}", program.display())
}

/// What the datastore holds beforehand; `None` when it does not answer, which the executor then reports.
pub async fn overview(place: &RunPlace, summary: &AppSummary) -> Option<Overview> {
    if !summary.is_calico() {
        return None;
    }
    let node = calico::node_name(&place.config).ok()?;
    let mut datastore = Datastore::connect(&place.config).await.ok()?;
    datastore.overview(&node, &summary.profiles).await.ok()
}

pub fn dev_details(place: &RunPlace) -> String {
    let pools: Vec<String> = place.config.node.local_pools.iter().map(ToString::to_string).collect();
    format!("  pool {}   policy: not enforced (no Felix)", pools.join(" "))
}

/// `/testapp  busybox  2 instances  profile dev (will be created)`
pub fn headline(summary: &AppSummary, instances: usize, overview: Option<&Overview>) -> String {
    let image = summary.image.as_deref().unwrap_or("a command");
    let mut line = format!("{}  {image}  {}", summary.app, count(instances, "instance"));
    if summary.is_calico() {
        line.push_str(&format!("  profile {}", summary.profile()));
        if overview.is_some_and(|overview| !overview.missing_profiles.is_empty()) {
            line.push_str(" (will be created)");
        }
    }
    line
}

pub fn table(tasks: &[RunTask], summary: &AppSummary) -> String {
    let row = |task: &RunTask| {
        vec![
            task.readable_id(),
            task.state().map_or("-", |state| state.short()).to_owned(),
            task.address(),
            summary.profile(),
            summary.port(),
            task.sandbox.join("stdout").display().to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = tasks.iter().map(row).collect();
    output::table(&["TASK", "STATE", "ADDRESS", "PROFILE", "PORT", "LOG"], &rows)
}

/// The names that lead to the tasks, and a command that works as it is printed.
pub fn dns(tasks: &[RunTask], summary: &AppSummary, place: &RunPlace) -> Vec<String> {
    let (Some(name), Some((server, port))) = (&summary.dns, &place.dns) else { return Vec::new() };
    let addresses: Vec<String> =
        tasks.iter().flat_map(|task| &task.addresses).map(ToString::to_string).collect();
    let srv = match summary.ports.is_empty() {
        true => String::new(),
        false => format!("  (SRV {})", summary.port()),
    };
    let kind = if summary.ports.is_empty() { "A" } else { "SRV" };
    vec![
        format!("DNS  {name} > {}{srv}", addresses.join(" ")),
        format!("try  dig @{server} -p {port} {kind} {name}"),
    ]
}
