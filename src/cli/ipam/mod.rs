//! `ipam …`: addresses as calicoctl shows, checks and releases them, without Kubernetes.

mod check;
mod show;

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::calico::Edited;

use super::change::{ChangeFlags, ChangedObject};
use super::session::Session;
use super::{misused, Failed};

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
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address", required_unless_present = "address")]
    ip: Option<IpAddr>,
    /// The address, as with --ip
    address: Option<IpAddr>,
    #[command(flatten)]
    flags: ChangeFlags,
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
    let flags = arguments.flags;
    let ip =
        arguments.ip.or(arguments.address).ok_or_else(|| misused("the address is missing".to_owned()))?;
    let released = session.datastore().await?.release_address(ip, flags.dry_run).await?;
    let sentence = match flags.dry_run {
        true => format!("IP address {ip} ({}) would be released", released.taken.holder()),
        false => format!("Successfully released IP address {ip}"),
    };
    let edited = Edited { before: Some(released.to_value()), after: None };
    Ok(session.report(flags, &[ChangedObject::of("IP address", &ip.to_string(), edited)], &[sentence]))
}
