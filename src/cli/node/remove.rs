//! `node remove`: the tasks of a dead node, as `gc --decommission` removes them, and then the node itself.

use std::process::ExitCode;

use clap::Args;

use crate::task::cleaner::{self, DecommissionError, DecommissionTerms};

use super::super::gc;
use super::super::output::count;
use super::super::session::{DryRun, Session};
use super::super::Failed;
use super::exit_code;
use super::show::UnknownNode;

#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// The node's name in Calico
    name: String,
    /// Take the node for dead, even if it shows signs of life
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, thiserror::Error)]
enum RemoveError {
    #[error("the node {node} stays: it has {what} that calico-mesos did not make; `calicoctl delete node {node}` removes them with the node")]
    Foreign { node: String, what: String },
    #[error("the node {0} stays: not everything of its tasks could be removed; run this again")]
    Incomplete(String),
}

pub(super) async fn remove(arguments: &RemoveArguments, session: &Session) -> Result<ExitCode, Failed> {
    let (name, dry_run) = (&arguments.name, arguments.dry_run);
    let terms =
        DecommissionTerms { grace: session.config.gc.grace, dead: arguments.yes, dry_run: dry_run.dry_run };
    let done = match cleaner::decommission(&session.config, name, terms).await {
        Ok(done) => done,
        Err(DecommissionError::Unknown(_)) => {
            let nodes = session.datastore().await?.nodes().await?;
            return Err(UnknownNode::new(name, &nodes.found).into());
        }
        Err(error) => return Err(error.into()),
    };
    gc::tell_node(name, &done, dry_run.dry_run, &session.out);
    if done.items.iter().any(|(_, fate)| fate.is_left()) {
        return Err(RemoveError::Incomplete(name.clone()).into());
    }
    let mut datastore = session.datastore().await?;
    let rest = datastore.node_rest(name).await?;
    let (endpoints, held) = (rest.endpoints.len(), rest.allocations.len());
    if endpoints + held > 0 {
        let parts = [(endpoints, "endpoint"), (held, "address")];
        let parts = parts.iter().filter(|(number, _)| *number > 0).map(|(number, noun)| count(*number, noun));
        let what = parts.collect::<Vec<_>>().join(" and ");
        return Err(RemoveError::Foreign { node: name.clone(), what }.into());
    }
    let removed = datastore.retire(name, dry_run.dry_run).await?;
    for made in &removed {
        session.record(&made.object, &made.edited, dry_run);
        session.out.line(match dry_run.dry_run {
            true => format!("to remove: {}", made.object),
            false => format!("{} is removed", made.object),
        });
    }
    Ok(exit_code(dry_run.dry_run))
}
