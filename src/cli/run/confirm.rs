//! The question before something is launched on daemons that are not our own.

use std::io::BufRead;

use crate::calico;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{count, Out};
use crate::error::chain;

use super::place::RunPlace;
use super::report;
use super::summary::AppSummary;

/// Says which cluster it will be and asks; `yes` answers beforehand.
pub async fn confirm(
    place: &RunPlace,
    summary: &AppSummary,
    instances: usize,
    yes: bool,
    interrupt: &Interrupt,
    out: &Out,
) -> std::io::Result<bool> {
    for line in describe(place, summary, instances).await {
        out.line(line);
    }
    if yes {
        return Ok(true);
    }
    out.part("go on? [y/N] ");
    // A thread that waits for a terminal cannot be stopped; the program ends without it.
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    tokio::select! {
        answer = answer => {
            let answer = answer.map_err(std::io::Error::other)??;
            Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
        }
        () = interrupt.asked() => {
            out.line("");
            Ok(false)
        }
    }
}

async fn describe(place: &RunPlace, summary: &AppSummary, instances: usize) -> Vec<String> {
    let mut lines =
        vec![format!("launching {} of {} on this machine:", count(instances, "instance"), summary.app)];
    let mut fact = |name: &str, value: String| lines.push(format!("  {name:<8}{value}"));
    if summary.image.is_some() {
        fact("Docker", place.docker.clone());
    }
    if summary.is_calico() {
        fact("etcd", place.config.etcd.endpoints.join(" "));
        let overview = report::overview(place, summary).await;
        let node =
            calico::node_name(&place.config).unwrap_or_else(|error| format!("unknown: {}", chain(&error)));
        let known = overview.as_ref().is_none_or(|overview| overview.node_known);
        fact("node", if known { node } else { format!("{node} (not in Calico's datastore)") });
        fact(
            "pools",
            match overview {
                None => "unknown: etcd does not answer".to_owned(),
                Some(overview) if overview.pools.is_empty() => "none that is enabled".to_owned(),
                Some(overview) => {
                    overview.pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                }
            },
        );
        let consul = match place.has_consul() {
            true => format!("entries at {}", place.config.consul.address),
            false => "nothing is registered (--register registers the tasks)".to_owned(),
        };
        fact("Consul", consul);
    }
    lines
}
