//! `policy explain FROM TO`: what Felix would do with a packet, out of the datastore.
//!
//! An app may have many endpoints: each pair of ends is followed, and one is shown of all that fare alike.

use std::process::ExitCode;

use clap::Args;

use crate::calico::{
    node_name, Explanation, Flow, FlowEnd, FlowEndKind, FlowList, HostForward, MeantEnds, PolicyVerdict,
    PolicyWorld,
};
use crate::cli::output::{Format, Output};
use crate::cli::session::Session;
use crate::cli::{complete, Failed};
use crate::net::forward;

use super::page;

/// Ends of an app that are followed: pairs of them are many.
const MOST_ENDS: usize = 32;

#[derive(Debug, Args)]
pub struct PolicyExplain {
    /// Where the packet comes from: a task id or a unique beginning of one, an app, an address, or a host
    #[arg(add = complete::tasks())]
    from: String,
    /// Where it goes to
    #[arg(add = complete::tasks())]
    to: String,
    /// What is sent: tcp/5432, udp/53, icmp, icmp/TYPE/CODE, or the number of a protocol; without it, all that may pass
    #[arg(long, short, value_name = "PROTOCOL/PORT", value_parser = Flow::parse)]
    port: Option<Flow>,
    #[command(flatten)]
    output: Output,
}

/// What was found out about a pair of ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PairFound {
    One(Explanation),
    All(FlowList),
}

/// Pairs of ends that fare alike; the first of them is shown.
#[derive(Debug)]
pub(super) struct PairOutcome {
    pub from: FlowEnd,
    pub to: FlowEnd,
    pub found: PairFound,
    pub pairs: usize,
}

impl PairFound {
    pub(super) fn verdict(&self) -> PolicyVerdict {
        match self {
            Self::One(explanation) => explanation.verdict,
            Self::All(list) => {
                let has = |verdict| list.flows.iter().any(|flow| flow.verdict == verdict);
                let verdicts = [PolicyVerdict::Allowed, PolicyVerdict::Unknown];
                verdicts.into_iter().find(|own| has(*own)).unwrap_or(PolicyVerdict::Denied)
            }
        }
    }

    pub(super) fn sample(&self) -> &Explanation {
        match self {
            Self::One(explanation) => explanation,
            Self::All(list) => &list.sample,
        }
    }

    /// Whether two pairs fare alike, by the same rules.
    fn is_like(&self, other: &Self) -> bool {
        let steps = |explanation: &Explanation| -> Vec<String> {
            let sides = explanation.sides.iter().flat_map(|side| &side.steps);
            sides.map(|step| format!("{} {}", step.text, step.outcome)).collect()
        };
        match (self, other) {
            (Self::One(one), Self::One(other)) => one.verdict == other.verdict && steps(one) == steps(other),
            (Self::All(one), Self::All(other)) => {
                let plain = |list: &FlowList| -> Vec<(String, PolicyVerdict)> {
                    list.flows.iter().map(|flow| (flow.what.clone(), flow.verdict)).collect()
                };
                plain(one) == plain(other)
            }
            _ => false,
        }
    }
}

