//! A host of a lab (scripts/cluster/lab.sh) that ends with its value, and the packages that are tried on it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

const PROGRAM: &str = env!("CARGO_BIN_EXE_calico-mesos");
static LABS: AtomicU32 = AtomicU32::new(0);

pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds a package of the programs of this test run.
pub fn build_package(version: &str, dist: &Path) -> PathBuf {
    let output = Command::new(source("scripts/deb.sh"))
        .env("DEB_PROGRAMS", Path::new(PROGRAM).parent().unwrap())
        .envs([("DEB_PROFILE", "debug"), ("DEB_VERSION", version)])
        .env("DEB_DIST", dist)
        .output()
        .unwrap();
    PathBuf::from(printed(&output).trim())
}

/// Two releases with the same programs.
pub fn packages() -> &'static [PathBuf; 2] {
    static PACKAGES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let dist = source("target/package-test");
    PACKAGES.get_or_init(|| ["0.0.1", "0.0.2"].map(|version| build_package(version, &dist)))
}

#[track_caller]
pub fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub struct LabHost {
    folder: PathBuf,
}

impl LabHost {
    /// One that has booted, with both packages in /root and the image busybox.
    pub fn up() -> Self {
        let own = std::process::id();
        let name = format!("pkg{own}-{}", LABS.fetch_add(1, Ordering::Relaxed));
        let folder = source("target").join(&name);
        let output = Command::new(source("scripts/cluster/lab.sh"))
            .args(["up", "1"])
            .arg(&folder)
            .env("LAB_PREFIX", &name)
            .env("LAB_OWNER", own.to_string())
            .output()
            .unwrap();
        printed(&output);
        let host = Self { folder };
        for (package, name) in packages().iter().zip(["old", "new"]) {
            host.put(package, &format!("/root/{name}.deb"));
        }
        host.import("busybox", &[]);
        host
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(source("scripts/cluster/host.sh"));
        command.args(["in", "h1", "bash", "-euc", script]).env("LAB", &self.folder);
        command
    }

    /// What the script prints; it must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        printed(&self.command(script).output().unwrap()).trim_end().to_owned()
    }

    /// What the script says on both outputs; it must fail.
    #[track_caller]
    pub fn fails(&self, script: &str) -> String {
        let output = self.command(&format!("{{ {script}; }} 2>&1")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "{text}");
        text
    }

    pub fn put(&self, from: &Path, to: &str) {
        let status = self.command(&format!("cat >{to}")).stdin(File::open(from).unwrap()).status().unwrap();
        assert!(status.success());
    }

    /// An image of busybox with these scripts as programs.
    pub fn import(&self, image: &str, scripts: &[(&str, &str)]) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("bin")).unwrap();
        fs::copy(busybox(), root.path().join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "ip", "cat", "touch", "mkdir", "wc", "env", "seq"] {
            std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).unwrap();
        }
        for (name, text) in scripts {
            let path = root.path().join("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(root.path())
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let docker = format!("docker import -c 'CMD [\"start_runit\"]' -c 'ENV PATH=/bin' - {image}");
        let status =
            self.command(&docker).stdin(tar.stdout.take().unwrap()).stdout(Stdio::null()).status().unwrap();
        assert!(tar.wait().unwrap().success() && status.success());
    }
}

impl Drop for LabHost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = fs::read_to_string(self.folder.join("hosts/h1/console")).unwrap_or_default();
            let last: Vec<&str> = console.lines().rev().take(20).collect();
            eprintln!("the host's console, backwards: {last:#?}");
        }
        let down = Command::new(source("scripts/cluster/lab.sh")).arg("down").arg(&self.folder).status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("{} is left: scripts/cluster/lab.sh down {0}", self.folder.display());
        }
    }
}

/// The static one that scripts/setup.sh sees to.
fn busybox() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let kept = cache.map(|cache| cache.join("calico-mesos/busybox"));
    let is_static = |path: &PathBuf| path.exists() && calico_mesos::rig::daemons::is_static(path);
    places.into_iter().chain(kept).find(is_static).expect("scripts/setup.sh sees to a static busybox")
}
