//! `profile …` in calicoctl's classic words: profiles, their members, rules and tags.
//!
//! ```text
//!  profile show [--detailed] | add NAME | remove NAME
//!  profile NAME rule show | json | add inbound|outbound [--at N] RULE | remove inbound|outbound (--at N | RULE)
//!  profile NAME tag show | add T | remove T
//! ```

mod rule;
mod tag;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::calico::{Edited, EndpointFilter, EndpointRecord, EndpointStates, Kind, ProfileList};

use super::change::{ChangeFlags, ChangedObject};
use super::output::{Format, Listing, Output, Row};
use super::session::Session;
use super::{complete, endpoint, misused, Failed};

/// Characters of a workload id, as calicoctl has always cut it; `-o wide` has all of it.
const WORKLOAD_WIDTH: usize = 12;

#[derive(Debug, Args)]
pub struct ProfileArguments {
    /// The profile, for `rule` and `tag`
    #[arg(add = complete::names(Kind::Profile))]
    name: Option<String>,
    #[command(subcommand)]
    verb: ProfileVerb,
}

#[derive(Debug, Subcommand)]
enum ProfileVerb {
    /// List the profiles, with `--detailed` and their member endpoints.
    Show(Show),
    /// Create a profile whose members reach each other, as a launch would.
    Add(Named),
    /// Remove a profile that no endpoint has.
    Remove(Named),
    /// Show or change the rules of a profile: `profile NAME rule …`.
    #[command(subcommand)]
    Rule(rule::RuleVerb),
    /// Show or change the tags of a profile: the labels that it gives its endpoints.
    #[command(subcommand)]
    Tag(tag::TagVerb),
}

