//! The lab: hosts made by scripts/cluster, what is on them beforehand, and commands in them.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::checks::Ended;

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// What the test takes as given: paths in the environment, set by the Makefile.
pub struct Given {
    pub package: PathBuf,
    /// Real calico/node, as scripts/cluster/node-image.sh wants it; none: the stand-in.
    pub peers: Option<PathBuf>,
}

impl Given {
    pub fn read() -> Result<Self, Ended> {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let package =
            path("CALICO_MESOS_PACKAGE").ok_or("CALICO_MESOS_PACKAGE is not set: run make test-cluster")?;
        if !package.is_file() {
            return Err(format!("the package {} is not there: make deb", package.display()).into());
        }
        Ok(Self { package, peers: path("CALICO_PEERS") })
    }
}

/// Three hosts that end with this value.
pub struct Lab {
    pub folder: PathBuf,
    ansible: PathBuf,
}

pub struct Output {
    pub ok: bool,
    pub text: String,
    pub took: f64,
}

impl Output {
    /// Its last lines.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

pub fn script(name: &str) -> PathBuf {
    Path::new(SOURCE).join("scripts/cluster").join(name)
}

/// With KEEP=1 the hosts of a failed run stay, to be looked at, until `lab.sh down`.
pub fn kept() -> bool {
    std::env::var_os("KEEP").is_some_and(|value| !value.is_empty())
}

pub fn source(path: &str) -> PathBuf {
    Path::new(SOURCE).join(path)
}

/// Runs a program of this machine to its end; both of its outputs as one.
fn run(command: &mut Command) -> Result<Output, Ended> {
    let begun = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Ended(format!("cannot start {:?}: {error}", command.get_program())))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Output { ok: output.status.success(), text, took: begun.elapsed().as_secs_f64() })
}

/// The same; a program that fails ends the run.
fn must(command: &mut Command) -> Result<String, Ended> {
    let output = run(command)?;
    match output.ok {
        true => Ok(output.text),
        false => Err(Ended(format!("{command:?} failed:\n{}", output.text))),
    }
}

impl Lab {
    pub fn up(hosts: usize) -> Result<Self, Ended> {
        let scratch = source("target/cluster");
        fs::create_dir_all(&scratch)
            .map_err(|error| format!("cannot make {}: {error}", scratch.display()))?;
        let folder = scratch.join(format!("lab-{}", std::process::id()));
        let ansible = must(&mut Command::new(script("ansible.sh")))?;
        let ansible = PathBuf::from(ansible.lines().last().unwrap_or_default());
        let lab = Self { folder, ansible };
        must(
            Command::new(script("lab.sh"))
                .args(["up", &hosts.to_string()])
                .arg(&lab.folder)
                .env("LAB_PREFIX", format!("cm{}", std::process::id()))
                .env("LAB_OWNER", if kept() { String::new() } else { std::process::id().to_string() }),
        )?;
        Ok(lab)
    }

    /// A command on a host, with this file as its input.
    fn command(&self, host: &str, script_text: &str) -> Command {
        let mut command = Command::new(script("host.sh"));
        command.args(["in", host, "bash", "-c", script_text]).env("LAB", &self.folder);
        command
    }

    /// What a command on a host printed, whatever its end.
    pub fn try_sh(&self, host: &str, text: &str) -> Output {
        let failed = |Ended(text)| Output { ok: false, text, took: 0.0 };
        run(&mut self.command(host, text)).unwrap_or_else(failed)
    }

    /// The same; a command that fails ends the run.
    pub fn sh(&self, host: &str, text: &str) -> Result<String, Ended> {
        let output = self.try_sh(host, text);
        match output.ok {
            true => Ok(output.text.trim_end().to_owned()),
            false => Err(Ended(format!("on {host}: {text}\nfailed: {}", output.text))),
        }
    }

    /// Writes a file on a host.
    pub fn put(&self, host: &str, from: &Path, to: &str) -> Result<(), Ended> {
        let file =
            fs::File::open(from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
        // Whole or not: an agent may be waiting for it.
        let text = format!("cat >{to}.part && mv {to}.part {to}");
        let status = self.command(host, &text).stdin(file).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            status => Err(Ended(format!("cannot write {to} on {host}: {status:?}"))),
        }
    }

    /// Loads an image into the Docker of a host.
    pub fn load_image(&self, host: &str, archive: &Path) -> Result<(), Ended> {
        self.put(host, archive, "/root/image.tar")?;
        self.sh(host, "docker load -q -i /root/image.tar && rm /root/image.tar").map(|_| ())
    }

    pub fn host_sh(&self, words: &[&str]) -> Result<String, Ended> {
        must(Command::new(script("host.sh")).args(words).env("LAB", &self.folder))
    }

