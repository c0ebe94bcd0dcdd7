//! `endpoint …`: the endpoints of all orchestrators, and the profiles of one.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{json, Value};

use crate::calico::{
    check_selector, Datastore, EndpointFilter, EndpointRecord, EndpointStates, Kind, ListChange,
};

use super::change::{ChangeFlags, ChangedObject};
use super::node::UnknownNode;
use super::output::{Each, Format, Listing, Out, Output, Row};
use super::session::Session;
use super::watch::Watch;
use super::{complete, misused, Failed};

const NOT_KNOWN: &str = "-";

#[derive(Debug, Args)]
pub struct EndpointArguments {
    /// The endpoint for `profile`: its name, workload, task id, container id, address, or a unique beginning
    endpoint: Option<String>,
    #[command(subcommand)]
    verb: EndpointVerb,
}

#[derive(Debug, Subcommand)]
enum EndpointVerb {
    /// Count the endpoints of each host, or list them with `--detailed`.
    Show(Show),
    /// Show or change the profiles of an endpoint.
    #[command(subcommand)]
    Profile(ProfileVerb),
}

#[derive(Debug, Args)]
struct Show {
    /// List each endpoint
    #[arg(long)]
    detailed: bool,
    /// Only endpoints of this host
    #[arg(long, add = complete::names(Kind::Node))]
    host: Option<String>,
    /// Only endpoints of this orchestrator, such as mesos
    #[arg(long)]
    orchestrator: Option<String>,
    /// Only endpoints of this workload, task id or app id
    #[arg(long)]
    workload: Option<String>,
    /// Only endpoints of this endpoint id, such as eth0
    #[arg(long)]
    endpoint: Option<String>,
    /// Only endpoints that have this profile
    #[arg(long, add = complete::names(Kind::Profile))]
    profile: Option<String>,
    /// Only endpoints with these labels, those of their profiles included: "app == 'web' && has(rack)"
    #[arg(long, short = 'l', value_parser = selector)]
    selector: Option<String>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum ProfileVerb {
    /// List the profiles of the endpoint in the order in which Felix looks at them.
    Show(Output),
    /// Add profiles behind those that it has.
    Append(Names),
    /// Give it these profiles in place of those that it has.
    Set(Names),
    /// Remove profiles.
    Remove(Names),
}

#[derive(Debug, Args)]
struct Names {
    #[arg(required = true, value_name = "PROFILE", add = complete::names(Kind::Profile))]
    profiles: Vec<String>,
    #[command(flatten)]
    flags: ChangeFlags,
}

fn selector(text: &str) -> Result<String, String> {
    check_selector(text).map(|()| text.to_owned())
}

/// Runs the verb.
pub async fn endpoint(arguments: &EndpointArguments, session: &Session) -> Result<ExitCode, Failed> {
    match (&arguments.verb, &arguments.endpoint) {
        (EndpointVerb::Show(show), None) => {
            show.watch.repeat(&session.out, async |out: &Out| list(show, session, out).await).await
        }
        (EndpointVerb::Show(_), Some(name)) => Err(misused(format!(
            "'endpoint show' lists all endpoints; for one: endpoint show --workload {name}"
        ))),
        (EndpointVerb::Profile(verb), Some(name)) => profiles(name, verb, session).await,
        (EndpointVerb::Profile(_), None) => Err(misused(
            "the endpoint is missing: endpoint ENDPOINT profile show|append|set|remove".to_owned(),
        )),
    }
}

async fn list(arguments: &Show, session: &Session, out: &Out) -> Result<ExitCode, Failed> {
    let filter = EndpointFilter {
        host: arguments.host.clone(),
        orchestrator: arguments.orchestrator.clone(),
        workload: arguments.workload.clone(),
        endpoint: arguments.endpoint.clone(),
        profile: arguments.profile.clone(),
        selector: arguments.selector.clone(),
    };
    let mut datastore = session.datastore().await?;
    let mut endpoints = datastore.endpoint_records(&filter).await?;
    session.warn_of(&endpoints.damaged);
    if endpoints.found.is_empty() {
        refuse_unknown(&filter, &mut datastore).await?;
    }
    endpoints.found.sort_by(|one, other| one.node.cmp(&other.node));
    let format = arguments.output.output;
    if !arguments.detailed && matches!(format, Format::Table | Format::Wide) {
        counts(&endpoints.found).print(format, out);
        return Ok(ExitCode::SUCCESS);
    }
    let states = datastore.endpoint_states(&session.config, filter.host.as_deref()).await?;
    match format {
        Format::Json | Format::Yaml => {
            out.value(format, &Each(|| endpoints.found.iter().map(|endpoint| shown(endpoint, &states))));
        }
        format => detailed(endpoints.found, &states, format).print(format, out),
    }
    Ok(ExitCode::SUCCESS)
}

/// An empty list must not hide a name that is typed wrong. One that only endpoints have is known as well.
async fn refuse_unknown(filter: &EndpointFilter, datastore: &mut Datastore) -> Result<(), Failed> {
    if let Some(host) = &filter.host {
        let nodes = datastore.names(Kind::Node).await?;
        let only = EndpointFilter { host: filter.host.clone(), ..EndpointFilter::default() };
        if !nodes.contains(host) && datastore.endpoint_records(&only).await?.found.is_empty() {
            return Err(UnknownNode::new(host, nodes.iter().map(String::as_str)).into());
        }
    }
    if let Some(profile) = &filter.profile {
        let profiles = datastore.profiles().await?;
        let only = EndpointFilter { profile: filter.profile.clone(), ..EndpointFilter::default() };
        if profiles.is_missing(profile) && datastore.endpoint_records(&only).await?.found.is_empty() {
            profiles.named(profile)?;
        }
    }
    Ok(())
}

/// Numbers of endpoints by namespace and workload.
type Workloads<'a> = BTreeMap<(&'a str, &'a str), usize>;

/// Workloads and endpoints of each orchestrator on each host.
fn counts(endpoints: &[EndpointRecord]) -> Listing {
    let mut groups: BTreeMap<(&str, &str), Workloads> = BTreeMap::new();
    for endpoint in endpoints {
        let group = groups.entry((&endpoint.node, &endpoint.orchestrator)).or_default();
        *group.entry((&endpoint.namespace, &endpoint.workload)).or_default() += 1;
    }
    let mut list = Listing::framed(&["Hostname", "Orchestrator ID", "NumWorkloads", "NumEndpoints"]);
    list.rows = groups
        .iter()
        .map(|((host, orchestrator), workloads)| Row {
            name: (*host).to_owned(),
            cells: vec![
                (*host).to_owned(),
                (*orchestrator).to_owned(),
                workloads.len().to_string(),
                workloads.values().sum::<usize>().to_string(),
            ],
            ..Row::default()
        })
        .collect();
    list
}

fn detailed(endpoints: Vec<EndpointRecord>, states: &EndpointStates, format: Format) -> Listing {
    let mut list = Listing::framed(&[
        "Hostname",
        "Orchestrator ID",
        "Workload ID",
        "Endpoint ID",
        "Addresses",
        "MAC",
        "Profiles",
        "State",
    ]);
    list.wide_header = vec!["Interface", "Task ID", "App"];
    // Ten thousand rows: only the part that is printed is made.
    list.rows = endpoints
        .into_iter()
        .map(|endpoint| match format {
            Format::Name => Row { name: endpoint.name, ..Row::default() },
            _ => row(endpoint, states, format == Format::Wide),
        })
        .collect();
    list
}

fn row(endpoint: EndpointRecord, states: &EndpointStates, wide: bool) -> Row {
    let state = states.of(&endpoint).unwrap_or(NOT_KNOWN).to_owned();
    let more = || {
        vec![
            endpoint.interface.clone(),
            endpoint.task_id.clone().unwrap_or_default(),
            endpoint.app.clone().unwrap_or_default(),
        ]
    };
    let wide = if wide { more() } else { Vec::new() };
    let cells = vec![
        endpoint.node,
        endpoint.orchestrator,
        endpoint.workload,
        endpoint.endpoint,
        endpoint.networks.join("\n"),
        endpoint.mac,
        endpoint.profiles.join(","),
        state,
    ];
    Row { cells, wide, ..Row::default() }
}

/// An endpoint for programs; the state is null where Felix reports none.
pub(super) fn shown(endpoint: &EndpointRecord, states: &EndpointStates) -> Value {
    json!({
        "name": endpoint.name,
        "namespace": endpoint.namespace,
        "host": endpoint.node,
        "orchestrator": endpoint.orchestrator,
        "workload": endpoint.workload,
        "endpoint": endpoint.endpoint,
        "containerId": endpoint.container_id,
        "taskId": endpoint.task_id,
        "app": endpoint.app,
        "addresses": endpoint.networks,
        "mac": endpoint.mac,
        "interface": endpoint.interface,
        "profiles": endpoint.profiles,
        "labels": endpoint.labels,
        "state": states.of(endpoint),
    })
}

async fn profiles(name: &str, verb: &ProfileVerb, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let endpoint = datastore.find_endpoint(name).await?;
    let (change, names) = match verb {
        ProfileVerb::Show(output) => {
            let row = |name: &String| Row {
                name: name.clone(),
                cells: vec![name.clone()],
                json: name.as_str().into(),
                ..Row::default()
            };
            let rows = endpoint.profiles.iter().map(row).collect();
            Listing { rows, ..Listing::framed(&["Name"]) }.print(output.output, &session.out);
            return Ok(ExitCode::SUCCESS);
        }
        ProfileVerb::Append(names) => (ListChange::Append, names),
        ProfileVerb::Set(names) => (ListChange::Set, names),
        ProfileVerb::Remove(names) => (ListChange::Remove, names),
    };
    let flags = names.flags;
    let edited = datastore.change_profiles(&endpoint, change, &names.profiles, flags.dry_run).await?;
    let left: Vec<&str> = edited
        .after
        .iter()
        .filter_map(|record| record.pointer("/spec/profiles")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let has = match (edited.is_change(), flags.dry_run) {
        (false, _) => "already has",
        (true, false) => "now has",
        (true, true) => "would have",
    };
    let list = if left.is_empty() { "none".to_owned() } else { left.join(",") };
    let sentence = format!("endpoint {} {has} the profiles: {list}", endpoint.shown());
    if left.is_empty() {
        tracing::warn!("Felix drops all packets of an endpoint without a profile that no policy selects");
    }
    let name = format!("{}/{}", endpoint.namespace, endpoint.name);
    let changed = ChangedObject::of(Kind::WorkloadEndpoint.word(), &name, edited);
    Ok(session.report(flags, &[changed], &[sentence]))
}
