//! What would have let a packet through: the rules that it misses by one thing.

use super::super::selector::{LabelChange, LabelTest, Selector};
use super::flow::protocol_name;
use super::rule::{Misfit, PacketEnd, RuleAction, RulePort};
use super::world::{PolicyLabels, PolicyWorld};

/// More would hide the one that is meant.
const MOST: usize = 3;
/// A rule that wants more changes of labels is not near.
const MOST_CHANGES: usize = 2;
/// So many networks or ports of a rule are named.
const MOST_NAMED: usize = 4;

/// One end of a flow as messages name it.
#[derive(Debug, Clone, Default)]
pub(super) struct FlowName<'a> {
    pub name: String,
    /// Of an endpoint; an address alone has none.
    pub labels: Option<&'a PolicyLabels>,
    pub profiles: &'a [String],
}

/// Both ends.
#[derive(Debug, Clone, Default)]
pub(super) struct FlowNames<'a> {
    pub source: FlowName<'a>,
    pub destination: FlowName<'a>,
}

/// The near misses of one step.
pub(super) struct Hints<'a> {
    world: &'a PolicyWorld,
    names: &'a FlowNames<'a>,
    /// Of several policies, each hint names its own.
    several: bool,
    texts: Vec<String>,
}

impl<'a> Hints<'a> {
    pub(super) fn new(world: &'a PolicyWorld, names: &'a FlowNames<'a>, several: bool) -> Self {
        Self { world, names, several, texts: Vec::new() }
    }

    /// A rule that the packet did not fit.
    pub(super) fn missed(&mut self, what: &str, number: usize, action: RuleAction, misfits: Vec<Misfit<'_>>) {
        let ([misfit], RuleAction::Allow) = (misfits.as_slice(), action) else { return };
        if let Some(wish) = self.wish(misfit) {
            let rule = self.rule(what, number);
            self.texts.push(format!("{rule} would allow it {wish}"));
        }
    }

    /// A rule that would have matched, had another not come first.
    pub(super) fn shadowed(&mut self, what: &str, number: usize, first: usize) {
        let rule = self.rule(what, number);
        self.texts.push(format!("{rule} would allow it, but rule {first} comes first"));
    }

    pub(super) fn texts(mut self) -> Vec<String> {
        self.texts.truncate(MOST);
        self.texts
    }

    fn rule(&self, what: &str, number: usize) -> String {
        match self.several {
            true => format!("{what} rule {number}"),
            false => format!("rule {number}"),
        }
    }

    fn end(&self, end: PacketEnd) -> &FlowName<'a> {
        match end {
            PacketEnd::Source => &self.names.source,
            PacketEnd::Destination => &self.names.destination,
        }
    }

    /// None: nothing that a person would change.
    fn wish(&self, misfit: &Misfit<'_>) -> Option<String> {
        let some = |texts: Vec<String>| match texts.len() > MOST_NAMED {
            true => format!("{} or {} more", texts[..MOST_NAMED].join(", "), texts.len() - MOST_NAMED),
            false => texts.join(" or "),
        };
        let verb = |end: &PacketEnd| match end {
            PacketEnd::Source => "came from",
            PacketEnd::Destination => "went to",
        };
        Some(match misfit {
            Misfit::Void => return None,
            Misfit::Version(version) => format!("if it were IPv{version}"),
            Misfit::Protocol(protocol) => format!("if it were {}", protocol_name(*protocol)),
            Misfit::NotProtocol => "if it were another protocol".to_owned(),
            Misfit::Icmp(kind, None) => format!("if it were ICMP type {kind}"),
            Misfit::Icmp(kind, Some(code)) => format!("if it were ICMP type {kind} code {code}"),
            Misfit::NotIcmp => "if it were another ICMP type".to_owned(),
            Misfit::Nets(end, nets) => {
                format!("if it {} {}", verb(end), some(nets.iter().map(ToString::to_string).collect()))
            }
            Misfit::NotNets(PacketEnd::Source) => "if it did not come from an excluded network".to_owned(),
            Misfit::NotNets(PacketEnd::Destination) => "if it did not go to an excluded network".to_owned(),
            Misfit::Ports(end, ports) => {
                let named = |port: &RulePort| match port {
                    RulePort::Numbers(_) => port.to_string(),
                    RulePort::Named(name) => format!("named {name}"),
                };
                let ports = some(ports.iter().map(named).collect());
                match end {
                    PacketEnd::Source => format!("if it came from port {ports}"),
                    PacketEnd::Destination => format!("if it went to port {ports}"),
                }
            }
            Misfit::NotPorts(PacketEnd::Source) => "if it came from another port".to_owned(),
            Misfit::NotPorts(PacketEnd::Destination) => "if it went to another port".to_owned(),
            Misfit::Labels(end, selector, wanted) => self.labels(*end, selector, *wanted)?,
        })
    }

    fn labels(&self, end: PacketEnd, selector: &Selector, wanted: bool) -> Option<String> {
        let end = self.end(end);
        let none = PolicyLabels::new();
        let labels = end.labels.unwrap_or(&none);
        let changes = selector.changes(labels, wanted)?;
        if changes.is_empty() || changes.len() > MOST_CHANGES {
            return None;
        }
        if end.labels.is_none() {
            let wants: Option<Vec<String>> = changes.iter().map(wanted_label).collect();
            return Some(format!(
                "if {} belonged to an endpoint or a network set with the label {}",
                end.name,
                wants?.join(" and ")
            ));
        }
        let clauses: Vec<String> = changes.iter().map(|change| self.clause(end, labels, change)).collect();
        Some(format!("if {}", clauses.join(" and ")))
    }

    /// `web had the label role=api (it has role=web)`.
    fn clause(&self, end: &FlowName<'_>, labels: &PolicyLabels, change: &LabelChange) -> String {
        let (who, key) = (&end.name, &change.key);
        let Some(label) = wanted_label(change) else {
            let own = labels.get(key).filter(|value| !value.is_empty());
            let own = own.map(|value| format!("={value}")).unwrap_or_default();
            return format!("{who} did not have the label {key}{own}");
        };
        let applies = |labels: &PolicyLabels| {
            labels.get(key).is_some_and(|value| change.test.holds(Some(value)) == change.wanted)
        };
        let mut profiles = self.world.profiles.iter().filter(|(_, profile)| applies(&profile.labels));
        match (profiles.next(), labels.get(key)) {
            (Some((profile, _)), None) => {
                let has = if end.profiles.is_empty() { "none".to_owned() } else { end.profiles.join(",") };
                format!("{who} had the profile {profile} (it has {has})")
            }
            (_, Some(value)) => format!("{who} had the label {label} (it has {key}={value})"),
            (None, None) => format!("{who} had the label {label}"),
        }
    }
}

/// The label that a change asks for; none where it asks for the absence of one.
fn wanted_label(change: &LabelChange) -> Option<String> {
    let key = &change.key;
    match (&change.test, change.wanted) {
        (LabelTest::Present, true) => Some(key.clone()),
        (LabelTest::Is(value), true) | (LabelTest::IsNot(value), false) => Some(format!("{key}={value}")),
        (LabelTest::In(values), true) | (LabelTest::NotIn(values), false) => {
            Some(values.iter().map(|value| format!("{key}={value}")).collect::<Vec<_>>().join(" or "))
        }
        (LabelTest::Contains(part), true) => Some(format!("{key} with '{part}' in it")),
        (LabelTest::Begins(start), true) => Some(format!("{key} that begins with '{start}'")),
        (LabelTest::Ends(end), true) => Some(format!("{key} that ends with '{end}'")),
        _ => None,
    }
}