/// Runs the verb.
pub(super) async fn explain(arguments: &PolicyExplain, session: &Session) -> Result<ExitCode, Failed> {
    let (mut world, damaged) = session.datastore().await?.policy_world().await?;
    session.warn_of(&damaged);
    let (from, to) = (world.meant(&arguments.from)?, world.meant(&arguments.to)?);
    let unseen = read_forwards(&mut world, &to, session).await;
    let mut outcomes = outcomes(&world, &from, &to, arguments.port);
    if let Some(unseen) = unseen {
        for outcome in &mut outcomes {
            match &mut outcome.found {
                PairFound::One(explanation) => explanation.not_seen.push(unseen.clone()),
                PairFound::All(list) => list.sample.not_seen.push(unseen.clone()),
            }
        }
    }
    let verdict = overall(&outcomes, arguments.port.is_some());
    let out = &session.out;
    match arguments.output.output {
        format @ (Format::Json | Format::Yaml) => {
            let words = [arguments.from.as_str(), arguments.to.as_str()];
            out.value(format, &page::document(&world, words, arguments.port, verdict, &outcomes));
        }
        Format::Name => out.line(verdict.word()),
        Format::Table | Format::Wide => {
            for (index, outcome) in outcomes.iter().enumerate() {
                if index > 0 {
                    out.line("");
                }
                page::print(&world, outcome, arguments.port, out);
            }
            warn_of_ends(&from, &to);
        }
    }
    Ok(match verdict {
        PolicyVerdict::Allowed => ExitCode::SUCCESS,
        PolicyVerdict::Denied => ExitCode::from(2),
        PolicyVerdict::Unknown => ExitCode::FAILURE,
    })
}

/// One packet has to pass between all pairs; a list has to have something in it for one.
fn overall(outcomes: &[PairOutcome], of_one: bool) -> PolicyVerdict {
    let has = |verdict| outcomes.iter().any(|outcome| outcome.found.verdict() == verdict);
    let order = match of_one {
        true => [PolicyVerdict::Denied, PolicyVerdict::Unknown, PolicyVerdict::Allowed],
        false => [PolicyVerdict::Allowed, PolicyVerdict::Unknown, PolicyVerdict::Denied],
    };
    order.into_iter().find(|verdict| has(*verdict)).unwrap_or(PolicyVerdict::Unknown)
}

fn outcomes(world: &PolicyWorld, from: &MeantEnds, to: &MeantEnds, flow: Option<Flow>) -> Vec<PairOutcome> {
    let mut outcomes: Vec<PairOutcome> = Vec::new();
    let is_several = from.ends.len() > 1 || to.ends.len() > 1;
    for one in from.ends.iter().take(MOST_ENDS) {
        // An endpoint reaches itself: of an app, what its others can do is meant.
        let others = to.ends.iter().take(MOST_ENDS).filter(|other| !is_several || other.kind != one.kind);
        for other in others {
            let found = match flow {
                Some(flow) => PairFound::One(world.explain(one, other, flow)),
                None => PairFound::All(world.allowed(one, other)),
            };
            match outcomes.iter_mut().find(|outcome| outcome.found.is_like(&found)) {
                Some(outcome) => outcome.pairs += 1,
                None => outcomes.push(PairOutcome { from: one.clone(), to: other.clone(), found, pairs: 1 }),
            }
        }
    }
    outcomes
}

fn warn_of_ends(from: &MeantEnds, to: &MeantEnds) {
    for meant in [from, to] {
        if meant.ends.len() > MOST_ENDS {
            tracing::warn!(
                "{} has {} endpoints: {MOST_ENDS} of them were tried",
                meant.what,
                meant.ends.len()
            );
        }
    }
}

/// The ports of this host that lead to tasks; those of others are in their own kernels. What stays unseen.
async fn read_forwards(world: &mut PolicyWorld, to: &MeantEnds, session: &Session) -> Option<String> {
    let hosts = to.ends.iter().filter_map(|end| match &end.kind {
        FlowEndKind::Host(name) => Some(name.clone()),
        _ => None,
    });
    let host = hosts.into_iter().next()?;
    let unseen = format!("ports of {host} that lead to tasks: run this there, as root");
    if node_name(&session.config).ok().as_ref() != Some(&host) {
        return Some(unseen);
    }
    let Ok(all) = forward::all().await else { return Some(unseen) };
    for (container, mappings) in all {
        world.forwards.extend(mappings.iter().map(|mapping| HostForward {
            host: host.clone(),
            protocol: mapping.protocol as u8,
            port: mapping.host,
            container_id: container.to_string(),
            task_port: mapping.task,
        }));
    }
    None
}
