//! `policy …`: tiers and policies in the order in which Felix applies them, and what they do with a packet. Writing is
//! the real calicoctl's.

mod explain;
mod page;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{json, Value};

use crate::calico::{PolicyRecord, PolicyTier};

use crate::cli::output::{Listing, Output, Row};
use crate::cli::session::Session;
use crate::cli::Failed;

const NOT_KNOWN: &str = "-";

#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// List tiers and policies in the order in which Felix applies them, and how many endpoints each selects.
    Show(PolicyShow),
    /// Tell step by step which tier, policy and rule lets a packet through or stops it; exit code 0 allowed, 2 denied,
    /// 1 cannot tell.
    Explain(explain::PolicyExplain),
}

#[derive(Debug, Args)]
pub struct PolicyShow {
    /// Also show selectors, and numbers of rules and of host endpoints
    #[arg(long)]
    detailed: bool,
    #[command(flatten)]
    output: Output,
}

/// Runs the verb.
pub async fn policy(verb: &PolicyVerb, session: &Session) -> Result<ExitCode, Failed> {
    match verb {
        PolicyVerb::Show(arguments) => show(arguments, session).await,
        PolicyVerb::Explain(arguments) => explain::explain(arguments, session).await,
    }
}

async fn show(arguments: &PolicyShow, session: &Session) -> Result<ExitCode, Failed> {
    let (tiers, damaged) = session.datastore().await?.policies().await?;
    session.warn_of(&damaged);
    for tier in tiers.iter().filter(|tier| !tier.exists) {
        tracing::warn!("there is no tier '{}', but policies name it: Felix applies them last", tier.name);
    }
    let mut list = Listing::plain(&["TIER", "ORDER", "POLICY", "NAMESPACE", "TYPES", "ENDPOINTS"]);
    let details = ["HOSTS", "INBOUND", "OUTBOUND", "SELECTOR"];
    match arguments.detailed {
        true => list.header.extend(details),
        false => list.wide_header.extend(details),
    }
    for tier in &tiers {
        match tier.policies.is_empty() {
            true => list.rows.push(empty(tier, arguments.detailed)),
            false => {
                list.rows.extend(tier.policies.iter().map(|policy| row(tier, policy, arguments.detailed)))
            }
        }
    }
    list.print(arguments.output.output, &session.out);
    Ok(ExitCode::SUCCESS)
}

fn number(order: Option<f64>) -> String {
    order.map_or_else(|| NOT_KNOWN.to_owned(), |order| order.to_string())
}

fn count(count: Option<usize>) -> String {
    count.map_or_else(|| NOT_KNOWN.to_owned(), |count| count.to_string())
}

/// A tier in which no policy is.
fn empty(tier: &PolicyTier, detailed: bool) -> Row {
    let cells = [tier.name.as_str(), "-", "none", "", "", ""].map(str::to_owned);
    let details = vec![String::new(); 4];
    arranged(tier.name.clone(), cells, details, detailed, json_of(tier, None))
}

fn row(tier: &PolicyTier, policy: &PolicyRecord, detailed: bool) -> Row {
    let cells = [
        tier.name.clone(),
        number(policy.order),
        policy.name.clone(),
        policy.namespace.clone().unwrap_or_default(),
        policy.types.join(","),
        count(policy.endpoints),
    ];
    let selector = if policy.selector.trim().is_empty() { "all()" } else { &policy.selector };
    let details =
        vec![count(policy.hosts), policy.ingress.to_string(), policy.egress.to_string(), selector.to_owned()];
    arranged(policy.name.clone(), cells, details, detailed, json_of(tier, Some(policy)))
}

fn arranged(name: String, cells: [String; 6], details: Vec<String>, detailed: bool, json: Value) -> Row {
    let mut row = Row { name, cells: cells.to_vec(), json, ..Row::default() };
    match detailed {
        true => row.cells.extend(details),
        false => row.wide = details,
    }
    row
}

fn json_of(tier: &PolicyTier, policy: Option<&PolicyRecord>) -> Value {
    let policy = policy.map(|policy| {
        json!({
            "name": policy.name,
            "namespace": policy.namespace,
            "order": policy.order,
            "types": policy.types,
            "selector": policy.selector,
            "endpoints": policy.endpoints,
            "hostEndpoints": policy.hosts,
            "spec": policy.record.get("spec"),
        })
    });
    json!({
        "tier": {"name": tier.name, "order": tier.order, "defaultAction": tier.default_action, "exists": tier.exists},
        "policy": policy,
    })
}
