//! Starts the program in a network namespace of its own, with a look at the machine before and after.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::kit::wait;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_calico-mesos");
const LIMIT: Duration = Duration::from_secs(90);

/// Writes down the program's own pid, so that signals go to it alone.
const SCRIPT: &str = r#"
set -u
ip link set lo up
"$ROOT/scripts/snapshot.sh" "$DIR/before"
"$@" >"$DIR/stdout" 2>"$DIR/stderr" </dev/null &
echo $! >"$DIR/pid.new" && mv "$DIR/pid.new" "$DIR/pid"
wait $!
echo $? >"$DIR/code"
"$ROOT/scripts/snapshot.sh" "$DIR/after"
"$ROOT/scripts/snapshot.sh" --compare "$DIR/before" "$DIR/after" >"$DIR/differences"
true
"#;

/// One running `calico-mesos`.
pub struct Machine {
    dir: tempfile::TempDir,
    shell: Child,
}

/// What it came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// What is different on the machine afterwards.
    pub differences: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Machine {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(&[&[PROGRAM], arguments].concat())
    }

    /// Any command line; its temporary files go below the test's own folder, so that what stays is seen.
    pub fn start_with(words: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("cm-cli-").tempdir_in("/tmp").unwrap();
        fs::create_dir(dir.path().join("t")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "bash", "-c", SCRIPT, "bash"]).args(words);
        command.env("ROOT", root()).env("DIR", dir.path()).env("TMPDIR", dir.path().join("t"));
        command.env_remove("DOCKER_HOST");
        let log = File::create(dir.path().join("shell")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let shell = command.process_group(0).spawn().expect("this test needs unshare and bash");
        Self { dir, shell }
    }

    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join(name)).unwrap_or_default()).into_owned()
    }

    /// Waits until the program has printed `text`.
    pub fn wait_for(&mut self, text: &str) {
        wait::blocking(LIMIT, format!("'{text}' is printed"), || {
            // What it has printed before its end counts.
            let ended = self.shell.try_wait().unwrap().is_some();
            let printed = self.stdout();
            if printed.contains(text) {
                return Ok(());
            }
            let all = format!("{printed}{}", self.read("stderr"));
            assert!(!ended, "ended without '{text}': {all}");
            Err(all)
        });
    }

    pub fn signal(&self, signal: Signal) {
        self.signal_after(Duration::ZERO, signal);
    }

    /// Counted from the program's start.
    pub fn signal_after(&self, pause: Duration, signal: Signal) {
        let pid = || self.read("pid").trim().parse::<i32>();
        let pid = wait::blocking(LIMIT, "the shell has written the program's pid", pid);
        // Whatever the program is doing then.
        std::thread::sleep(pause);
        kill(Pid::from_raw(pid), signal).expect("the program is running");
    }

    pub fn finish(mut self) -> Outcome {
        wait::blocking(LIMIT, "the program ends", || {
            let ended = self.shell.try_wait().unwrap();
            ended.ok_or_else(|| format!("{}{}", self.stdout(), self.read("stderr")))
        });
        let mut differences = self.read("differences");
        for entry in fs::read_dir(self.dir.path().join("t")).unwrap().flatten() {
            differences.push_str(&format!("left: {}\n", entry.path().display()));
        }
        Outcome {
            code: self.read("code").trim().parse().expect("the shell has written the exit code"),
            stdout: self.stdout(),
            stderr: self.read("stderr"),
            differences,
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(None) = self.shell.try_wait() {
            // A failed test: the program removes its own things on SIGTERM.
            if let Ok(pid) = self.read("pid").trim().parse() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            let _ = self.shell.wait();
        }
    }
}

impl Outcome {
    /// The exit code wanted, nothing left behind, the machine as it was.
    #[track_caller]
    pub fn expect(&self, code: i32) {
        assert_eq!(self.code, code, "{self:#?}");
        assert_eq!(self.differences, "", "{self:#?}");
    }

    #[track_caller]
    pub fn says(&self, text: &str) {
        assert!(self.stdout.contains(text), "no '{text}' in {self:#?}");
    }
}

/// An app definition in a file.
pub struct App {
    _file: tempfile::NamedTempFile,
    pub path: String,
}

impl App {
    pub fn new(text: &str) -> Self {
        let file = tempfile::Builder::new().suffix(".json").tempfile_in("/tmp").unwrap();
        fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        Self { _file: file, path }
    }

    /// A busybox that runs `cmd` with a Calico address.
    pub fn calico(cmd: &str) -> Self {
        Self::new(&format!(
            r#"{{"id": "hello", "cpus": 0.1, "mem": 32, "cmd": {cmd:?},
                "container": {{"type": "DOCKER", "docker": {{"image": "busybox"}}}},
                "env": {{"CALICO_IP": "auto", "SERVICE_PORT": "8080"}}}}"#
        ))
    }
}

pub fn testapp() -> String {
    root().join("marathon-examples/testapp.json").to_str().unwrap().to_owned()
}

/// Runs the program without a namespace of its own: for verbs that touch nothing.
pub fn plain(arguments: &[&str]) -> Outcome {
    Outcome::of(Command::new(PROGRAM).args(arguments))
}

impl Outcome {
    /// Of a command that runs to its end at once.
    pub fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            differences: String::new(),
        }
    }
}

/// A configuration whose files all lie in one folder.
pub fn private_config(dir: &Path) -> PathBuf {
    let path = dir.join("config.toml");
    let quoted = |name: &str| format!("{:?}", dir.join(name).to_str().unwrap());
    let paths = ["run", "state", "log"].map(|name| format!("{name} = {}\n", quoted(name)));
    fs::write(&path, format!("[paths]\n{}", paths.concat())).unwrap();
    path
}
