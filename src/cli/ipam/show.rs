//! `ipam show`: the real calicoctl's tables.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use ipnet::IpNet;
use serde_json::{json, Value};

use crate::calico::{BookedBlock, Datastore, PoolRecord};
use crate::cli::output::{count, Format, Listing, Out, Output, Row};
use crate::cli::session::Session;
use crate::cli::watch::Watch;
use crate::cli::Failed;

#[derive(Debug, Args)]
pub struct IpamShow {
    /// Who has this address
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["show_blocks", "show_borrowed", "show_configuration"])]
    ip: Option<IpAddr>,
    /// The blocks of each pool as well
    #[arg(long, conflicts_with_all = ["show_borrowed", "show_configuration"])]
    show_blocks: bool,
    /// The addresses that hosts have in blocks of others
    #[arg(long, conflicts_with = "show_configuration")]
    show_borrowed: bool,
    /// How addresses are given out
    #[arg(long)]
    show_configuration: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
}

/// Prints what the flags name; without one, how full the pools are.
pub async fn show(arguments: &IpamShow, session: &Session) -> Result<ExitCode, Failed> {
    arguments.watch.repeat(&session.out, async |out| print(arguments, session, out).await).await
}

async fn print(arguments: &IpamShow, session: &Session, out: &Out) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let format = arguments.output.output;
    if let Some(address) = arguments.ip {
        return show_address(address, format, session, out, &mut datastore).await;
    }
    if arguments.show_configuration {
        let settings = datastore.ipam_settings().await?;
        let row = |name: &str, value: Value| Row {
            name: name.to_owned(),
            cells: vec![name.to_owned(), value.to_string()],
            json: json!({ "property": name, "value": value }),
            ..Row::default()
        };
        let rows = vec![
            row("StrictAffinity", settings.strict_affinity.into()),
            row("AutoAllocateBlocks", settings.auto_allocate_blocks.into()),
            row("MaxBlocksPerHost", settings.max_blocks_per_host.into()),
        ];
        Listing { rows, left: true, ..Listing::framed(&["PROPERTY", "VALUE"]) }.print(format, out);
        return Ok(ExitCode::SUCCESS);
    }
    let (blocks, damaged) = datastore.booked_blocks().await?;
    session.warn_of(&damaged);
    warn_of_faults(&blocks);
    if arguments.show_borrowed {
        show_borrowed(&blocks, format, out);
        return Ok(ExitCode::SUCCESS);
    }
    let (pools, damaged) = datastore.pool_records().await?;
    session.warn_of(&damaged);
    let list = Listing {
        rows: utilization(&pools, &blocks, arguments.show_blocks),
        left: true,
        ..Listing::framed(&["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"])
    };
    list.print(format, out);
    Ok(ExitCode::SUCCESS)
}

/// What is counted in a faulty block may be wrong.
fn warn_of_faults(blocks: &[BookedBlock]) {
    let faulty = blocks.iter().filter(|block| !block.faults.is_empty()).count();
    if faulty > 0 {
        let has = if faulty == 1 { "has" } else { "have" };
        tracing::warn!("{} {has} structural errors; `ipam check` lists them", count(faulty, "block"));
    }
}

