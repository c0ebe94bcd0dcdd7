//! `ipam check`: the report of calicoctl 3.29 in its own words, then what its check does not see.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::calico::{IpamReport, ProblemKind};
use crate::cli::output::{Format, Out, Output};
use crate::cli::session::Session;
use crate::cli::Failed;
use crate::error::is_deceptive;

/// Problems of a kind that are listed unless the flags demand all.
const LISTED: usize = 20;
/// How many nodes are listed, as calicoctl does.
const NODES: usize = 20;

#[derive(Debug, Args)]
pub struct IpamCheck {
    /// List all addresses that are looked at, and all problems
    #[arg(long)]
    show_all_ips: bool,
    /// List all problems, not only the first 20 of each kind
    #[arg(long)]
    show_problem_ips: bool,
    #[command(flatten)]
    output: Output,
}

/// Checks, prints, and fails when there are problems.
pub async fn check(arguments: &IpamCheck, session: &Session) -> Result<ExitCode, Failed> {
    let report = session.datastore().await?.check_ipam().await?;
    session.warn_of(&report.damaged);
    let problems = report.problems.iter();
    match arguments.output.output {
        Format::Table | Format::Wide => print(&report, arguments, &session.out),
        Format::Name => problems.for_each(|problem| session.out.line(clean(&problem.subject))),
        format => {
            let shown = problems.map(|problem| {
                json!({ "kind": problem.kind.word(), "subject": problem.subject, "problem": problem.text })
            });
            let value = json!({
                "blocks": report.blocks.len(), "allocations": allocations(&report), "pools": report.pools,
                "nodeAddresses": report.node_addresses, "workloadAddresses": report.workload_addresses,
                "addressesInUse": report.users.len(), "problems": shown.collect::<Vec<_>>(),
            });
            session.out.value(format, &value);
        }
    }
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn allocations(report: &IpamReport) -> usize {
    report.blocks.iter().map(|block| block.taken.len()).sum()
}

fn clean(text: &str) -> String {
    text.replace(is_deceptive, " ")
}

fn print(report: &IpamReport, arguments: &IpamCheck, out: &Out) {
    out.line("Checking IPAM for inconsistencies...\n");
    print_loaded(report, arguments.show_all_ips, out);
    let limit = match arguments.show_all_ips || arguments.show_problem_ips {
        true => usize::MAX,
        false => LISTED,
    };
    let list = |kind: ProblemKind| {
        let found: Vec<_> = report.of(kind).collect();
        for problem in found.iter().take(limit) {
            out.line(clean(&format!("  {} {}", problem.subject, problem.text)));
        }
        if found.len() > limit {
            out.line(format!("  and {} more (--show-problem-ips lists all)", found.len() - limit));
        }
        found.len()
    };
    out.line("Scanning for IPs that are allocated but not actually in use...");
    let leaked = list(ProblemKind::Leaked);
    out.line(format!("Found {leaked} IPs that are allocated in IPAM but not actually in use."));
    out.line("Scanning for IPs that are in use by a workload or node but not allocated in IPAM...");
    let (foreign, unallocated) = (list(ProblemKind::Foreign), list(ProblemKind::Unallocated));
    out.line(format!("Found {foreign} in-use IPs that are not in active IP pools."));
    out.line(format!(
        "Found {unallocated} in-use IPs that are in active IP pools but have no corresponding IPAM allocation.\n"
    ));
    out.line("Scanning for IPAM handles with no matching IPs...");
    let orphans = list(ProblemKind::Orphan);
    let good = report.good_handles;
    out.line(format!("Found {orphans} handles with no matching IPs (and {good} handles with matches)."));
    out.line("Scanning for IPs with missing handle...");
    let missing = report.missing_handles;
    out.line(format!("Found {missing} handles mentioned in blocks with no matching handle resource.\n"));
    out.line("Looking for what calicoctl's check does not see...");
    for (kind, what) in [
        (ProblemKind::Damaged, "records that cannot be read"),
        (ProblemKind::Block, "errors in the structure of blocks"),
        (ProblemKind::Handle, "handles that are missing or count wrong"),
        (ProblemKind::Twice, "IPs that are allocated or used twice"),
        (ProblemKind::Endpoint, "endpoint addresses that cannot be right"),
        (ProblemKind::Affinity, "affinities that do not fit blocks and nodes"),
    ] {
        let found = list(kind);
        out.line(format!("Found {found} {what}."));
    }
    out.line(format!("Check complete; found {} problems.", report.problems.len()));
}

fn print_loaded(report: &IpamReport, all: bool, out: &Out) {
    out.line("Loading all IPAM blocks...");
    out.line(format!("Found {} IPAM blocks.", report.blocks.len()));
    for block in &report.blocks {
        let affinity = block.affinity.as_deref().unwrap_or("<none>");
        out.line(clean(&format!(" IPAM block {} affinity={affinity}:", block.text)));
        for taken in block.taken.iter().filter(|_| all) {
            let extra: Vec<String> =
                taken.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let attributes = match taken.is_lost {
                true => "<missing>".to_owned(),
                false => {
                    format!("Main:{} Extra:{}", taken.handle.as_deref().unwrap_or("<none>"), extra.join(","))
                }
            };
            out.line(clean(&format!("  {} allocated; attrs {attributes}", taken.address)));
        }
    }
    out.line(format!("IPAM blocks record {} allocations.\n", allocations(report)));
    out.line("Loading all IPAM pools...");
    report.pools.iter().for_each(|pool| out.line(format!("  {pool}")));
    out.line(format!("Found {} active IP pools.\n", report.pools.len()));
    out.line("Loading all nodes.");
    out.line(format!("Found {} node tunnel IPs.\n", report.node_addresses));
    out.line("Loading all workload endpoints.");
    for (address, users) in report.users.iter().filter(|_| all) {
        users.iter().for_each(|user| out.line(clean(&format!("  {address} belongs to {user}"))));
    }
    out.line(format!("Found {} workload IPs.", report.workload_addresses));
    out.line(format!("Workloads and nodes are using {} IPs.\n", report.users.len()));
    out.line("Loading all handles");
    out.line(format!("Looking for top (up to {NODES}) nodes by allocations..."));
    for (node, number) in report.by_node.iter().take(NODES) {
        out.line(clean(&format!("  {node} has {number} allocations")));
    }
    if let (Some((_, most)), Some((_, median))) =
        (report.by_node.first(), report.by_node.get(report.by_node.len() / 2))
    {
        out.line(format!("Node with most allocations has {most}; median is {median}"));
    }
    out.line("");
}
