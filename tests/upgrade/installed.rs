//! A host whose programs are replaced while tasks run, as an upgrade does it: by renaming new ones into place.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use calico_mesos::mesos::messages::TaskState;

use crate::world::{tell_custom_executors, Task, World, CLI, EXECUTOR, RUNTIME};

/// Names the folder with the previous release's programs.
pub const VARIABLE: &str = "CALICO_MESOS_PREVIOUS";
const PROGRAMS: [&str; 3] = ["calico-executor", "calico-runc", "calico-mesos"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    Previous,
    This,
}

impl Release {
    fn program(self, name: &str) -> PathBuf {
        match (self, name) {
            (Self::Previous, name) => previous().join(name),
            (Self::This, "calico-executor") => EXECUTOR.into(),
            (Self::This, "calico-runc") => RUNTIME.into(),
            (Self::This, _) => CLI.into(),
        }
    }
}

fn previous() -> PathBuf {
    let folder = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| panic!("{VARIABLE} must name a folder with {}", PROGRAMS.join(", ")));
    for name in PROGRAMS {
        assert!(folder.join(name).exists(), "{VARIABLE}={} has no {name}", folder.display());
    }
    folder
}

pub struct Host {
    pub world: World,
    folder: tempfile::TempDir,
    /// The configuration with everything that this release knows.
    configuration: String,
}

impl Host {
    pub async fn with(release: Release) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in PROGRAMS {
            put(folder.path(), name, release);
        }
        let world = World::with(
            |stack| {
                stack.runtime = Some(folder.path().join("calico-runc"));
                stack.consul = true;
            },
            |agent| {
                agent.executor = folder.path().join("calico-executor");
                tell_custom_executors(agent);
            },
        )
        .await;
        let configuration = std::fs::read_to_string(&world.stack.config).unwrap();
        let host = Self { world, folder, configuration };
        host.configure();
        host
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runtime, executor, CLI, and what the configuration says to them.
    pub fn install(&self, release: Release) {
        for name in PROGRAMS {
            put(self.folder.path(), name, release);
        }
        self.configure();
    }

    /// The configuration stays as it is.
    pub fn install_one(&self, name: &str, release: Release) {
        put(self.folder.path(), name, release);
    }

    /// An older release refuses keys that came later, so these are written after an upgrade, and taken out before
    /// the way back.
    fn configure(&self) {
        let mut lines: Vec<&str> = self.configuration.lines().collect();
        loop {
            std::fs::write(&self.world.stack.config, lines.join("\n")).unwrap();
            let told = String::from_utf8(self.run(&["gc", "--dry-run"]).stderr).unwrap();
            let Some((_, rest)) = told.split_once("unknown field `") else { return };
            let key = format!(".{} = ", rest.split('`').next().unwrap());
            let before = lines.len();
            lines.retain(|line| !line.contains(&key));
            assert!(lines.len() < before, "{told}");
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.program("calico-mesos"));
        command.arg("--config").arg(&self.world.stack.config).args(arguments).output().unwrap()
    }

    /// What the installed `calico-mesos gc` says.
    pub fn gc(&self) -> String {
        let output = self.run(&["gc"]);
        let told =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{told}");
        told
    }

    fn docker_says(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("docker");
        command.arg("-H").arg(self.world.stack.docker.host()).args(arguments).env_remove("DOCKER_HOST");
        let output = command.output().unwrap();
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.success(), told.concat())
    }

    pub fn docker(&self, arguments: &[&str]) -> String {
        let (succeeded, told) = self.docker_says(arguments);
        assert!(succeeded, "docker {arguments:?}: {told}");
        told
    }

    pub fn docker_fails(&self, arguments: &[&str]) -> String {
        let (succeeded, told) = self.docker_says(arguments);
        assert!(!succeeded, "docker {arguments:?} succeeded: {told}");
        told
    }

    /// Stops the task; its container's name.
    pub async fn stopped(&self, task: &Task<'_>) -> String {
        assert_eq!(task.kill().await.state(), TaskState::TaskKilled, "{}", task.log());
        task.container()
    }
}

fn put(folder: &Path, name: &str, release: Release) {
    let new = folder.join(format!(".{name}.new"));
    std::fs::copy(release.program(name), &new).unwrap();
    std::fs::rename(&new, folder.join(name)).unwrap();
}
