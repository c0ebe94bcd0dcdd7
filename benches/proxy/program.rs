//! The proxy's program before the private dockerd.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use calico_mesos::rig::daemons::{free_port, Stack};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tokio::net::UnixStream;

pub struct Program {
    pub socket: PathBuf,
    pub port: u16,
    child: Child,
}

impl Program {
    /// Returns when it listens.
    pub async fn start(stack: &Stack) -> Self {
        let (socket, port) = (stack.dir.join("proxy.sock"), free_port().expect("a free port"));
        let mut config = OpenOptions::new().append(true).open(&stack.config).expect("the stack's own file");
        let docker = stack.docker.socket.display();
        let socket_path = socket.display();
        writeln!(config, "proxy.listen = \"127.0.0.1:{port}\"\nproxy.socket = \"{socket_path}\"")
            .and_then(|()| writeln!(config, "proxy.docker = \"unix://{docker}\""))
            .expect("the stack's own file");
        let log = fs::File::create(stack.dir.join("proxy.log")).expect("the stack's own folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico-mesos"));
        command.arg("--config").arg(&stack.config).arg("proxy");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("our own program");
        while UnixStream::connect(&socket).await.is_err() {
            assert!(child.try_wait().expect("a child of ours").is_none(), "the proxy ends, see proxy.log");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { socket, port, child }
    }

    /// Resident memory, in units of 1024 KiB.
    pub fn memory(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// Its highest since [`Program::forget_peak`].
    pub fn peak(&self) -> f64 {
        self.status("VmHWM:")
    }

    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("the proxy lives");
    }

    fn status(&self, field: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the proxy lives");
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or(f64::NAN) / 1024.0
    }

    pub fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).expect("a process number");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("the proxy lives");
        self.child.wait().expect("a child of ours");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After a panic; else it has ended.
        let _ = self.child.kill();
    }
}
