//! A private etcd with one member: Calico's datastore for a laptop, the demo and the tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::{find_program, Daemon, Netns, Recipe};
use super::{free_port, http, DevError};

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// Certificate and key of the server, and the CA whose clients alone are let in.
    pub tls: Option<(PathBuf, PathBuf, PathBuf)>,
    /// More of etcd's own flags.
    pub arguments: Vec<String>,
}

/// See the module's documentation.
pub struct Etcd {
    /// `http://127.0.0.1:port`, or `https://…` with TLS; stays the same over a restart.
    pub endpoint: String,
    pub dir: PathBuf,
    address: SocketAddr,
    daemon: Daemon,
}

impl Etcd {
    /// Starts with an empty datastore (or with what an earlier one left in `dir`) on a free port.
    pub async fn start(dir: &Path, options: EtcdOptions) -> Result<Self, DevError> {
        let program = find_program("etcd")
            .ok_or(DevError::Missing { program: "etcd", hint: "install Debian's etcd-server" })?;
        std::fs::create_dir_all(dir).map_err(DevError::io(format!("create {}", dir.display())))?;
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::try_start(&program, dir, &options).await {
                Err(error) if error.port_was_taken() && tries < 4 => (),
                result => return result,
            }
        }
    }

    async fn try_start(program: &Path, dir: &Path, options: &EtcdOptions) -> Result<Self, DevError> {
        let (Some(client), Some(peer)) = (free_port(), free_port()) else {
            return Err(DevError::Unusable("no free port for etcd".into()));
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, client));
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{address}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut arguments: Vec<_> = vec!["--data-dir".into(), dir.join("data").into()];
        for (flag, value) in [
            ("--listen-client-urls", &endpoint),
            ("--advertise-client-urls", &endpoint),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("default={peer}")),
            ("--name", &"default".to_owned()),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        if let Some((cert, key, ca)) = &options.tls {
            arguments.extend(["--cert-file".into(), cert.into(), "--key-file".into(), key.into()]);
            arguments.extend(["--trusted-ca-file".into(), ca.into(), "--client-cert-auth".into()]);
        }
        arguments.extend(options.arguments.iter().map(Into::into));
        let mut environment = std::collections::BTreeMap::new();
        if cfg!(target_arch = "aarch64") {
            // etcd 3.4 refuses to start there without this confirmation.
            environment.insert("ETCD_UNSUPPORTED_ARCH".to_owned(), "arm64".into());
        }
        let recipe = Recipe {
            name: "etcd",
            program: program.into(),
            arguments,
            environment,
            log: dir.join("log"),
            netns: Netns::Here,
            parent_death: Some(Signal::SIGKILL),
        };
        let tls = options.tls.is_some();
        let daemon = Daemon::start(recipe, LIMIT, move || ready(address, tls)).await?;
        Ok(Self { endpoint, dir: dir.into(), address, daemon })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    pub async fn stop(&mut self) {
        self.daemon.stop(Duration::from_secs(5)).await;
    }

    /// As in a crash.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Again, with the same data on the same port.
    pub async fn restart(&mut self) -> Result<(), DevError> {
        let (address, tls) = (self.address, self.endpoint.starts_with("https"));
        self.daemon.restart(LIMIT, move || ready(address, tls)).await
    }
}

/// Healthy, that is with a leader; with TLS only that it listens, for which etcd waits for its leader.
async fn ready(address: SocketAddr, tls: bool) -> bool {
    if tls {
        return tokio::net::TcpStream::connect(address).await.is_ok();
    }
    http::over_tcp(address, "/health").await.is_ok_and(|reply| reply.body.contains("\"true\""))
}
