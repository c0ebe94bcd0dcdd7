//! `bgppeer`, `node bgppeer`, `bgp-node-mesh` and `default-node-as`: calicoctl's classic verbs for BGP.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::calico::{self, BgpPeer, Edited, Kind, PeerScope};

use super::change::{ChangeFlags, ChangedObject};
use super::output::{Format, Listing, Output, Row};
use super::session::Session;
use super::Failed;

#[derive(Debug, Subcommand)]
pub enum PeerVerb {
    /// Add a peer, or give one another AS number: `add 10.0.0.1 as 64512`.
    Add(PeerAdd),
    /// Remove a peer.
    Remove(PeerRemove),
    /// List the peers.
    Show(PeerShow),
}

#[derive(Debug, Args)]
pub struct PeerAdd {
    /// The peer's address
    ip: IpAddr,
    /// The word `as`
    #[arg(value_name = "as", value_parser = ["as"], hide_possible_values = true)]
    word: String,
    /// The peer's AS number
    #[arg(value_name = "AS", value_parser = calico::parse_as_number)]
    as_number: u32,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, Args)]
pub struct PeerRemove {
    /// The peer's address
    ip: IpAddr,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, Args)]
pub struct PeerShow {
    /// Only peers with an IPv4 address
    #[arg(long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only peers with an IPv6 address
    #[arg(long)]
    ipv6: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub struct MeshArguments {
    /// Without a word the setting is shown
    state: Option<Mesh>,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mesh {
    /// Every node is a peer of every other.
    On,
    /// Nodes have only the peers that `bgppeer` gives them.
    Off,
}

#[derive(Debug, Args)]
pub struct AsArguments {
    /// Without a number the setting is shown
    #[arg(value_name = "AS", value_parser = calico::parse_as_number)]
    as_number: Option<u32>,
    #[command(flatten)]
    flags: ChangeFlags,
}

/// Peers of all nodes.
pub async fn global_peers(verb: &PeerVerb, session: &Session) -> Result<ExitCode, Failed> {
    peers(verb, &PeerScope::Global, session).await
}

/// Peers of this node.
pub async fn node_peers(verb: &PeerVerb, session: &Session) -> Result<ExitCode, Failed> {
    let node = calico::node_name(&session.config)?;
    peers(verb, &PeerScope::Node(node), session).await
}

async fn peers(verb: &PeerVerb, scope: &PeerScope, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    match verb {
        PeerVerb::Add(PeerAdd { ip, as_number, flags, .. }) => {
            let (name, edited) = datastore.add_bgp_peer(scope, *ip, *as_number, flags.dry_run).await?;
            let what = format!("BGP peer {ip} (AS {as_number}) of {scope}");
            let sentence = match (edited.is_change(), edited.before.is_some(), flags.dry_run) {
                (false, ..) => format!("{what} is there already"),
                (true, _, true) => format!("to write: {what}"),
                (true, true, false) => format!("{what} is changed"),
                (true, false, false) => format!("{what} is added"),
            };
            let changed = ChangedObject::of(Kind::BgpPeer.word(), &name, edited);
            Ok(session.report(*flags, &[changed], &[sentence]))
        }
        PeerVerb::Remove(PeerRemove { ip, flags }) => {
            let removed = datastore.remove_bgp_peer(scope, *ip, flags.dry_run).await?;
            let changed =
                |(name, edited): (String, _)| ChangedObject::of(Kind::BgpPeer.word(), &name, edited);
            let removed: Vec<ChangedObject> = removed.into_iter().map(changed).collect();
            let sentence = match flags.dry_run {
                true => format!("to remove: BGP peer {ip} of {scope}"),
                false => format!("BGP peer {ip} of {scope} is removed"),
            };
            Ok(session.report(*flags, &removed, &[sentence]))
        }
        PeerVerb::Show(show) => {
            let (mut peers, damaged) = datastore.bgp_peers().await?;
            peers.retain(|peer| peer.is_of(scope));
            list(show, scope, &peers, session);
            session.warn_of(&damaged);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(show: &PeerShow, scope: &PeerScope, peers: &[BgpPeer], session: &Session) {
    let rows = |family: Option<bool>| -> Vec<Row> {
        let wanted = |peer: &&BgpPeer| match (family, peer.address) {
            (Some(is_v4), Some(address)) => address.is_ipv4() == is_v4,
            (Some(_), None) => false,
            (None, _) => {
                !(show.ipv4 || show.ipv6) || peer.address.is_some_and(|ip| ip.is_ipv4() == show.ipv4)
            }
        };
        peers.iter().filter(wanted).map(row).collect()
    };
    match show.output.output {
        Format::Table | Format::Wide => {}
        format => return Listing { rows: rows(None), ..Listing::default() }.print(format, &session.out),
    }
    let headings = match scope {
        PeerScope::Global => ["Global IPv4 BGP Peer", "Global IPv6 BGP Peer"],
        PeerScope::Node(_) => ["Node specific IPv4 BGP Peer", "Node specific IPv6 BGP Peer"],
    };
    for (heading, is_v4, left_out) in [(headings[0], true, show.ipv6), (headings[1], false, show.ipv4)] {
        let rows = rows(Some(is_v4));
        match rows.is_empty() {
            _ if left_out => {}
            true => session.out.line(format!("No {heading}s defined.")),
            false => {
                let listing = Listing {
                    rows,
                    wide_header: vec!["Name"],
                    left: true,
                    ..Listing::framed(&[heading, "AS Num"])
                };
                listing.print(show.output.output, &session.out);
            }
        }
    }
    for peer in peers.iter().filter(|peer| peer.address.is_none() && !show.ipv4 && !show.ipv6) {
        let selector = peer.peer_selector.as_deref().unwrap_or_default();
        session.out.line(format!("{}: the nodes that '{selector}' selects", peer.name));
    }
}

fn row(peer: &BgpPeer) -> Row {
    let address = peer.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let number = peer.as_number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    Row {
        name: peer.name.clone(),
        cells: vec![address, number],
        wide: vec![peer.name.clone()],
        json: json!({
            "name": peer.name, "node": peer.node, "node_selector": peer.node_selector, "address": peer.address,
            "peer_selector": peer.peer_selector, "as_number": peer.as_number, "resource": peer.record,
        }),
    }
}

/// Shows or changes the mesh of all nodes.
pub async fn mesh(arguments: &MeshArguments, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let word = |mesh: bool| if mesh { "on" } else { "off" };
    let Some(state) = arguments.state else {
        let mesh = datastore.bgp_settings().await?.mesh;
        match arguments.flags.format() {
            Format::Table | Format::Wide | Format::Name => session.out.line(word(mesh)),
            format => session.out.value(format, &json!({ "node_to_node_mesh": mesh })),
        }
        return Ok(ExitCode::SUCCESS);
    };
    let flags = arguments.flags;
    let edited = datastore.set_bgp(Some(state == Mesh::On), None, flags.dry_run).await?;
    let sentence = match (edited.is_change(), flags.dry_run) {
        (false, _) => format!("the mesh of all nodes is {} already", word(state == Mesh::On)),
        (true, true) => format!("to change: the mesh of all nodes to {}", word(state == Mesh::On)),
        (true, false) => format!("the mesh of all nodes is {}", word(state == Mesh::On)),
    };
    Ok(session.report(flags, &[settings(edited)], &[sentence]))
}

/// Shows or changes the AS number of nodes that name none.
pub async fn default_as(arguments: &AsArguments, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let Some(number) = arguments.as_number else {
        let number = datastore.bgp_settings().await?.as_number;
        match arguments.flags.format() {
            Format::Table | Format::Wide | Format::Name => session.out.line(number.to_string()),
            format => session.out.value(format, &json!({ "as_number": number })),
        }
        return Ok(ExitCode::SUCCESS);
    };
    let flags = arguments.flags;
    let edited = datastore.set_bgp(None, Some(number), flags.dry_run).await?;
    let sentence = match (edited.is_change(), flags.dry_run) {
        (false, _) => format!("nodes without an AS number have {number} already"),
        (true, true) => format!("to change: the AS number of nodes that name none to {number}"),
        (true, false) => format!("nodes without an AS number have {number}"),
    };
    Ok(session.report(flags, &[settings(edited)], &[sentence]))
}

/// The record of the cluster's own settings.
fn settings(edited: Edited) -> ChangedObject {
    ChangedObject::of(Kind::BgpConfiguration.word(), "default", edited)
}
