//! `node remove`: the tasks of a dead node, as `gc --decommission` removes them, and then the node itself.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::calico::{Edited, Kind, Made};
use crate::task::cleaner::{self, DecommissionError, DecommissionTerms, Decommissioned, Fate, Item};

use super::super::change::{ChangeFlags, ChangedObject};
use super::super::gc;
use super::super::output::{count, Format};
use super::super::session::Session;
use super::super::Failed;
use super::show::UnknownNode;

#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// The node's name in Calico
    name: String,
    /// Take the node for dead, even if it shows signs of life
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, thiserror::Error)]
enum RemoveError {
    #[error("the node {node} stays: it has {what} that calico-mesos did not make; `calicoctl delete node {node}` removes them with the node")]
    Foreign { node: String, what: String },
    #[error("the node {0} stays: not everything of its tasks could be removed; run this again")]
    Incomplete(String),
}

pub(super) async fn remove(arguments: &RemoveArguments, session: &Session) -> Result<ExitCode, Failed> {
    let (name, flags) = (&arguments.name, arguments.flags);
    // Nothing is taken from a node that has to stay. Why its own tasks keep it comes first.
    if let Err(foreign) = refuse_foreign(name, session).await? {
        let looked_at = decommission(arguments, true, session).await?;
        return match looked_at.signs.is_empty() || arguments.yes {
            true => Err(foreign.into()),
            false => Err(DecommissionError::Alive { node: name.clone(), signs: looked_at.signs }.into()),
        };
    }
    let done = decommission(arguments, flags.dry_run, session).await?;
    if matches!(flags.format(), Format::Table | Format::Wide) {
        gc::tell_node(name, &done, flags.dry_run, &session.out);
    }
    if done.items.iter().any(|(_, fate)| fate.is_left()) {
        return Err(RemoveError::Incomplete(name.clone()).into());
    }
    // It may have come meanwhile.
    refuse_foreign(name, session).await??;
    let removed = session.datastore().await?.retire(name, flags.dry_run).await?;
    let sentence = |made: &Made| match flags.dry_run {
        true => format!("to remove: {}", made.object),
        false => format!("{} is removed", made.object),
    };
    let sentences: Vec<String> = removed.iter().map(sentence).collect();
    let is_gone = |(item, fate): &&(Item, Fate)| {
        item.verdict.is_work() && (flags.dry_run || matches!(fate, Fate::Done))
    };
    let of_tasks = done.items.iter().filter(is_gone).map(|(item, _)| {
        let before = Some(json!({ "node": name }));
        ChangedObject::of(item.kind.word(), &item.name, Edited { before, after: None })
    });
    let all: Vec<ChangedObject> = of_tasks.chain(removed.into_iter().map(ChangedObject::from)).collect();
    Ok(session.report(flags, &all, &sentences))
}

async fn decommission(
    arguments: &RemoveArguments,
    dry_run: bool,
    session: &Session,
) -> Result<Decommissioned, Failed> {
    let name = &arguments.name;
    let terms = DecommissionTerms { grace: session.config.gc.grace, dead: arguments.yes, dry_run };
    match cleaner::decommission(&session.config, name, terms).await {
        Ok(done) => Ok(done),
        Err(DecommissionError::Unknown(_)) => {
            let nodes = session.datastore().await?.names(Kind::Node).await?;
            Err(UnknownNode::new(name, nodes.iter().map(String::as_str)).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// What other tools have on the node is theirs to remove.
async fn refuse_foreign(node: &str, session: &Session) -> Result<Result<(), RemoveError>, Failed> {
    let rest = session.datastore().await?.node_rest(node).await?;
    let parts = [(rest.endpoints.len(), "endpoint"), (rest.allocations.len(), "address")];
    let parts = parts.iter().filter(|(number, _)| *number > 0).map(|(number, noun)| count(*number, noun));
    let what = parts.collect::<Vec<_>>().join(" and ");
    Ok(match what.is_empty() {
        true => Ok(()),
        false => Err(RemoveError::Foreign { node: node.to_owned(), what }),
    })
}
