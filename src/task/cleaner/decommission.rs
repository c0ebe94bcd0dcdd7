//! Removes what Calico's datastore holds for the tasks of a host that died for good. It runs on any other host.
//!
//! A host that lives would lose its tasks' addresses to others. So it refuses this host itself, and a node that shows a
//! sign of life: its Felix or its Consul agent reports, an endpoint is younger than the grace period, or this host has
//! a living task of that node.
//!
//! The absence of signs proves nothing: the operator decides. Calico's own node stays, with its tunnel addresses;
//! `calicoctl delete node` removes it, with the endpoints and addresses of other tools.

use std::time::Duration;

use crate::calico::{self, CalicoError, Datastore, Inventory, Released};
use crate::config::Config;
use crate::consul;
use crate::error::chain;
use crate::task::network;
use crate::task::record::journal::{Journal, Peeked};
use crate::task::report::audit;

use super::execute::{self, Fate};
use super::plan::{Item, ItemKind, Plan, Verdict};
use super::records;
use super::seen::Survey;

#[derive(Debug, thiserror::Error)]
pub enum DecommissionError {
    #[error("{0} is this host; run `calico-mesos gc` without --node to clean up after its tasks")]
    ThisHost(String),
    #[error("Calico's datastore has no node '{0}', and nothing that belongs to a node of that name")]
    Unknown(String),
    #[error("{node} shows signs of life: {}; its tasks would lose their addresses to others (use --yes if it is dead all the same)", .signs.join("; "))]
    Alive { node: String, signs: Vec<String> },
    #[error("cannot list what Calico's datastore holds for {node}")]
    Calico {
        node: String,
        #[source]
        source: CalicoError,
    },
}

/// What the operator asks for.
#[derive(Debug, Clone, Copy)]
pub struct DecommissionTerms {
    /// An endpoint younger than this is a sign of life.
    pub grace: Duration,
    /// Take the node for dead, even if it shows signs of life.
    pub dead: bool,
    pub dry_run: bool,
}

#[derive(Debug)]
pub struct Decommissioned {
    pub items: Vec<(Item, Fate)>,
    /// Signs of life; only where they did not count, or in a dry run.
    pub signs: Vec<String>,
    /// What could not be checked for signs of life.
    pub silent: Vec<String>,
}

/// Takes away what Calico has of the node's tasks, and the node's empty blocks.
pub async fn decommission(
    config: &Config,
    node: &str,
    terms: DecommissionTerms,
) -> Result<Decommissioned, DecommissionError> {
    let failed = |source| DecommissionError::Calico { node: node.to_owned(), source };
    if calico::node_name(config).map_err(failed)? == node {
        return Err(DecommissionError::ThisHost(node.to_owned()));
    }
    let mut datastore = Datastore::connect(config).await.map_err(failed)?;
    let inventory = datastore.whole_inventory(node).await.map_err(failed)?;
    let seen = datastore.signs_of_life(node).await;
    let empty =
        inventory.endpoints.is_empty() && inventory.allocations.is_empty() && inventory.blocks.is_empty();
    if empty && !seen.as_ref().map_err(|_| ()).is_ok_and(|seen| seen.known) {
        return Err(DecommissionError::Unknown(node.to_owned()));
    }
    let mut survey = Survey::new(node.to_owned());
    let mut silent = Vec::new();
    let mut signs = Vec::new();
    match seen {
        Ok(seen) if seen.felix => signs.push("its Felix has reported within the last 90 s".to_owned()),
        Ok(_) => {}
        Err(error) => silent.push(chain(&error)),
    }
    signs.extend(young_endpoint(&inventory, &survey, terms.grace));
    signs.extend(lives_here(config, node));
    if config.consul.enabled {
        let look = async { consul::Client::new(config)?.node_lives(node).await };
        let seen: Result<bool, consul::ConsulError> = look.await;
        match seen {
            Ok(true) => signs.push("Consul reports a node of that name as alive".to_owned()),
            Ok(false) => {}
            Err(error) => silent.push(chain(&error)),
        }
    }
    if !signs.is_empty() && !terms.dead && !terms.dry_run {
        return Err(DecommissionError::Alive { node: node.to_owned(), signs });
    }
    let blocks = inventory.blocks.iter().map(|block| {
        let its = inventory.allocations.iter().filter(|allocation| allocation.block == *block);
        (*block, its.map(|allocation| allocation.address).collect())
    });
    let blocks: Vec<_> = blocks.collect();
    survey.sort(inventory);
    let plan = Plan::of_dead_node(&survey, &blocks);
    let fates = match terms.dry_run {
        true => vec![Fate::Untouched; plan.items.len()],
        false => carry_out(config, &mut datastore, &survey, &plan).await,
    };
    Ok(Decommissioned { items: plan.items.into_iter().zip(fates).collect(), signs, silent })
}

