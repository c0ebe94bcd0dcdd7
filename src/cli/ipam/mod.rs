//! `ipam …`: addresses as calicoctl shows, checks and releases them, without Kubernetes.

mod check;
mod show;

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::session::{DryRun, Session};
use super::Failed;

#[derive(Debug, Subcommand)]
pub enum IpamVerb {
    /// Show how full pools and blocks are, who has an address, or what hosts borrow from each other.
    Show(show::IpamShow),
    /// Release an address that no task has any more.
    Release(IpamRelease),
    /// Look for records of IPAM that contradict each other; exit code 1 when there are some.
    Check(check::IpamCheck),
}

#[derive(Debug, Args)]
pub struct IpamRelease {
    /// The address
    #[arg(long, value_name = "ADDRESS")]
    ip: IpAddr,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Runs one of the verbs.
pub async fn ipam(verb: &IpamVerb, session: &Session) -> Result<ExitCode, Failed> {
    match verb {
        IpamVerb::Show(arguments) => show::show(arguments, session).await,
        IpamVerb::Release(arguments) => release(arguments, session).await,
        IpamVerb::Check(arguments) => check::check(arguments, session).await,
    }
}

async fn release(arguments: &IpamRelease, session: &Session) -> Result<ExitCode, Failed> {
    let (ip, dry_run) = (arguments.ip, arguments.dry_run);
    let released = session.datastore().await?.release_address(ip, dry_run.dry_run).await?;
    if dry_run.dry_run {
        session.out.line(format!("IP address {ip} ({}) would be released", released.taken.holder()));
    } else {
        session.note(&format!("IP address {ip}"), Some(&released.to_value()), None);
        session.out.line(format!("Successfully released IP address {ip}"));
    }
    Ok(dry_run.exit_code(true))
}
