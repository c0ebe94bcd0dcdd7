//! What `policy explain` prints: a headline, a line a tier at each side, and below it what would have helped.

use serde_json::{json, Value};

use crate::calico::{
    Explanation, Flow, FlowEnd, FlowEndKind, FlowList, PolicySide, PolicyStep, PolicyVerdict, PolicyWorld,
};
use crate::cli::output::{Colour, Out};
use crate::error::is_deceptive;

use super::explain::{PairFound, PairOutcome};

const SCHEMA: u32 = 1;
/// Lines longer than this do not push the column of outcomes further to the right.
const WIDEST: usize = 100;
/// `ingress` and `egress`.
const WAY: usize = 8;

/// Prints one outcome.
pub(super) fn print(world: &PolicyWorld, outcome: &PairOutcome, flow: Option<Flow>, out: &Out) {
    let sample = outcome.found.sample();
    let ends = [(&outcome.from, sample.source), (&outcome.to, sample.destination)];
    let [from, to] = ends.map(|(end, address)| {
        let parts: Vec<String> = address
            .filter(|own| own.to_string() != world.name_of(end))
            .map(|own| own.to_string())
            .into_iter()
            .chain(profiles(world, end))
            .collect();
        match parts.is_empty() {
            true => world.name_of(end),
            false => format!("{} ({})", world.name_of(end), parts.join(", ")),
        }
    });
    let what = flow.map(|flow| format!("  {flow}")).unwrap_or_default();
    let verdict = headline(&outcome.found);
    out.line(format!(
        "{}      {}",
        cleaned(&format!("{from}  ->  {to}{what}")),
        coloured(out, outcome.found.verdict(), &verdict)
    ));
    match &outcome.found {
        PairFound::One(explanation) => sides(&explanation.sides, out),
        PairFound::All(list) => flows(list, out),
    }
    for note in &sample.notes {
        out.line(cleaned(&format!("  note: {note}")));
    }
    if !sample.not_seen.is_empty() {
        out.line(cleaned(&format!("  not seen: {}", sample.not_seen.join("; "))));
    }
    if outcome.pairs > 1 {
        out.line(format!("  {} pairs of endpoints fare alike; this is one of them", outcome.pairs));
    }
}

fn profiles(world: &PolicyWorld, end: &FlowEnd) -> Option<String> {
    let FlowEndKind::Workload(index) = end.kind else { return None };
    let profiles = &world.workloads.get(index)?.profiles;
    (!profiles.is_empty()).then(|| profiles.join(","))
}

/// `DENIED at db, ingress`.
fn headline(found: &PairFound) -> String {
    match (found, found.verdict()) {
        (PairFound::All(_), PolicyVerdict::Allowed) => "may send:".to_owned(),
        (_, PolicyVerdict::Allowed) => "ALLOWED".to_owned(),
        (PairFound::All(_), PolicyVerdict::Denied) => "DENIED, whatever it is".to_owned(),
        (_, verdict) => {
            let places = found.sample().sides.iter().filter(|side| side.verdict == verdict);
            let places: Vec<String> =
                places.map(|side| format!("{}, {}", side.at, side.way.word())).collect();
            let word = if verdict == PolicyVerdict::Denied { "DENIED" } else { "CANNOT TELL" };
            match places.is_empty() {
                true => word.to_owned(),
                false => cleaned(&format!("{word} at {}", places.join(" and at "))),
            }
        }
    }
}

fn coloured(out: &Out, verdict: PolicyVerdict, text: &str) -> String {
    let colour = match verdict {
        PolicyVerdict::Allowed => Colour::Green,
        PolicyVerdict::Denied => Colour::Red,
        PolicyVerdict::Unknown => Colour::Yellow,
    };
    out.coloured(colour, text)
}

fn sides(sides: &[PolicySide], out: &Out) {
    let names = sides.iter().map(|side| side.at.chars().count()).max().unwrap_or_default();
    let margin = 2 + names + 2 + WAY + 2;
    let steps = || sides.iter().flat_map(|side| &side.steps);
    let widths = steps().map(|step| step.text.chars().count()).filter(|width| *width <= WIDEST);
    let width = widths.max().unwrap_or_default();
    for side in sides {
        for (index, step) in side.steps.iter().enumerate() {
            let (at, way) = if index == 0 { (side.at.as_str(), side.way.word()) } else { ("", "") };
            let line = format!("  {at:names$}  {way:WAY$}  {:width$}      {}", step.text, step.outcome);
            out.line(cleaned(&line));
            for hint in &step.hints {
                out.line(cleaned(&format!("{:margin$}> {hint}", "")));
            }
            for unknown in &step.not_evaluated {
                out.line(cleaned(&format!("{:margin$}! {unknown}", "")));
            }
        }
    }
}

