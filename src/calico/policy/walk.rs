//! The chain of one endpoint in one direction: tiers, their policies, then the profiles.
//!
//! ```text
//!  for each tier with a policy that selects the endpoint and governs the direction
//!     its policies in order, their rules in order ── Allow, Deny: decided ── Pass: the next tier
//!     no rule has matched: dropped, unless the tier's default action is Pass
//!  then each profile in order ── Allow, Deny: decided ── a profile that is missing denies
//!  no rule has matched: dropped
//! ```
//!
//! A rule of which not all is evaluated here is taken both ways: where the ends differ, the verdict is unknown.

use super::hint::{FlowNames, Hints};
use super::rule::{Fit, Packet, PolicyRule, RuleAction};
use super::world::{PolicyLabels, PolicyRules, PolicyWorld, TierRules};

/// Calico has this profile itself.
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyVerdict {
    Allowed,
    Denied,
    Unknown,
}

impl PolicyVerdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
        }
    }
}

/// The direction of a packet, seen from an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowWay {
    Ingress,
    Egress,
}

impl FlowWay {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What one tier, or the profiles together, did with the packet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyStep {
    /// For people: `tier security (order 100): policy db-only order 10: rule 2`.
    pub text: String,
    /// What it came to: `allow`, `end of tier: deny`.
    pub outcome: String,
    pub tier: Option<String>,
    /// The policy that has decided.
    pub policy: Option<String>,
    /// The profile that has decided.
    pub profile: Option<String>,
    /// The rule that has decided, counted from 1.
    pub rule: Option<usize>,
    /// Which rules would almost have allowed it.
    pub hints: Vec<String>,
    /// Rules that decide by what is not evaluated here.
    pub not_evaluated: Vec<String>,
}

/// How a chain ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChainEnd {
    pub verdict: PolicyVerdict,
    pub steps: Vec<PolicyStep>,
}

/// The endpoint, the direction and the packet.
pub(super) struct Walk<'a> {
    pub world: &'a PolicyWorld,
    pub labels: &'a PolicyLabels,
    pub profiles: &'a [String],
    pub way: FlowWay,
    pub packet: &'a Packet<'a>,
    pub names: &'a FlowNames<'a>,
}

/// What a list of rules came to.
enum RulesEnd {
    /// The rule's position, counted from 1.
    Decided(RuleAction, usize),
    Through,
}

impl<'a> Walk<'a> {
    /// The whole chain.
    pub(super) fn run(&self) -> ChainEnd {
        self.from(0)
    }

    /// The chain from a tier on.
    fn from(&self, first: usize) -> ChainEnd {
        let mut path = Path::default();
        for (index, tier) in self.world.tiers.iter().enumerate().skip(first) {
            let policies: Vec<&PolicyRules> =
                tier.policies.iter().filter(|policy| self.concerns(policy)).collect();
            if policies.is_empty() {
                path.passed_by.push(&tier.name);
                continue;
            }
            if let Some(verdict) = self.tier(index, tier, &policies, &mut path) {
                return path.end(verdict);
            }
        }
        let verdict = self.profiles(&mut path);
        path.end(verdict)
    }

    fn concerns(&self, policy: &PolicyRules) -> bool {
        let governs = match self.way {
            FlowWay::Ingress => policy.governs_ingress,
            FlowWay::Egress => policy.governs_egress,
        };
        governs && !policy.is_early && policy.selector.selects(self.labels)
    }