async fn show_address(
    address: IpAddr,
    format: Format,
    session: &Session,
    out: &Out,
    datastore: &mut Datastore,
) -> Result<ExitCode, Failed> {
    let (found, damaged) = datastore.assignment(address).await?;
    let Some(found) = found else {
        session.warn_of(&damaged);
        if !damaged.is_empty() {
            return Err(format!("cannot tell whether {address} is in use").into());
        }
        let users = datastore.users_of(address).await?;
        match format {
            Format::Json | Format::Yaml => {
                out.value(format, &json!({ "address": address, "inUse": false, "endpoints": users }));
            }
            Format::Name => {}
            Format::Table | Format::Wide => out.line(format!("{address} is not assigned")),
        }
        for user in users {
            tracing::warn!("no block assigns {address}, but {user} has it: another task may get it too; see `ipam check`");
        }
        return Ok(ExitCode::SUCCESS);
    };
    match format {
        Format::Json | Format::Yaml => {
            let mut value = found.to_value();
            value["inUse"] = true.into();
            value["node"] = found.owner.as_deref().into();
            out.value(format, &value);
        }
        Format::Name => out.line(address.to_string()),
        Format::Table | Format::Wide => {
            out.line(format!("IP {address} is in use"));
            if found.taken.is_lost {
                out.line("The block has lost who has it: its attribute is missing");
                return Ok(ExitCode::SUCCESS);
            }
            if let (Some(handle), Format::Wide) = (&found.taken.handle, format) {
                out.line(format!("Handle ID: {}", clean(handle)));
            }
            match found.taken.attributes.is_empty() {
                true => out.line("No attributes defined"),
                false => out.line("Attributes:"),
            }
            for (name, value) in &found.taken.attributes {
                out.line(format!("  {}: {}", clean(name), clean(value)));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Without what a terminal would obey.
fn clean(text: &str) -> String {
    text.replace(crate::error::is_deceptive, " ")
}

fn show_borrowed(blocks: &[BookedBlock], format: Format, out: &Out) {
    let mut rows = Vec::new();
    let mut unclassified = 0;
    for block in blocks {
        for taken in &block.taken {
            let Some(node) = taken.node() else {
                unclassified += 1;
                continue;
            };
            if node == block.owner() {
                continue;
            }
            let (kind, to) = match taken.pod() {
                Some(pod) => ("pod", pod),
                None => (taken.kind().unwrap_or_default(), String::new()),
            };
            rows.push(Row {
                name: taken.address.to_string(),
                cells: vec![
                    taken.address.to_string(),
                    node.to_owned(),
                    block.cidr.to_string(),
                    block.owner().to_owned(),
                    kind.to_owned(),
                    to.clone(),
                ],
                wide: vec![taken.task().unwrap_or_default().to_owned()],
                json: json!({
                    "address": taken.address, "borrowingNode": node, "block": block.cidr, "blockOwner": block.owner(),
                    "type": kind, "allocatedTo": to, "task": taken.task(),
                }),
            });
        }
    }
    let header = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"];
    Listing { rows, wide_header: vec!["TASK"], left: true, ..Listing::framed(&header) }.print(format, out);
    if unclassified > 0 && matches!(format, Format::Table | Format::Wide) {
        out.line(format!(
            "\nNote: found {unclassified} IP allocations without an explicit node association. Unable to determine if \
             they are borrowed."
        ));
    }
}

/// A row a pool, and its blocks behind it; blocks of no pool come last.
fn utilization(pools: &[PoolRecord], blocks: &[BookedBlock], with_blocks: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut rest: Vec<&BookedBlock> = blocks.iter().collect();
    for pool in pools {
        let is_its =
            |block: &&BookedBlock| pool.cidr.contains(&block.cidr) || block.cidr.contains(&pool.cidr);
        let (its, others) = rest.into_iter().partition::<Vec<_>, _>(is_its);
        rest = others;
        let in_use: usize = its.iter().map(|block| block.taken.len()).sum();
        rows.push(row("IP Pool", &pool.name, &pool.cidr, in_use as u128));
        rows.extend(its.into_iter().filter(|_| with_blocks).map(block_row));
    }
    rows.extend(rest.into_iter().filter(|_| with_blocks).map(block_row));
    rows
}

fn block_row(block: &BookedBlock) -> Row {
    row("Block", &block.cidr.to_string(), &block.cidr, block.taken.len() as u128)
}

fn row(grouping: &str, name: &str, cidr: &IpNet, in_use: u128) -> Row {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let total = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    let free = total.saturating_sub(in_use);
    let share = |number: u128| format!("{} ({:.0}%)", short(number), 100.0 * number as f64 / total as f64);
    // More than most readers of JSON can count.
    let number =
        |number: u128| u64::try_from(number).map_or_else(|_| Value::from(number as f64), Value::from);
    Row {
        name: name.to_owned(),
        cells: vec![grouping.to_owned(), cidr.to_string(), short(total), share(in_use), share(free)],
        json: json!({
            "grouping": grouping, "name": name, "cidr": cidr, "total": number(total), "inUse": number(in_use),
            "free": number(free),
        }),
        ..Row::default()
    }
}

/// Five digits, as calicoctl writes numbers: `65536`, `1.6777e+07`.
fn short(number: u128) -> String {
    if number < 100_000 {
        return number.to_string();
    }
    let text = format!("{:.4e}", number as f64);
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}e+{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_five_digits() {
        for (number, text) in [
            (0, "0"),
            (65_536, "65536"),
            (99_999, "99999"),
            (100_000, "1e+05"),
            (262_144, "2.6214e+05"),
            (16_777_216, "1.6777e+07"),
            (1 << 64, "1.8447e+19"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn shares_are_rounded_as_calicoctl_does() {
        let cells = |cidr: &str, in_use| row("Block", "", &cidr.parse().unwrap(), in_use).cells;
        assert_eq!(cells("10.65.0.40/29", 1)[2..], ["8", "1 (12%)", "7 (88%)"]);
        assert_eq!(cells("10.65.0.40/29", 3)[2..], ["8", "3 (38%)", "5 (62%)"]);
        assert_eq!(cells("10.65.0.0/26", 4)[2..], ["64", "4 (6%)", "60 (94%)"]);
        assert_eq!(cells("::/0", 0)[2], "3.4028e+38");
    }
}