    pub fn agent(&self, host: &str, kind: &str, program: &Path) -> Result<(), Ended> {
        must(
            Command::new(script("host.sh")).args(["agent", host, kind]).arg(program).env("LAB", &self.folder),
        )
        .map(|_| ())
    }

    /// `ansible-playbook` at the switch, with the short names of our roles.
    fn ansible(&self, playbook: &str, words: &[String]) -> Command {
        let roles = [source("tests/cluster/page/roles"), source("mesos/ansible/roles")];
        let roles = roles.map(|path| path.display().to_string()).join(":");
        let path = format!("{}:{}", self.ansible.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(script("lab.sh"));
        command
            .arg("net")
            .arg(&self.folder)
            .arg("ansible-playbook")
            .arg(source("tests/cluster/page").join(playbook))
            .args(words)
            .env("ANSIBLE_CONFIG", self.folder.join("ansible.cfg"))
            .env("ANSIBLE_ROLES_PATH", roles)
            .env("ANSIBLE_NOCOLOR", "1")
            .env("PATH", path);
        if !words.iter().any(|word| word == "-i") {
            command.arg("-i").arg(source("tests/cluster/page/inventory.ini"));
        }
        command
    }

    /// The same, to its end; what it printed.
    pub fn play(&self, playbook: &str, words: &[String]) -> Result<Output, Ended> {
        let output = run(&mut self.ansible(playbook, words))?;
        let log = self.folder.join("plays.log");
        let before = fs::read_to_string(&log).unwrap_or_default();
        // Only for a person who looks at a failed run.
        let _ = fs::write(&log, format!("{before}\n$ {playbook} {words:?}\n{}", output.text));
        Ok(output)
    }

    /// The same, killed as soon as it is at this task; false when it ended before.
    pub fn play_until(&self, playbook: &str, words: &[String], task: &str) -> Result<bool, Ended> {
        let mut command = self.ansible(playbook, words);
        let (mut reader, writer) = std::io::pipe().map_err(|error| Ended(error.to_string()))?;
        let copy = writer.try_clone().map_err(|error| Ended(error.to_string()))?;
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(copy).process_group(0).spawn();
        let mut child = child.map_err(|error| format!("cannot run {playbook}: {error}"))?;
        // The writing ends in here would keep the pipe open.
        drop(command);
        let (mut seen, mut part) = (String::new(), [0; 4096]);
        while !seen.contains(&format!("TASK [{task}")) {
            match reader.read(&mut part) {
                Ok(0) | Err(_) => break,
                Ok(count) => seen.push_str(&String::from_utf8_lossy(&part[..count])),
            }
        }
        // Some way into the task.
        std::thread::sleep(Duration::from_millis(700));
        let reached = matches!(child.try_wait(), Ok(None));
        let group = nix::unistd::Pid::from_raw(-child.id().cast_signed());
        // It may have ended this moment.
        let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
        child.wait().map_err(|error| Ended(error.to_string()))?;
        Ok(reached)
    }

    /// Copies what a person wants to see of a failed run: consoles, journals, what Ansible printed.
    pub fn keep(&self) -> PathBuf {
        let kept = source("target/cluster/failed");
        // An old one is of no use any more.
        let _ = fs::remove_dir_all(&kept);
        let _ = fs::create_dir_all(&kept);
        for entry in fs::read_dir(self.folder.join("hosts")).into_iter().flatten().flatten() {
            let host = entry.file_name().to_string_lossy().into_owned();
            let _ = fs::copy(entry.path().join("console"), kept.join(format!("{host}.console")));
            let journal = self.try_sh(&host, "journalctl --no-pager -o short-precise");
            let _ = fs::write(kept.join(format!("{host}.journal")), journal.text);
            let text =
                "docker ps -a; ip -br addr; ip route; iptables-save; tail -n 500 /var/log/calico/*/current \
                /var/lib/mesos/lab/* $(find /var/lib/mesos/slaves -name stderr | head -n 20)";
            let state = self.try_sh(&host, text);
            let _ = fs::write(kept.join(format!("{host}.state")), state.text);
        }
        let _ = fs::copy(self.folder.join("plays.log"), kept.join("plays.log"));
        kept
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = must(Command::new(script("lab.sh")).arg("down").arg(&self.folder));
        if let Err(Ended(why)) = down {
            eprintln!("the lab is not taken down: {why}");
        }
    }
}

/// Looks again and again until there is something; else the last that was there instead.
pub fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(last) if begun.elapsed() > limit => return Err(format!("after {limit:?}: {last}")),
            Err(_) => std::thread::sleep(Duration::from_millis(300)),
        }
    }
}