fn young_endpoint(inventory: &Inventory, survey: &Survey, grace: Duration) -> Option<String> {
    let created = inventory.endpoints.iter().filter_map(|seen| seen.endpoint.created).max()?;
    let age = survey.now.duration_since(created).unwrap_or_default();
    let told = humantime::format_duration(Duration::from_secs(age.as_secs()));
    (age < grace).then(|| format!("an endpoint of it was made {told} ago"))
}

/// A host that has been given another name has tasks that live under the old one.
fn lives_here(config: &Config, node: &str) -> Option<String> {
    let journal = config.paths.journal();
    if !journal.exists() {
        return None;
    }
    // The cleaner of this host reports what cannot be read here.
    let files = records::files(&journal).unwrap_or_default();
    let mut records = files.iter().filter_map(|path| match Journal::peek(path) {
        Ok(Some(Peeked::Owned(record))) => record,
        _ => None,
    });
    let record = records.find(|record| record.identity.node == node)?;
    Some(format!("its task {} lives on this host", record.identity.task_id))
}

/// One transaction a task, then one a block.
async fn carry_out(config: &Config, datastore: &mut Datastore, survey: &Survey, plan: &Plan) -> Vec<Fate> {
    let mut ends = std::collections::BTreeMap::new();
    for container in &plan.remove {
        let Some(trace) = survey.traces.get(container) else { continue };
        let record = execute::record(config, survey, container, trace);
        let revision = trace.endpoint.as_ref().map_or(0, |seen| seen.revision);
        let end = match datastore.release_as_seen(&record.identity, revision, &trace.blocks()).await {
            Ok(Some(released)) => {
                audit::returned(config, &record, &released.addresses);
                let line = format!("taken out of Calico ({})", network::join(&released.addresses));
                audit::cleaner_says(config, &record.identity.task_id, &line);
                Ok(released)
            }
            Ok(None) => Err("it has changed meanwhile".to_owned()),
            Err(error) => Err(chain(&error)),
        };
        ends.insert(container.clone(), end);
    }
    let mut fates = Vec::new();
    for item in &plan.items {
        let block = item.name.parse().ok().filter(|_| item.kind == ItemKind::Block);
        fates.push(match (&item.container, block, item.verdict) {
            (Some(container), _, verdict) if verdict.is_work() => {
                ends.get(container).map_or(Fate::Untouched, |end| fate(item, end))
            }
            (None, Some(cidr), Verdict::Remove) => match datastore.give_up_block(&survey.node, &cidr).await {
                Ok(true) => {
                    audit::cleaner_says(config, &survey.node, &format!("block {cidr} removed"));
                    Fate::Done
                }
                Ok(false) => Fate::Left("an address in it is in use".into()),
                Err(error) => Fate::Left(chain(&error)),
            },
            _ => Fate::Untouched,
        });
    }
    fates
}

/// What became of an item, by what the release of its task has found.
fn fate(item: &Item, end: &Result<Released, String>) -> Fate {
    let released = match end {
        Ok(released) => released,
        Err(why) => return Fate::Left(why.clone()),
    };
    let was_there = match item.kind {
        ItemKind::Endpoint => released.endpoint,
        ItemKind::Address => released.addresses.iter().any(|address| address.to_string() == item.name),
        _ => true,
    };
    match was_there {
        true => Fate::Done,
        false => Fate::Gone,
    }
}
