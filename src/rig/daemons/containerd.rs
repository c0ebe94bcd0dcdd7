//! dockerd's containerd, started by us and not by dockerd.
//!
//! dockerd starts one by itself only where the machine has none. Where Docker or Kubernetes runs it
//! would share the machine's, and its containers and images with its other users.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{find_program, Daemon, Netns, Recipe};
use super::DevError;

const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Containerd {
    pub socket: PathBuf,
    daemon: Daemon,
}

impl Containerd {
    /// `exec_root` and `data_root` are dockerd's, and so are the environment, which runtimes inherit, and the
    /// network namespace, which containers on the host's network are in.
    pub async fn start(
        exec_root: &Path,
        data_root: &Path,
        log: PathBuf,
        environment: BTreeMap<String, OsString>,
        netns: Netns,
    ) -> Result<Self, DevError> {
        let program = find_program("containerd").ok_or(DevError::Missing {
            program: "containerd",
            hint: "install the one that comes with Docker",
        })?;
        let dir = exec_root.join("containerd");
        let socket = dir.join("containerd.sock");
        let file = dir.join("containerd.toml");
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&file, configuration(&dir, data_root, &socket)))
            .map_err(DevError::io(format!("write {}", file.display())))?;
        let arguments = vec!["--config".into(), file.into()];
        // dockerd, which gets the signal, still needs it to end its containers. The next sweep finds it.
        let parent_death = None;
        let recipe = Recipe { name: "containerd", program, arguments, environment, log, netns, parent_death };
        let daemon = Daemon::start(recipe, LIMIT, || answers(&socket)).await?;
        Ok(Self { socket: socket.clone(), daemon })
    }

    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    pub async fn stop(&mut self) {
        self.daemon.stop(Duration::from_secs(2)).await;
    }

    /// Shims and containers run on.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    pub async fn restart(&mut self) -> Result<(), DevError> {
        let socket = self.socket.clone();
        self.daemon.restart(LIMIT, || answers(&socket)).await
    }
}

async fn answers(socket: &Path) -> bool {
    tokio::net::UnixStream::connect(socket).await.is_ok()
}

/// The layout that dockerd would choose. A path is quoted as JSON is, which TOML reads the same way.
fn configuration(dir: &Path, data_root: &Path, socket: &Path) -> String {
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    format!(
        "version = 2\nroot = {}\nstate = {}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {}\n",
        quoted(&data_root.join("containerd/daemon")),
        quoted(&dir.join("daemon")),
        quoted(socket),
    )
}
