//! An operator's desk: the program, its configuration, a private etcd.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::datastore::World;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_calico-mesos");
pub const NODE: &str = "agent-1";

pub struct Desk {
    pub world: World,
}

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Desk {
    pub async fn new(nodes: &[&str], pools: &[(&str, &str)]) -> Self {
        Self::of(World::new(nodes, pools).await)
    }

    /// The host of the desk is called [`NODE`].
    pub fn of(world: World) -> Self {
        let desk = Self { world };
        let text = format!(
            "[etcd]\nendpoints = [\"{}\"]\n[node]\nname = \"{NODE}\"\n[consul]\nenabled = false\n[paths]\n\
             run = \"{1}/run\"\nstate = \"{1}/state\"\nlog = \"{1}/log\"\nnodename_file = \"{1}/nodename\"\n\
             ipam_lock = \"{1}/ipam.lock\"\nmtu_file = \"{1}/mtu\"\nendpoint_status = \"{1}/status\"\n",
            desk.world.etcd.endpoint,
            desk.dir().display(),
        );
        std::fs::write(desk.config(), text).unwrap();
        desk
    }

    pub fn dir(&self) -> &Path {
        self.world.dir.path()
    }

    pub fn config(&self) -> PathBuf {
        self.dir().join("config.toml")
    }

    /// The program with the desk's configuration, and nothing of the environment but PATH.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("SUDO_USER", "operator");
        command.arg("--config").arg(self.config());
        command
    }

    pub fn run(&self, line: &str) -> Said {
        Said::of(self.command(PROGRAM).args(line.split_whitespace()).output().unwrap())
    }

    /// It must succeed, without a warning; what it printed.
    pub fn done(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{line}: {said:?}");
        said.stdout
    }

    /// It must fail with one line; that line.
    pub fn refused(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{line}: {said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{line}: {said:?}");
        said.stderr
    }

    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{line} -o json"))).unwrap()
    }

    /// Objects of the lines in the audit trail of changes.
    pub fn trail(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir().join("log/audit/changes/current")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
