//! Felix as a child process, started again whenever it exits because its configuration changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use calico_mesos::rig::daemons::free_port;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::kit::wait::eventually;
use crate::lab::shell;
use crate::programs::Peers;

/// Calico's folders are this Felix's own: its mount namespace has `$1` in their place.
const START: &str = "mount -t tmpfs run /run && mkdir /run/calico && mount --bind \"$1\" /run/calico && \
                     mount -t tmpfs lib /var/lib && mkdir /var/lib/calico && mount --bind \"$1\" /var/lib/calico && \
                     exec setpriv --pdeathsig KILL -- bash -c 'exec -a calico-felix \"$0\"' \"$2\"";
/// "Restart me, my configuration has changed."
const RESTART: i32 = 129;

pub struct Felix {
    shared: Arc<Mutex<Shared>>,
    supervisor: Option<std::thread::JoinHandle<()>>,
    health: u16,
    pub log: PathBuf,
}

#[derive(Default)]
struct Shared {
    pid: Option<Pid>,
    ending: bool,
    exits: Vec<String>,
    restarts: usize,
}

impl Felix {
    /// Returns when its first full apply is done. `folder` takes the place of /var/run/calico and
    /// /var/lib/calico; `extra` goes into its environment.
    pub async fn start(peers: &Peers, node: &str, folder: &Path, extra: &[(&str, &str)]) -> Self {
        let health = free_port().unwrap();
        let log = folder.join("felix.log");
        let environment = environment(peers, node, folder, health, extra);
        let (program, folder) = (peers.path("calico-felix"), folder.to_owned());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let launch = {
            let log = log.clone();
            move || -> Child {
                let log = File::options().create(true).append(true).open(&log).unwrap();
                let mut command = Command::new("unshare");
                command.args(["--mount", "--", "sh", "-c", START, "felix"]).arg(&folder).arg(&program);
                command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).envs(&environment);
                command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
            }
        };
        let supervisor = std::thread::spawn({
            let shared = shared.clone();
            move || supervise(&shared, launch)
        });
        let felix = Self { shared, supervisor: Some(supervisor), health, log };
        felix.ready().await;
        felix
    }

    async fn ready(&self) {
        let url = format!("http://127.0.0.1:{}/readiness", self.health);
        eventually(format!("Felix is ready (its log: {})", self.log.display()), async || {
            shell(&format!("curl -s -o /dev/null -w '%{{http_code}}' {url}")).await.1 == "200"
        })
        .await;
    }

    /// SIGSTOP and SIGCONT: a Felix that is slow.
    pub fn signal(&self, signal: Signal) {
        let pid = self.shared.lock().unwrap().pid.expect("Felix does not run");
        kill(pid, signal).unwrap();
    }

    /// How it has exited so far, but for restarts that it asked for.
    pub fn failures(&self) -> Vec<String> {
        self.shared.lock().unwrap().exits.clone()
    }

    /// How often it has asked to be started again.
    pub fn restarts(&self) -> usize {
        self.shared.lock().unwrap().restarts
    }

    /// As an operator stops it: rules, routes and files stay.
    pub fn stop(&mut self) {
        let pid = {
            let mut shared = self.shared.lock().unwrap();
            shared.ending = true;
            shared.pid
        };
        if let Some(pid) = pid {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

impl Drop for Felix {
    fn drop(&mut self) {
        self.stop();
    }
}

fn environment(
    peers: &Peers,
    node: &str,
    folder: &Path,
    health: u16,
    extra: &[(&str, &str)],
) -> BTreeMap<String, String> {
    let (folder, health) = (folder.display().to_string(), health.to_string());
    let own = [
        ("FELIX_FELIXHOSTNAME", node),
        // Builds without cgo have no libbpf; harmless for those with.
        ("FELIX_DebugSkipCTLBCleanup", "true"),
        ("FELIX_IPTABLESBACKEND", "nft"),
        ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Return"),
        ("FELIX_IPV6SUPPORT", "false"),
        ("FELIX_XDPENABLED", "false"),
        ("FELIX_LOGFILEPATH", "none"),
        ("FELIX_LOGSEVERITYFILE", "none"),
        ("FELIX_LOGSEVERITYSYS", "none"),
        ("FELIX_LOGSEVERITYSCREEN", "Info"),
        ("FELIX_HEALTHENABLED", "true"),
        ("FELIX_HEALTHPORT", &health),
        ("FELIX_METADATAADDR", "None"),
        ("FELIX_USAGEREPORTINGENABLED", "false"),
        // Off by default before 3.30.
        ("FELIX_ENDPOINTSTATUSPATHPREFIX", &folder),
    ];
    let all = own.into_iter().chain(peers.environment()).chain(extra.iter().copied());
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn supervise(shared: &Mutex<Shared>, launch: impl Fn() -> Child) {
    loop {
        let mut child = {
            let mut shared = shared.lock().unwrap();
            if shared.ending {
                return;
            }
            let child = launch();
            shared.pid = Some(Pid::from_raw(i32::try_from(child.id()).unwrap()));
            child
        };
        let status = child.wait().unwrap();
        let mut shared = shared.lock().unwrap();
        shared.pid = None;
        if status.code() == Some(RESTART) {
            shared.restarts += 1;
        } else if !shared.ending {
            shared.exits.push(match status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => status.to_string(),
            });
            drop(shared);
            // As any supervisor: not in a tight loop.
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}
