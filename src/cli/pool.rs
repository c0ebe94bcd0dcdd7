//! `pool …`: IP pools in calicoctl's classic words.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::json;

use crate::calico::{BookedBlock, Datastore, Encapsulation, Kind, PoolRecord, PoolWish};
use crate::rig::daemons::overlapping;

use super::change::{ChangeFlags, ChangedObject};
use super::output::{count, Format, Listing, Output, Row};
use super::session::Session;
use super::Failed;

#[derive(Debug, Subcommand)]
pub enum PoolVerb {
    /// List the IP pools; `-o wide` also shows how full they are.
    Show(PoolShow),
    /// Make a pool, or change what the flags name in the pool that has this CIDR.
    Add(PoolAdd),
    /// Remove a pool of which no address is in use, and its blocks.
    Remove(PoolNamed),
    /// Let a pool give out addresses again.
    Enable(PoolNamed),
    /// Keep a pool from giving out addresses; those in use stay until their tasks end.
    Disable(PoolNamed),
}

#[derive(Debug, Args)]
pub struct PoolShow {
    /// Only pools of IPv4
    #[arg(long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only pools of IPv6
    #[arg(long)]
    ipv6: bool,
    #[command(flatten)]
    output: Output,
}

/// When packets between hosts are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Always,
    CrossSubnet,
    Never,
}

impl From<Mode> for Encapsulation {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Always => Self::Always,
            Mode::CrossSubnet => Self::CrossSubnet,
            Mode::Never => Self::Never,
        }
    }
}

#[derive(Debug, Args)]
pub struct PoolAdd {
    /// The pool's network, such as 10.65.0.0/16
    cidr: String,
    /// Its name; default: made of the CIDR
    #[arg(long)]
    name: Option<String>,
    /// Carry packets between hosts in IP-in-IP: always, or only between hosts of different subnets
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "always", value_name = "MODE")]
    ipip: Option<Mode>,
    /// The same with VXLAN
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "always", value_name = "MODE")]
    vxlan: Option<Mode>,
    /// Give packets that leave the pools the host's address
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    nat_outgoing: Option<bool>,
    /// Prefix length of the blocks that hosts take, 20 to 32 (IPv6: 116 to 128); it cannot be changed later
    #[arg(long, value_name = "N")]
    block_size: Option<u8>,
    /// Only nodes with these labels take addresses of the pool, such as "rack == 'r1'"
    #[arg(long, value_name = "SELECTOR")]
    node_selector: Option<String>,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, Args)]
pub struct PoolNamed {
    /// The pool's CIDR or name
    #[arg(value_name = "CIDR|NAME")]
    pool: String,
    #[command(flatten)]
    flags: ChangeFlags,
}

/// Runs one of the verbs.
pub async fn pool(verb: &PoolVerb, session: &Session) -> Result<ExitCode, Failed> {
    match verb {
        PoolVerb::Show(arguments) => show(arguments, session).await,
        PoolVerb::Add(arguments) => add(arguments, session).await,
        PoolVerb::Remove(arguments) => remove(arguments, session).await,
        PoolVerb::Enable(arguments) => enable(arguments, true, session).await,
        PoolVerb::Disable(arguments) => enable(arguments, false, session).await,
    }
}

async fn show(arguments: &PoolShow, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let (mut pools, damaged) = datastore.pool_records().await?;
    session.warn_of(&damaged);
    let is_wanted = |pool: &PoolRecord| match pool.cidr.addr().is_ipv4() {
        true => !arguments.ipv6,
        false => !arguments.ipv4,
    };
    pools.retain(is_wanted);
    let format = arguments.output.output;
    // Blocks come to 10 kB each: they are read only to be counted.
    let (blocks, damaged) = match format {
        Format::Table | Format::Name => (Vec::new(), Vec::new()),
        _ => datastore.booked_blocks().await?,
    };
    session.warn_of(&damaged);
    if !matches!(format, Format::Table | Format::Wide) {
        let rows = pools.iter().map(|pool| row(pool, &blocks)).collect();
        Listing { rows, ..Listing::default() }.print(format, &session.out);
        return Ok(ExitCode::SUCCESS);
    }
    for (is_v4, title) in [(true, "IPv4 CIDR"), (false, "IPv6 CIDR")] {
        if (is_v4 && arguments.ipv6) || (!is_v4 && arguments.ipv4) {
            continue;
        }
        let ours = pools.iter().filter(|pool| pool.cidr.addr().is_ipv4() == is_v4);
        let list = Listing {
            wide_header: vec!["Name", "Block size", "Enabled", "Node selector", "In use", "By apps"],
            rows: ours.map(|pool| row(pool, &blocks)).collect(),
            ..Listing::framed(&[title, "Options"])
        };
        list.print(format, &session.out);
    }
    Ok(ExitCode::SUCCESS)
}

