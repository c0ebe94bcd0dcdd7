//! `calico-mesos diags`: an archive of what explains this host, to look at elsewhere. Nothing is sent anywhere.
//!
//! ```text
//!  parts, all at once, each with a time limit ──► Bag ──► Mask ──► tar.gz, mode 0600
//!   status, config, journals, logs, network,       │        ▲
//!   Docker, Felix, units, processes                └secrets ┘◄── this host's files of secrets
//! ```
//!
//! A part only reads, and changes nothing. One that fails leaves a line in `errors.txt`; one that hangs is given up,
//! with what it has found so far. Every text passes the one [`mask`] on its way into the archive; what would be
//! nothing but secrets, such as environments and command lines of containers, is not read into it in the first place.

mod archive;
mod bag;
mod docker;
mod files;
mod host;
mod mask;
mod network;
mod program;
mod secrets;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::timeout;

use crate::config::{Config, Origin, DEFAULT_PATH};
use crate::limits::DIAGS_PART;

use super::output::{count, Format, Out};
use super::session::Session;
use super::{config, status, Failed};

use archive::Archive;
use bag::Bag;
use mask::Mask;

/// What is asked for on the command line.
#[derive(Debug, Clone, Args)]
pub struct DiagsArguments {
    /// The archive; default: calico-mesos-diags-HOST-TIME.tar.gz in this folder. An existing file is never replaced
    file: Option<PathBuf>,
    /// The settings of calico/node
    #[arg(long, value_name = "FILE", default_value = "/etc/calico/calico.env")]
    env_file: PathBuf,
}

/// Something of this host that is read.
type Part<'a> = (&'static str, Pin<Box<dyn Future<Output = ()> + 'a>>);

/// Collects, leaves out, writes. Faults of the host are what it is for: none of them is its own.
pub async fn diags(arguments: &DiagsArguments, file: Option<&Path>, out: &Out) -> Result<ExitCode, Failed> {
    let archive = Archive::named(arguments.file.as_deref(), SystemTime::now())?;
    let bag = Bag::default();
    let session = Session::open(file, out).unwrap_or_else(|error| {
        let config = known_parts(file.unwrap_or(Path::new(DEFAULT_PATH)));
        bag.error("config", format!("{}; the defaults count here", crate::error::chain(error.as_ref())));
        Session { config, file: file.map(Path::to_owned), origin: Origin::Default, out: out.clone() }
    });
    let parts = parts(&session, arguments, &bag);
    let bounded = parts.into_iter().map(|(name, part)| {
        let bag = bag.clone();
        async move {
            if timeout(DIAGS_PART, part).await.is_err() {
                bag.error(name, format!("given up after {} s", DIAGS_PART.as_secs()));
            }
        }
    });
    join_all(bounded).await;
    let mut findings = bag.take();
    let path = file.unwrap_or(Path::new(DEFAULT_PATH));
    let mut values = std::mem::take(&mut findings.secrets);
    values.extend(secrets::of_host(&session.config, path, &arguments.env_file));
    let errors = findings.errors.len();
    archive.write(findings, &Mask::new(values))?;
    let text = format!("{}: look through it before you pass it on", archive.path().display());
    out.line(match errors {
        0 => text,
        number => format!("{text}; {} could not be read: see errors.txt in it", count(number, "part")),
    });
    Ok(ExitCode::SUCCESS)
}

/// Of a file with a mistake, the folders that it names: most of what there is to see is there.
fn known_parts(path: &Path) -> Config {
    let mut config = Config::default();
    let text = files::read_some(path, 1 << 20).unwrap_or_default();
    let value = |key: &str| {
        let line =
            text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='));
        line.map(|line| PathBuf::from(line.trim().trim_matches(['"', '\''])))
            .filter(|path| path.is_absolute())
    };
    let paths = &mut config.paths;
    for (key, path) in [
        ("run", &mut paths.run),
        ("state", &mut paths.state),
        ("log", &mut paths.log),
        ("endpoint_status", &mut paths.endpoint_status),
    ] {
        if let Some(found) = value(key) {
            *path = found;
        }
    }
    config
}

fn parts<'a>(session: &'a Session, arguments: &'a DiagsArguments, bag: &Bag) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    parts.push(("status", Box::pin(host_status(session, bag.clone()))));
    parts.push(("docker", Box::pin(docker::read(&session.config, bag.clone()))));
    parts.push(("namespaces", Box::pin(network::namespaces(&session.config, bag.clone()))));
    for (name, line) in network::PROGRAMS.iter().chain(&host::PROGRAMS) {
        parts.push((name, Box::pin(program::part(name, line, bag.clone()))));
    }
    parts.push(("systemd", Box::pin(host::units(bag.clone()))));
    shown_config(session, bag);
    type Reader = fn(&Config, &Path, &Bag);
    let readers: [(&'static str, Reader); 8] = [
        ("state", |config, _, bag| host::state(config, bag)),
        ("logs", |config, _, bag| host::logs(config, bag)),
        ("felix", host::felix),
        ("sysctls", |_, _, bag| network::sysctls(bag)),
        ("mounts", |config, _, bag| host::mounts(config, bag)),
        ("kernel", |_, _, bag| host::kernel(bag)),
        ("agents", |_, _, bag| host::processes(bag)),
        ("folders", |config, _, bag| host::folders(config, bag)),
    ];
    for (name, read) in readers {
        let (config, settings, bag) = (session.config.clone(), arguments.env_file.clone(), bag.clone());
        let failed = bag.clone();
        // A disk that hangs holds a thread of its own, which ends with the process.
        let reading = tokio::task::spawn_blocking(move || read(&config, &settings, &bag));
        let part = async move {
            if let Err(error) = reading.await {
                failed.error(name, error);
            }
        };
        parts.push((name, Box::pin(part)));
    }
    parts
}

async fn host_status(session: &Session, bag: Bag) {
    let (text, document) = status::texts(session).await;
    bag.add("status/status.txt", text);
    bag.add("status/status.json", document.to_string());
}

/// As `config show` and `config check` print it: files that hold secrets are named, and not read.
fn shown_config(session: &Session, bag: &Bag) {
    let settings = config::settings(session);
    let print = |name: &str, print: &dyn Fn(&Out)| {
        let (out, bytes) = Out::in_memory();
        print(&out);
        let bytes = bytes.lock().map(|bytes| bytes.clone()).unwrap_or_default();
        bag.add(name, String::from_utf8_lossy(&bytes));
    };
    print("config/shown.txt", &|out| settings.print(Format::Table, out));
    let values: Value = settings.rows.iter().map(|row| row.json.clone()).collect();
    bag.add("config/shown.json", values.to_string());
    print("config/check.txt", &|out| {
        if let Err(error) = config::check(session.file.as_deref(), Format::Table, out) {
            out.line(crate::error::chain(error.as_ref()));
        }
    });
}