fn flows(list: &FlowList, out: &Out) {
    let (denied, others): (Vec<_>, Vec<_>) =
        list.flows.iter().partition(|flow| flow.verdict == PolicyVerdict::Denied);
    let width =
        others.iter().map(|flow| flow.what.chars().count()).max().unwrap_or_default().max("all else".len());
    for flow in &others {
        let word = if flow.verdict == PolicyVerdict::Unknown { "cannot tell: " } else { "" };
        out.line(cleaned(&format!("  {:width$}  {word}{}", flow.what, flow.by.join("; "))));
    }
    let mut reasons: Vec<String> = Vec::new();
    for flow in &denied {
        let reason = flow.by.join("; ");
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    let word = if others.is_empty() { "all" } else { "all else" };
    for (index, reason) in reasons.iter().enumerate() {
        let word = if index == 0 { word } else { "" };
        out.line(cleaned(&format!("  {word:width$}  denied: {reason}")));
    }
}

/// Names are others': what a terminal would obey is left out.
fn cleaned(text: &str) -> String {
    text.replace(is_deceptive, " ").trim_end().to_owned()
}

/// The form for programs; README.md documents it.
pub(super) fn document(
    world: &PolicyWorld,
    words: [&str; 2],
    flow: Option<Flow>,
    verdict: PolicyVerdict,
    outcomes: &[PairOutcome],
) -> Value {
    let outcomes: Vec<Value> = outcomes.iter().map(|outcome| of_outcome(world, outcome)).collect();
    json!({
        "schema": SCHEMA,
        "from": words[0],
        "to": words[1],
        "flow": flow.map(|flow| flow.to_string()),
        "verdict": verdict.word(),
        "outcomes": outcomes,
    })
}

fn of_outcome(world: &PolicyWorld, outcome: &PairOutcome) -> Value {
    let sample = outcome.found.sample();
    let mut value = json!({
        "pairs": outcome.pairs,
        "from": of_end(world, &outcome.from, sample.source.map(|own| own.to_string())),
        "to": of_end(world, &outcome.to, sample.destination.map(|own| own.to_string())),
        "verdict": outcome.found.verdict().word(),
        "notes": sample.notes,
        "notSeen": sample.not_seen,
    });
    let (name, list) = match &outcome.found {
        PairFound::One(explanation) => ("sides", of_sides(explanation)),
        PairFound::All(list) => ("flows", of_flows(list)),
    };
    value[name] = list;
    value
}

fn of_end(world: &PolicyWorld, end: &FlowEnd, address: Option<String>) -> Value {
    let (kind, endpoint) = match &end.kind {
        FlowEndKind::Workload(index) => ("task", world.workloads.get(*index)),
        FlowEndKind::Host(_) => ("host", None),
        FlowEndKind::Outside => ("address", None),
    };
    json!({
        "kind": kind,
        "name": world.name_of(end),
        "address": address,
        "host": endpoint.map(|own| own.node.clone()),
        "endpoint": endpoint.map(|own| own.name.clone()),
        "app": endpoint.and_then(|own| own.app.clone()),
        "profiles": endpoint.map(|own| own.profiles.clone()),
    })
}

fn of_sides(explanation: &Explanation) -> Value {
    let side = |side: &PolicySide| {
        json!({
            "at": side.at,
            "way": side.way.word(),
            "verdict": side.verdict.word(),
            "steps": side.steps.iter().map(of_step).collect::<Vec<Value>>(),
        })
    };
    explanation.sides.iter().map(side).collect()
}

fn of_step(step: &PolicyStep) -> Value {
    json!({
        "text": step.text,
        "outcome": step.outcome,
        "tier": step.tier,
        "policy": step.policy,
        "profile": step.profile,
        "rule": step.rule,
        "hints": step.hints,
        "notEvaluated": step.not_evaluated,
    })
}

fn of_flows(list: &FlowList) -> Value {
    let flow = |flow: &crate::calico::AllowedFlow| json!({"flow": flow.what, "verdict": flow.verdict.word(), "by": flow.by});
    list.flows.iter().map(flow).collect()
}
