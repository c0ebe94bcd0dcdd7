//! `node show`: the nodes of the cluster with what each of them has, and when it was last alive.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use crate::calico::NodeView;
use crate::names;

use super::super::output::{Listing, Output, Row};
use super::super::session::Session;
use super::super::Failed;

/// How similar a name has to be, between 0 and 1, to be named where an unknown one is refused.
const SIMILAR: f64 = 0.7;

#[derive(Debug, Args)]
pub struct ShowArguments {
    /// Only this node
    name: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, thiserror::Error)]
#[error("Calico's datastore has no node '{name}', and nothing that belongs to one{}", .nearest.as_ref().map(|name| format!("; the nearest name is '{name}'")).unwrap_or_default())]
pub(in crate::cli) struct UnknownNode {
    name: String,
    nearest: Option<String>,
}

impl UnknownNode {
    pub(in crate::cli) fn new<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let nearest = names::nearest(name, known, SIMILAR);
        Self { name: name.to_owned(), nearest: nearest.map(str::to_owned) }
    }
}

pub(super) async fn show(arguments: &ShowArguments, session: &Session) -> Result<ExitCode, Failed> {
    let mut nodes = session.datastore().await?.nodes().await?;
    if let Some(name) = &arguments.name {
        if !nodes.found.iter().any(|node| node.name == *name) {
            let known = nodes.found.iter().map(|node| node.name.as_str());
            return Err(UnknownNode::new(name, known).into());
        }
        nodes.found.retain(|node| node.name == *name);
    }
    let header = ["NODE", "ADDRESS", "AS", "TUNNEL", "BLOCKS", "ADDRESSES", "ENDPOINTS", "LAST SIGN OF LIFE"];
    let now = SystemTime::now();
    let listing = Listing {
        rows: nodes.found.iter().map(|node| row(node, now)).collect(),
        wide_header: vec!["IPV6", "LABELS"],
        ..Listing::plain(&header)
    };
    listing.print(arguments.output.output, &session.out);
    session.warn_of(&nodes.damaged);
    for node in nodes.found.iter().filter(|node| !node.known) {
        tracing::warn!(
            "blocks, addresses or endpoints belong to '{}', and there is no such node; `calico-mesos gc --decommission \
             --node {}` removes them",
            node.name,
            node.name
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn row(node: &NodeView, now: SystemTime) -> Row {
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let tunnels: Vec<String> =
        node.tunnels.iter().map(|tunnel| format!("{} {}", tunnel.mode.word(), tunnel.address)).collect();
    let tunnels = if tunnels.is_empty() { "-".to_owned() } else { tunnels.join(", ") };
    let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let seen = node.seen.map(|seen| {
        let age = now.duration_since(seen.at).unwrap_or_default();
        format!(
            "{} ago ({})",
            super::super::gc::duration(Duration::from_secs(age.as_secs())),
            seen.source.word()
        )
    });
    Row {
        name: node.name.clone(),
        cells: vec![
            node.name.clone(),
            dash(&node.address),
            dash(&node.as_number),
            tunnels,
            node.blocks.to_string(),
            node.addresses.to_string(),
            node.endpoints.to_string(),
            dash(&seen),
        ],
        wide: vec![dash(&node.address6), if labels.is_empty() { "-".to_owned() } else { labels.join(",") }],
        json: json!({
            "name": node.name,
            "known": node.known,
            "address": node.address,
            "address_v6": node.address6,
            "as_number": node.as_number,
            "tunnels": node.tunnels.iter()
                .map(|tunnel| json!({"mode": tunnel.mode.word(), "address": tunnel.address})).collect::<Vec<_>>(),
            "blocks": node.blocks,
            "addresses": node.addresses,
            "endpoints": node.endpoints,
            "felix_reports": node.felix,
            "last_sign_of_life": node.seen.map(|seen| json!({
                "time": humantime::format_rfc3339_seconds(seen.at).to_string(), "source": seen.source.word(),
            })),
            "resource": node.record,
        }),
    }
}
