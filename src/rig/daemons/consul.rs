//! A private Consul: the real program on free ports, in its development mode, which keeps everything in memory.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::{cache, find_program, Daemon, Netns, Recipe};
use super::{free_port, http, ports, DevError};

const LIMIT: Duration = Duration::from_secs(30);
/// Where every document and every `dig` example looks for Consul's DNS.
const USUAL_DNS_PORT: u16 = 8600;

#[derive(Debug, Clone, Default)]
pub struct ConsulOptions {
    /// More configuration in Consul's HCL, such as an `acl` block.
    pub configuration: Option<String>,
    /// Always a free DNS port, never 8600.
    pub any_dns_port: bool,
    /// Keeps its data on disk, as a real agent does, and has them again after a restart.
    pub persistent: bool,
}

/// See the module's documentation.
pub struct Consul {
    pub http: SocketAddr,
    /// UDP and TCP; port 8600 when that is free.
    pub dns: SocketAddr,
    pub dir: PathBuf,
    acl: bool,
    daemon: Daemon,
}

/// Consul of PATH, else the one that `scripts/consul.sh` built into the cache: the version that it pins, since others
/// may lie there from before.
pub fn find_consul() -> Option<PathBuf> {
    find_program("consul").or_else(|| {
        let built = cache()?.join(format!("consul-{}", pinned_version()?));
        built.exists().then_some(built)
    })
}

/// The version of Consul in the module file that `scripts/consul.sh` builds from.
fn pinned_version() -> Option<&'static str> {
    let required = include_str!("../../../scripts/consul/go.mod").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "github.com/hashicorp/consul").then(|| words.next())?
    });
    required?.strip_prefix('v')
}

impl Consul {
    pub async fn start(dir: &Path, options: ConsulOptions) -> Result<Self, DevError> {
        let program = find_consul().ok_or(DevError::Missing {
            program: "consul",
            hint: "run scripts/consul.sh, which builds it, or install it",
        })?;
        std::fs::create_dir_all(dir).map_err(DevError::io(format!("create {}", dir.display())))?;
        let configuration = dir.join("consul.hcl");
        // Consul would ask its makers' server for news otherwise.
        let acl = options.configuration.as_ref().is_some_and(|text| text.contains("acl"));
        let text = format!("disable_update_check = true\n{}", options.configuration.unwrap_or_default());
        std::fs::write(&configuration, text)
            .map_err(DevError::io(format!("write {}", configuration.display())))?;
        let mut tries = 0;
        loop {
            tries += 1;
            let usual = !options.any_dns_port && tries == 1 && ports::is_free(USUAL_DNS_PORT);
            let mode: Vec<OsString> = match options.persistent {
                false => vec!["-dev".into()],
                true => vec![
                    "-server".into(),
                    "-bootstrap-expect=1".into(),
                    "-data-dir".into(),
                    dir.join("data").into(),
                ],
            };
            match Self::try_start(&program, dir, mode, usual.then_some(USUAL_DNS_PORT), acl).await {
                Err(error) if error.port_was_taken() && tries < 4 => (),
                result => return result,
            }
        }
    }

    async fn try_start(
        program: &Path,
        dir: &Path,
        mode: Vec<OsString>,
        dns: Option<u16>,
        acl: bool,
    ) -> Result<Self, DevError> {
        let port = || free_port().ok_or_else(|| DevError::Unusable("no free port for Consul".into()));
        let (http, dns) = (port()?, dns.map_or_else(port, Ok)?);
        let mut arguments: Vec<OsString> = vec!["agent".into()];
        arguments.extend(mode);
        arguments.extend(["-config-file".into(), dir.join("consul.hcl").into()]);
        for (flag, value) in [
            ("-bind", "127.0.0.1".to_owned()),
            ("-client", "127.0.0.1".to_owned()),
            ("-http-port", http.to_string()),
            ("-dns-port", dns.to_string()),
            ("-server-port", port()?.to_string()),
            ("-serf-lan-port", port()?.to_string()),
            ("-serf-wan-port", "-1".to_owned()),
            ("-grpc-port", "-1".to_owned()),
            ("-grpc-tls-port", "-1".to_owned()),
        ] {
            arguments.push(format!("{flag}={value}").into());
        }
        let recipe = Recipe {
            name: "consul",
            program: program.into(),
            arguments,
            environment: Default::default(),
            log: dir.join("log"),
            netns: Netns::Here,
            parent_death: Some(Signal::SIGKILL),
        };
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (http, dns) = (at(http), at(dns));
        let daemon = Daemon::start(recipe, LIMIT, move || ready(http, acl)).await?;
        Ok(Self { http, dns, dir: dir.into(), acl, daemon })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    pub async fn stop(&mut self) {
        self.daemon.stop(Duration::from_secs(5)).await;
    }

    /// As in a crash; everything registered is forgotten, unless it is persistent.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Again on the same ports.
    pub async fn restart(&mut self) -> Result<(), DevError> {
        let (http, acl) = (self.http, self.acl);
        self.daemon.restart(LIMIT, move || ready(http, acl)).await
    }
}

/// A leader is known and the catalogue holds this node: from then on registrations reach DNS.
/// With ACLs the catalogue shows nothing without a token, so there the leader must do.
async fn ready(http: SocketAddr, acl: bool) -> bool {
    filled(http, "/v1/status/leader").await && (acl || filled(http, "/v1/catalog/service/consul").await)
}

/// Answered with more than an empty list or string.
async fn filled(http: SocketAddr, path: &str) -> bool {
    http::over_tcp(http, path).await.is_ok_and(|reply| reply.status == 200 && reply.body.trim().len() > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Consul is under the Business Source License since 1.16.2.
    #[test]
    fn the_pinned_consul_is_open_source() {
        let version = pinned_version().expect("go.mod names Consul");
        let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
        assert!(numbers < vec![1, 16, 2], "{version}");
    }
}