    /// One tier; none: the packet goes on to the next.
    fn tier(
        &self,
        index: usize,
        tier: &'a TierRules,
        policies: &[&'a PolicyRules],
        path: &mut Path<'a>,
    ) -> Option<PolicyVerdict> {
        let order = tier.order.map(|order| format!(" (order {order})")).unwrap_or_default();
        let mut text = format!("{}tier {}{order}", path.unselecting(), tier.name);
        let mut step = PolicyStep { tier: Some(tier.name.clone()), ..PolicyStep::default() };
        let mut hints = Hints::new(self.world, self.names, policies.len() > 1);
        for policy in policies {
            let rules = match self.way {
                FlowWay::Ingress => &policy.ingress,
                FlowWay::Egress => &policy.egress,
            };
            let order = policy.order.map(|order| format!(" order {order}")).unwrap_or_default();
            let what = format!("policy {}", policy.name);
            let end = self.rules(&what, rules, &mut step, &mut hints, |action| match action {
                RuleAction::Pass => path.maybe.push(self.from(index + 1).verdict),
                action => path.maybe.extend(final_verdict(action)),
            });
            match end {
                RulesEnd::Decided(action, rule) => {
                    text.push_str(&format!(": {what}{order}: rule {rule}: {}", action.word()));
                    step.policy = Some(policy.name.clone());
                    step.rule = Some(rule);
                    action.word().clone_into(&mut step.outcome);
                    return self.close(path, step, text, hints, final_verdict(action));
                }
                RulesEnd::Through => text.push_str(&format!(": {what}{order}: no rule matches")),
            }
        }
        let verdict = (!tier.passes).then_some(PolicyVerdict::Denied);
        step.outcome = format!("end of tier: {}", if tier.passes { "pass" } else { "deny" });
        self.close(path, step, text, hints, verdict)
    }

    /// Adds a step, with its hints where it denies.
    fn close(
        &self,
        path: &mut Path<'a>,
        mut step: PolicyStep,
        text: String,
        hints: Hints<'_>,
        verdict: Option<PolicyVerdict>,
    ) -> Option<PolicyVerdict> {
        step.text = text;
        if verdict == Some(PolicyVerdict::Denied) {
            step.hints = hints.texts();
        }
        path.steps.push(step);
        verdict
    }

    /// The first rule that matches. `unknown` hears of those that may match or not.
    fn rules<'r>(
        &self,
        what: &str,
        rules: &'r [PolicyRule],
        step: &mut PolicyStep,
        hints: &mut Hints<'r>,
        mut unknown: impl FnMut(RuleAction),
    ) -> RulesEnd {
        for (index, rule) in rules.iter().enumerate() {
            let number = index + 1;
            match rule.fit(self.packet) {
                Fit::No(misfits) => hints.missed(what, number, rule.action, misfits),
                Fit::Yes if rule.action == RuleAction::Log => {}
                Fit::Yes => {
                    let rest = rules.iter().enumerate().skip(number);
                    let mut later = rest.filter(|(_, later)| {
                        later.action == RuleAction::Allow && later.fit(self.packet) == Fit::Yes
                    });
                    if let (RuleAction::Deny, Some((later, _))) = (rule.action, later.next()) {
                        hints.shadowed(what, later + 1, number);
                    }
                    return RulesEnd::Decided(rule.action, number);
                }
                Fit::Unknown(fields) => {
                    step.not_evaluated.push(format!(
                        "{what} rule {number} ({}) has {}, which is not evaluated here",
                        rule.action.word(),
                        fields.join(" and ")
                    ));
                    unknown(rule.action);
                }
            }
        }
        RulesEnd::Through
    }

    fn profiles(&self, path: &mut Path<'a>) -> PolicyVerdict {
        let mut text = path.unselecting();
        let mut step = PolicyStep::default();
        let mut hints = Hints::new(self.world, self.names, self.profiles.len() > 1);
        let mut parts = Vec::new();
        let mut decided = None;
        for name in self.profiles {
            let end = if name == DEFAULT_ALLOW {
                RulesEnd::Decided(RuleAction::Allow, 1)
            } else if let Some(profile) = self.world.profiles.get(name) {
                let rules = match self.way {
                    FlowWay::Ingress => &profile.ingress,
                    FlowWay::Egress => &profile.egress,
                };
                let what = format!("profile {name}");
                self.rules(&what, rules, &mut step, &mut hints, |action| {
                    path.maybe.extend(final_verdict(action))
                })
            } else {
                parts.push(format!("profile {name} does not exist, and Felix drops all"));
                decided = Some((RuleAction::Deny, name, None));
                break;
            };
            match end {
                RulesEnd::Decided(action @ (RuleAction::Allow | RuleAction::Deny), rule) => {
                    parts.push(format!("profile {name} rule {rule}: {}", action.word()));
                    decided = Some((action, name, Some(rule)));
                    break;
                }
                RulesEnd::Decided(_, rule) => parts.push(format!("profile {name} rule {rule} passes")),
                RulesEnd::Through => parts.push(format!("profile {name}: no rule matches")),
            }
        }
        if self.profiles.is_empty() {
            parts.push("no profile".to_owned());
        }
        text.push_str(&parts.join("; "));
        let verdict = match decided {
            Some((action, name, rule)) => {
                (step.profile, step.rule) = (Some(name.clone()), rule);
                action.word().clone_into(&mut step.outcome);
                final_verdict(action)
            }
            None => {
                "end of profiles: deny".clone_into(&mut step.outcome);
                Some(PolicyVerdict::Denied)
            }
        };
        self.close(path, step, text, hints, verdict).unwrap_or(PolicyVerdict::Denied)
    }
}

/// None: not the last word.
fn final_verdict(action: RuleAction) -> Option<PolicyVerdict> {
    match action {
        RuleAction::Allow => Some(PolicyVerdict::Allowed),
        RuleAction::Deny => Some(PolicyVerdict::Denied),
        RuleAction::Pass | RuleAction::Log => None,
    }
}

/// A walk under way.
#[derive(Default)]
struct Path<'a> {
    steps: Vec<PolicyStep>,
    /// Tiers without a policy for the endpoint, since the last step.
    passed_by: Vec<&'a str>,
    /// Ends that the chain would have had with rules that may match or not.
    maybe: Vec<PolicyVerdict>,
}

impl Path<'_> {
    fn unselecting(&mut self) -> String {
        let tiers = std::mem::take(&mut self.passed_by);
        match tiers.as_slice() {
            [] => String::new(),
            [one] => format!("tier {one}: no policy selects it; "),
            several => format!("tiers {}: no policy selects it; ", several.join(", ")),
        }
    }

    fn end(self, verdict: PolicyVerdict) -> ChainEnd {
        let is_sure = self.maybe.iter().all(|other| *other == verdict);
        ChainEnd { verdict: if is_sure { verdict } else { PolicyVerdict::Unknown }, steps: self.steps }
    }
}
