//! `node init`: the records and the file that calico/node's start-up makes, on a host where Felix runs without it.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::calico::{self, Made, PoolMode, StartUp};
use crate::config::Config;
use crate::error::FileError;
use crate::host::{addresses, files, kernel};

use super::super::change::{ChangeFlags, ChangedObject};
use super::super::pool::refuse_overlap;
use super::super::session::Session;
use super::super::Failed;

#[derive(Debug, Args)]
pub struct InitArguments {
    /// This node's IPv4 address; otherwise the one from which this host speaks to others
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,
    /// This node's IPv6 address; otherwise none
    #[arg(long, value_name = "IP")]
    ip6: Option<IpAddr>,
    /// Also make this IP pool
    #[arg(long, value_name = "CIDR", requires = "mode")]
    pool: Option<IpNet>,
    /// How the pool's packets go from node to node
    #[arg(long, requires = "pool")]
    mode: Option<Mode>,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Wrapped in IP; BIRD distributes the routes
    Ipip,
    /// Wrapped in VXLAN; Felix sets the routes, and needs no BGP
    Vxlan,
    /// As they are; BIRD distributes the routes
    Bgp,
}

impl From<Mode> for PoolMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Ipip => Self::Ipip,
            Mode::Vxlan => Self::Vxlan,
            Mode::Bgp => Self::Bgp,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("this host has no address from which it speaks to others: name one with --ip (there are {0})")]
    NoAddress(String),
    #[error("{0} is not an {1} address")]
    OtherFamily(IpAddr, &'static str),
    #[error("this host's kernel has no IPIP (module ipip); use --mode vxlan")]
    NoIpip,
    #[error(
        "{path} names this node {there}, and [node] name in the configuration {wanted}: change one of them"
    )]
    OtherName { path: PathBuf, there: String, wanted: String },
    #[error("node init needs root: it writes {0} (try sudo)")]
    NotRoot(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Repeating it changes nothing, and what is there stays.
pub(super) async fn init(arguments: &InitArguments, session: &Session) -> Result<ExitCode, Failed> {
    let (config, flags) = (&session.config, arguments.flags);
    let node = calico::node_name(config)?;
    let name_file = &config.paths.nodename_file;
    let named = name_in(name_file, &node)?;
    if !flags.dry_run && !named && !may_write(name_file) {
        return Err(InitError::NotRoot(name_file.clone()).into());
    }
    let mut datastore = session.datastore().await?;
    let wanted = StartUp {
        address: Some(address(arguments.ip, config)?),
        address6: arguments.ip6.map(|ip| own(ip, false)).transpose()?,
        pool: arguments.pool.zip(arguments.mode.map(PoolMode::from)),
        node: node.clone(),
    };
    if let Some((cidr, mode)) = wanted.pool {
        if mode == PoolMode::Ipip && !kernel::has_ipip() {
            return Err(InitError::NoIpip.into());
        }
        refuse_overlap(&mut datastore, cidr).await?;
    }
    let made = datastore.start_up(&wanted, flags.dry_run).await?;
    let mut sentences: Vec<String> = made.iter().map(|made| sentence(made, flags)).collect();
    let mut changed: Vec<ChangedObject> = made.into_iter().map(ChangedObject::from).collect();
    if !named && !flags.dry_run {
        // What is written in the datastore is in the audit trail, whatever becomes of the file.
        if let Err(error) = write_name(name_file, &node) {
            session.report(flags, &changed, &sentences);
            return Err(error.into());
        }
    }
    let file = name_file.display().to_string();
    sentences.push(match (named, flags.dry_run) {
        (true, _) => format!("{file} is there"),
        (false, true) => format!("to write: {file}"),
        (false, false) => format!("{file} is written"),
    });
    let name = Some(node.as_str().into());
    changed.push(ChangedObject::on_host(&file, name.clone().filter(|_| named), name));
    Ok(session.report(flags, &changed, &sentences))
}

fn sentence(made: &Made, flags: ChangeFlags) -> String {
    let (edited, object) = (&made.edited, &made.object);
    let object = match &made.detail {
        Some(detail) => format!("{object} ({detail})"),
        None => object.clone(),
    };
    match (edited.is_change(), edited.before.is_some(), flags.dry_run) {
        (false, ..) => format!("{object} is there"),
        (true, false, true) => format!("to make: {object}"),
        (true, true, true) => format!("to complete: {object}"),
        (true, false, false) => format!("{object} is made"),
        (true, true, false) => format!("{object} is completed"),
    }
}

/// Whether the file names this node; one that names another is an error.
fn name_in(path: &Path, node: &str) -> Result<bool, InitError> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(false),
        Ok(text) if text.trim() == node => Ok(true),
        Ok(text) => Err(InitError::OtherName {
            path: path.into(),
            there: text.trim().to_owned(),
            wanted: node.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::on("read", path)(source).into()),
    }
}

fn may_write(path: &Path) -> bool {
    let existing = path.ancestors().skip(1).find(|folder| folder.exists());
    existing.is_some_and(|folder| nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok())
}

/// As calico/node writes it: without a line break.
fn write_name(path: &Path, node: &str) -> Result<(), InitError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(FileError::on("make", folder))?;
    }
    Ok(files::replace(path, |new| new.write_all(node.as_bytes())).map_err(FileError::on("write", path))?)
}

/// The IPv4 address of this host with the length of its network.
fn address(given: Option<IpAddr>, config: &Config) -> Result<IpNet, Failed> {
    if let Some(ip) = given {
        return own(ip, true);
    }
    let peers = config.etcd.endpoints.iter().filter_map(|endpoint| {
        let url = url::Url::parse(endpoint).ok()?;
        let ip: IpAddr = url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
        (!ip.is_loopback()).then(|| (ip, url.port_or_known_default().unwrap_or(2379)).into())
    });
    // Where etcd has no address of its own, the default route decides.
    let towards = peers.map(Some).chain([None]).find_map(|peer| addresses::towards(peer, true));
    match towards.filter(|ip| !ip.is_loopback()) {
        Some(ip) => own(ip, true),
        None => Err(InitError::NoAddress(addresses::listed(&addresses::own()?, true)).into()),
    }
}

fn own(ip: IpAddr, is_v4: bool) -> Result<IpNet, Failed> {
    if ip.is_ipv4() != is_v4 {
        return Err(InitError::OtherFamily(ip, if is_v4 { "IPv4" } else { "IPv6" }).into());
    }
    Ok(addresses::required(ip)?)
}