#[derive(Debug, Args)]
struct Show {
    /// A row for each member endpoint
    #[arg(long)]
    detailed: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Named {
    /// The profile's name
    #[arg(value_name = "NAME", add = complete::names(Kind::Profile))]
    profile: String,
    #[command(flatten)]
    flags: ChangeFlags,
}

/// Runs the verb.
pub async fn profile(arguments: &ProfileArguments, session: &Session) -> Result<ExitCode, Failed> {
    match (&arguments.verb, arguments.name.as_deref()) {
        (ProfileVerb::Show(arguments), None) => show(arguments, session).await,
        (ProfileVerb::Add(arguments), None) => add(arguments, session).await,
        (ProfileVerb::Remove(arguments), None) => remove(arguments, session).await,
        (ProfileVerb::Rule(verb), Some(name)) => rule::rule(name, verb, session).await,
        (ProfileVerb::Tag(verb), Some(name)) => tag::tag(name, verb, session).await,
        (ProfileVerb::Rule(_) | ProfileVerb::Tag(_), None) => {
            Err(misused("the profile's name is missing: profile NAME rule|tag …".to_owned()))
        }
        (ProfileVerb::Show(_) | ProfileVerb::Add(_) | ProfileVerb::Remove(_), Some(name)) => {
            Err(misused(format!("'{name}' is out of place: profile show, profile add NAME, profile remove NAME, or profile {name} rule|tag …")))
        }
    }
}

async fn show(arguments: &Show, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let profiles = datastore.profiles().await?;
    session.warn_of(&profiles.damaged);
    let format = arguments.output.output;
    if !arguments.detailed && matches!(format, Format::Table | Format::Name) {
        let row = |name: &str| Row { name: name.to_owned(), cells: vec![name.to_owned()], ..Row::default() };
        let rows = profiles.found.iter().map(|profile| row(&profile.name)).collect();
        Listing { rows, ..Listing::framed(&["Name"]) }.print(format, &session.out);
        return Ok(ExitCode::SUCCESS);
    }
    let endpoints = datastore.endpoint_records(&EndpointFilter::default()).await?;
    session.warn_of(&endpoints.damaged);
    let states = datastore.endpoint_states(&session.config, None).await?;
    let mut members: BTreeMap<&str, Vec<&EndpointRecord>> = BTreeMap::new();
    for endpoint in &endpoints.found {
        for profile in &endpoint.profiles {
            members.entry(profile).or_default().push(endpoint);
        }
    }
    let listing = match (arguments.detailed, format) {
        (true, Format::Table | Format::Wide) => member_rows(&profiles, &members, &states),
        _ => profile_rows(&profiles, &members, &states),
    };
    listing.print(format, &session.out);
    warn_of_missing(&profiles, &members);
    Ok(ExitCode::SUCCESS)
}

type Members<'a> = BTreeMap<&'a str, Vec<&'a EndpointRecord>>;

/// Felix drops the packets of an endpoint whose profile does not exist.
fn warn_of_missing(profiles: &ProfileList, members: &Members) {
    for (name, endpoints) in members {
        if profiles.is_missing(name) {
            tracing::warn!(
                "there is no profile '{name}', but {} has it: Felix drops its packets; `profile add {name}` creates it",
                super::output::count(endpoints.len(), "endpoint"),
            );
        }
    }
}

/// A row for each member; one without cells for a profile that has none.
fn member_rows(profiles: &ProfileList, members: &Members, states: &EndpointStates) -> Listing {
    let mut list = Listing::framed(&["Name", "Host", "Workload Type", "Workload ID", "Endpoint ID", "State"]);
    list.wide_header = vec!["Workload", "Addresses"];
    for profile in &profiles.found {
        let of_profile = members.get(profile.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        if of_profile.is_empty() {
            let mut cells = vec![profile.name.clone()];
            cells.resize(list.header.len(), "None".to_owned());
            let wide = vec!["None".to_owned(); list.wide_header.len()];
            list.rows.push(Row { name: profile.name.clone(), cells, wide, ..Row::default() });
        }
        list.rows.extend(of_profile.iter().map(|endpoint| Row {
            name: profile.name.clone(),
            cells: vec![
                profile.name.clone(),
                endpoint.node.clone(),
                endpoint.orchestrator.clone(),
                endpoint.workload.chars().take(WORKLOAD_WIDTH).collect(),
                endpoint.endpoint.clone(),
                states.of(endpoint).unwrap_or("-").to_owned(),
            ],
            wide: vec![endpoint.workload.clone(), endpoint.networks.join("\n")],
            ..Row::default()
        }));
    }
    list
}

/// A row for each profile, with its tags and the number of its members.
fn profile_rows(profiles: &ProfileList, members: &Members, states: &EndpointStates) -> Listing {
    let mut list = Listing::framed(&["Name"]);
    list.wide_header = vec!["Tags", "Endpoints"];
    for profile in &profiles.found {
        let of_profile = members.get(profile.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let endpoints: Vec<_> = of_profile.iter().map(|member| endpoint::shown(member, states)).collect();
        list.rows.push(Row {
            name: profile.name.clone(),
            cells: vec![profile.name.clone()],
            wide: vec![profiles.tags_of(profile).join(","), of_profile.len().to_string()],
            json: json!({
                "name": profile.name,
                "tags": profiles.tags_of(profile),
                "spec": profile.value.get("spec"),
                "endpoints": endpoints,
            }),
        });
    }
    list
}

async fn add(arguments: &Named, session: &Session) -> Result<ExitCode, Failed> {
    let name = &arguments.profile;
    if ProfileVerb::has_subcommand(name) || name == "help" {
        return Err(misused(format!(
            "a profile cannot be called '{name}' here: `profile {name}` is a command; choose another name"
        )));
    }
    let flags = arguments.flags;
    let edited = session.datastore().await?.add_profile(name, flags.dry_run).await?;
    let sentence = match (edited.is_change(), flags.dry_run) {
        (false, _) => format!("Profile {name} already exists."),
        (true, false) => format!("Created profile {name}"),
        (true, true) => format!("Would create profile {name}"),
    };
    Ok(report(name, edited, flags, sentence, session))
}

async fn remove(arguments: &Named, session: &Session) -> Result<ExitCode, Failed> {
    let name = &arguments.profile;
    let flags = arguments.flags;
    let edited = session.datastore().await?.remove_profile(name, flags.dry_run).await?;
    let done = if flags.dry_run { "Would delete" } else { "Deleted" };
    Ok(report(name, edited, flags, format!("{done} profile {name}"), session))
}

/// What has become of a profile.
fn report(name: &str, edited: Edited, flags: ChangeFlags, sentence: String, session: &Session) -> ExitCode {
    session.report(flags, &[ChangedObject::of(Kind::Profile.word(), name, edited)], &[sentence])
}
