//! `profile NAME rule …`: the rules of a profile, in classic words as far as these say all of a rule.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{json, Value};

use crate::calico::{classic_rule, parse_rule, Edited, Object, ProfileList, RuleDirection, RulePlace, Tags};
use crate::error::is_deceptive;

use crate::cli::change::ChangeFlags;
use crate::cli::output::{Format, Output};
use crate::cli::session::Session;
use crate::cli::{misused, Failed};

/// Width of a rule's number, as calicoctl prints it.
const NUMBER_WIDTH: usize = 4;

#[derive(Debug, Subcommand)]
pub enum RuleVerb {
    /// Print the rules; one that the classic words cannot express as YAML.
    Show(Output),
    /// Print the rules as Calico keeps them, in JSON.
    Json,
    /// Add a rule: `rule add inbound allow tcp from ports 1:2 tag web`.
    Add(AddRule),
    /// Remove a rule, by its position or its words.
    Remove(RemoveRule),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Way {
    Inbound,
    Outbound,
}

impl From<Way> for RuleDirection {
    fn from(way: Way) -> Self {
        match way {
            Way::Inbound => Self::Inbound,
            Way::Outbound => Self::Outbound,
        }
    }
}

#[derive(Debug, Args)]
pub struct AddRule {
    /// Packets to or from the endpoint
    #[arg(value_enum)]
    direction: Way,
    /// Insert it as the rule of this number; default: behind the last
    #[arg(long, value_name = "N")]
    at: Option<usize>,
    /// allow|deny [tcp|udp|sctp|icmp|icmpv6|udplite] [type N [code M]] [from PEER] [to PEER], with PEER: [ports P,P:P]
    /// [tag PROFILE] [CIDR]
    #[arg(required = true, value_name = "RULE")]
    words: Vec<String>,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, Args)]
pub struct RemoveRule {
    /// Packets to or from the endpoint
    #[arg(value_enum)]
    direction: Way,
    /// The rule of this number
    #[arg(long, value_name = "N", conflicts_with = "words", required_unless_present = "words")]
    at: Option<usize>,
    /// The rule in the words of `rule show`
    #[arg(value_name = "RULE")]
    words: Vec<String>,
    #[command(flatten)]
    flags: ChangeFlags,
}

/// Runs one of the verbs.
pub async fn rule(name: &str, verb: &RuleVerb, session: &Session) -> Result<ExitCode, Failed> {
    if let RuleVerb::Show(Output { output: Format::Name }) = verb {
        return Err(misused("rules have no names: use -o json, or -o table for their numbers".to_owned()));
    }
    let mut datastore = session.datastore().await?;
    let profiles = datastore.profiles().await?;
    let profile = profiles.named(name)?;
    match verb {
        RuleVerb::Show(output) => show(&profiles, profile, output.output, session),
        RuleVerb::Json => show(&profiles, profile, Format::Json, session),
        RuleVerb::Add(arguments) => {
            let rule = parsed(&arguments.words, &profiles.tags)?;
            let direction = arguments.direction.into();
            let flags = arguments.flags;
            let added = datastore.add_rule(name, direction, arguments.at, &rule, flags.dry_run).await?;
            let words = match (added.is_change(), flags.dry_run) {
                (false, _) => "Rule already present in",
                (true, false) => "Added the rule to",
                (true, true) => "Would add the rule to",
            };
            warn_of_unreadable(name, &added);
            Ok(super::report(name, added, flags, format!("{words} profile {name}"), session))
        }
        RuleVerb::Remove(arguments) => {
            let place = match arguments.at {
                Some(at) => RulePlace::At(at),
                None => RulePlace::Rule(parsed(&arguments.words, &profiles.tags)?),
            };
            let flags = arguments.flags;
            let direction = arguments.direction.into();
            let removed = datastore.remove_rule(name, direction, &place, flags.dry_run).await?;
            let words = if flags.dry_run { "Would remove the rule from" } else { "Removed the rule from" };
            warn_of_unreadable(name, &removed);
            Ok(super::report(name, removed, flags, format!("{words} profile {name}"), session))
        }
    }
}

fn parsed(words: &[String], tags: &Tags) -> Result<Value, Failed> {
    parse_rule(words, tags).map_err(misused)
}

/// A rule that Calico cannot read stays as it is found, and with it Felix ignores the whole profile.
fn warn_of_unreadable(name: &str, edited: &Edited) {
    let Some(record) = &edited.after else { return };
    for direction in [RuleDirection::Inbound, RuleDirection::Outbound] {
        for (number, why) in direction.unreadable(record) {
            tracing::warn!(
                "{direction} rule {number} of the profile {name} stays as it is, but Calico cannot read it ({why}): Felix \
                 ignores the profile until `profile {name} rule remove {direction} --at {number}` removes the rule"
            );
        }
    }
}

fn show(
    profiles: &ProfileList,
    profile: &Object,
    format: Format,
    session: &Session,
) -> Result<ExitCode, Failed> {
    session.warn_of(&profiles.damaged);
    let directions = [RuleDirection::Inbound, RuleDirection::Outbound];
    // A field that is not a list has been warned of.
    let rules = directions.map(|direction| direction.rules(profile).unwrap_or_default());
    match format {
        Format::Json | Format::Yaml => {
            session.out.value(format, &json!({"ingress": rules[0], "egress": rules[1]}));
        }
        Format::Table | Format::Wide | Format::Name => {
            for (heading, rules) in ["Inbound rules:", "Outbound rules:"].into_iter().zip(rules) {
                session.out.line(heading);
                for (index, rule) in rules.iter().enumerate() {
                    session.out.line(numbered(index + 1, rule, &profiles.tags));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `   1 allow from tag web`, or YAML with its later lines indented alike.
fn numbered(number: usize, rule: &Value, tags: &Tags) -> String {
    let text = classic_rule(rule, tags)
        .or_else(|| serde_saphyr::to_string(rule).ok())
        .unwrap_or_else(|| rule.to_string());
    let text = text.trim_end().replace(|c| c != '\n' && is_deceptive(c), " ");
    let indent = format!("\n{:NUMBER_WIDTH$} ", "");
    format!("{number:>NUMBER_WIDTH$} {}", text.replace('\n', &indent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_classic_words_is_printed_whole() {
        let tags = Tags::default();
        let rule = json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8"]}});
        assert_eq!(numbered(1, &rule, &tags), "   1 allow from 10.0.0.0/8");
        let rule = json!({"action": "Log", "notProtocol": "TCP"});
        assert_eq!(numbered(12, &rule, &tags), "  12 action: Log\n     notProtocol: TCP");
    }
}