fn row(pool: &PoolRecord, blocks: &[BookedBlock]) -> Row {
    let taken =
        || blocks.iter().flat_map(|block| &block.taken).filter(|taken| pool.cidr.contains(&taken.address));
    let in_use = taken().map(|taken| taken.address).collect::<BTreeSet<_>>().len();
    let by_apps =
        taken().filter(|taken| taken.app().is_some()).map(|taken| taken.address).collect::<BTreeSet<_>>();
    let apps = taken().filter_map(|taken| taken.app()).collect::<BTreeSet<_>>();
    let enabled = match (pool.enabled, pool.disabled) {
        (true, _) => "yes",
        (false, true) => "no",
        (false, false) => "not allocatable",
    };
    Row {
        name: pool.name.clone(),
        cells: vec![pool.cidr.to_string(), pool.options()],
        wide: vec![
            pool.name.clone(),
            pool.block_length.to_string(),
            enabled.to_owned(),
            pool.node_selector.clone(),
            in_use.to_string(),
            by_apps.len().to_string(),
        ],
        json: json!({
            "name": pool.name, "cidr": pool.cidr, "ipip": pool.ipip.word(), "vxlan": pool.vxlan.word(),
            "natOutgoing": pool.nat_outgoing, "blockSize": pool.block_length, "enabled": pool.enabled,
            "disabled": pool.disabled, "nodeSelector": pool.node_selector, "inUse": in_use,
            "inUseByApps": by_apps.len(), "apps": apps,
        }),
    }
}

async fn add(arguments: &PoolAdd, session: &Session) -> Result<ExitCode, Failed> {
    let wish = PoolWish {
        ipip: arguments.ipip.map(Encapsulation::from),
        vxlan: arguments.vxlan.map(Encapsulation::from),
        nat_outgoing: arguments.nat_outgoing,
        block_length: arguments.block_size,
        node_selector: arguments.node_selector.clone(),
    };
    let mut datastore = session.datastore().await?;
    session.warn_of(&datastore.pool_records().await?.1);
    let flags = arguments.flags;
    let (text, name) = (&arguments.cidr, arguments.name.as_deref());
    let (mut name_of_pool, mut edited) = datastore.add_pool(text, name, &wish, true).await?;
    if let Ok(cidr) = text.parse() {
        refuse_overlap(&mut datastore, cidr).await?;
    }
    if !flags.dry_run {
        (name_of_pool, edited) = datastore.add_pool(text, name, &wish, false).await?;
    }
    let name = name_of_pool;
    let (would, is) = if flags.dry_run { ("would be ", "") } else { ("", "is ") };
    let cidr = &arguments.cidr;
    let sentence = match (&edited.before, edited.is_change()) {
        (None, _) => format!("the pool {name} ({cidr}) {is}{would}made"),
        (Some(_), true) => format!("the pool {name} ({cidr}) {is}{would}changed"),
        (Some(_), false) => format!("the pool {name} ({cidr}) is like that already"),
    };
    Ok(session.report(flags, &[ChangedObject::of(Kind::IpPool.word(), &name, edited)], &[sentence]))
}

#[derive(Debug, thiserror::Error)]
#[error("the pool {0} overlaps addresses or routes of this host: {1}; choose another range")]
struct OverlapsHost(IpNet, String);

/// Refuses a new pool of which this host uses a part otherwise. The routes to blocks are Calico's own.
pub(super) async fn refuse_overlap(datastore: &mut Datastore, cidr: IpNet) -> Result<(), Failed> {
    if datastore.has_pool(&cidr).await? {
        return Ok(());
    }
    let blocks = datastore.blocks_within(&cidr).await?;
    let mut used = overlapping(cidr);
    used.retain(|net| !blocks.iter().any(|block| block.contains(net)));
    let used: Vec<String> = used.iter().map(IpNet::to_string).collect();
    match used.is_empty() {
        true => Ok(()),
        false => Err(OverlapsHost(cidr, used.join(", ")).into()),
    }
}

async fn remove(arguments: &PoolNamed, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let pool = datastore.find_pool(&arguments.pool).await?;
    let flags = arguments.flags;
    let removed = datastore.remove_pool(pool, flags.dry_run).await?;
    let verb = if flags.dry_run { "would be removed" } else { "is removed" };
    let blocks = match removed.blocks {
        0 => String::new(),
        blocks => format!(" with {}", count(blocks, "block")),
    };
    let sentence = format!("the pool {} {verb}{blocks}", removed.pool.shown());
    let changed = ChangedObject::of(Kind::IpPool.word(), &removed.pool.name, removed.edited);
    Ok(session.report(flags, &[changed], &[sentence]))
}

async fn enable(arguments: &PoolNamed, enable: bool, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let pool = datastore.find_pool(&arguments.pool).await?;
    let flags = arguments.flags;
    let edited = datastore.enable_pool(&pool.name, enable, flags.dry_run).await?;
    let word = if enable { "enabled" } else { "disabled" };
    let state = match (edited.is_change(), flags.dry_run) {
        (false, _) => format!("is {word} already"),
        (true, false) => format!("is {word}"),
        (true, true) => format!("would be {word}"),
    };
    let left = match enable {
        true => String::new(),
        false => {
            let (blocks, damaged) = datastore.booked_blocks().await?;
            session.warn_of(&damaged);
            let taken = blocks.iter().flat_map(|block| &block.taken);
            let left: BTreeSet<_> =
                taken.map(|taken| taken.address).filter(|ip| pool.cidr.contains(ip)).collect();
            match left.len() {
                0 => "; no address of it is in use".to_owned(),
                1 => "; 1 address of it is still in use".to_owned(),
                left => format!("; {left} addresses of it are still in use"),
            }
        }
    };
    let sentence = format!("the pool {} {state}{left}", pool.shown());
    Ok(session.report(flags, &[ChangedObject::of(Kind::IpPool.word(), &pool.name, edited)], &[sentence]))
}
