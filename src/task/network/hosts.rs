//! The hosts file of a task's container.

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;

use crate::config::Config;
use crate::names::ContainerId;

/// Writes a line with the task's names for each of its addresses into its hosts file, as Docker does on its own
/// networks but not on `none`.
///
/// The link was made by `calico-runc create`, and only to a file of Docker's own. A container that
/// brings its own hosts file has no link, and keeps its file as it is.
pub fn write_hosts(
    config: &Config,
    container: &ContainerId,
    names: &str,
    addresses: &[IpAddr],
) -> Result<(), String> {
    let path = config.paths.task_run(container).join("hosts");
    let failed = |error| format!("cannot write the task's hosts file {}: {error}", path.display());
    let mut file = match fs::OpenOptions::new().read(true).append(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    if let Some(host) = text.lines().find_map(|line| line.strip_prefix(NO_GATEWAY)) {
        return Err(format!(
            "Docker has no address for the parameter add-host={}:host-gateway: it runs without a bridge (--bridge=none); give host-gateway-ip in its daemon.json, or an address in the parameter",
            host.trim()
        ));
    }
    file.write_all(hosts_lines(addresses, names).as_bytes()).map_err(failed)
}

/// A line for each address, in the form of Docker's own.
pub fn hosts_lines(addresses: &[IpAddr], names: &str) -> String {
    addresses.iter().map(|address| format!("{address}\t{names}\n")).collect()
}

/// What Docker 20.10 writes for `host-gateway` in place of an address where it has none.
const NO_GATEWAY: &str = "<nil>\t";
