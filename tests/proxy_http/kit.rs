//! The proxy's program in a folder of its own, and both ends of a connection through it.

use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

/// What has to come comes at once; a busy machine takes its time.
const LIMIT: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it comes soon")
}

pub struct Proxy {
    pub port: u16,
    pub socket: PathBuf,
    pub docker: UnixListener,
    folder: tempfile::TempDir,
    child: Child,
}

/// The program with a configuration of this section, not yet started.
pub fn program(folder: &std::path::Path, section: &str) -> Command {
    let config = folder.join("config.toml");
    let of = |name: &str| folder.join(name).display().to_string();
    let paths = format!("state = \"{}\"\nrun = \"{}\"\nlog = \"{}\"\n", of("state"), of("run"), of("log"));
    fs::write(&config, format!("[proxy]\n{section}\n[paths]\n{paths}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_calico-mesos"));
    command.arg("--config").arg(config).arg("proxy").stderr(Stdio::piped());
    #[allow(unsafe_code, reason = "the child ends with its test")]
    // SAFETY: prctl is safe between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    command
}

impl Proxy {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub async fn start_in(folder: tempfile::TempDir) -> Self {
        let docker = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let socket = folder.path().join("proxy.sock");
        let section = format!(
            "listen = \"127.0.0.1:0\"\nsocket = \"{}\"\ndocker = \"unix://{}/docker.sock\"\n",
            socket.display(),
            folder.path().display()
        );
        let mut child = program(folder.path(), &section).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("listening at"));
        let line = line.expect("it listens");
        let port = line.split("tcp://127.0.0.1:").nth(1).unwrap();
        let port = port.split([',', ';']).next().unwrap().parse().unwrap();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("proxy: {line}")));
        Self { port, socket, docker, folder, child }
    }

    /// A client at the unix socket.
    pub async fn unix(&self) -> Peer<UnixStream> {
        Peer::new(UnixStream::connect(&self.socket).await.unwrap())
    }

    /// A client at the TCP port.
    pub async fn tcp(&self) -> Peer<TcpStream> {
        Peer::new(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap())
    }

    /// The proxy's next connection to Docker.
    pub async fn accept(&self) -> Peer<UnixStream> {
        Peer::new(soon(self.docker.accept()).await.unwrap().0)
    }

    /// Docker answers the next request without a body with this, and closes.
    pub async fn answers(&self, answer: &str) {
        let mut docker = self.accept().await;
        docker.head().await;
        docker.send(answer).await;
    }

    /// No request has come to Docker that was not accepted.
    pub async fn docker_is_quiet(&self) -> bool {
        timeout(Duration::from_millis(100), self.docker.accept()).await.is_err()
    }

    /// Docker goes away, and leaves its socket.
    pub fn docker_dies(&mut self) {
        let other = UnixListener::bind(self.folder.path().join("other.sock")).unwrap();
        self.docker = other;
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < limit, "it still runs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Resident memory, in KiB.
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One end of a connection, read as text or bytes.
pub struct Peer<S> {
    pub stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Ends this side alone.
    pub async fn end(&mut self) {
        soon(self.stream.shutdown()).await.unwrap();
    }

    async fn more(&mut self) -> usize {
        let mut bytes = [0; 65536];
        let read = timeout(LIMIT, self.stream.read(&mut bytes)).await;
        let length =
            read.unwrap_or_else(|_| panic!("no more than {:?}", String::from_utf8_lossy(&self.read)));
        let length = length.unwrap();
        self.read.extend_from_slice(&bytes[..length]);
        length
    }

    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more().await > 0, "it ended after {}", String::from_utf8_lossy(&self.read));
        }
        self.read.drain(..length).collect()
    }

    pub async fn expects(&mut self, text: &str) {
        let read = self.exactly(text.len()).await;
        assert_eq!(String::from_utf8_lossy(&read), text);
    }

    /// A whole answer. The order of headers of different names is none of what is compared.
    pub async fn answered(&mut self, answer: &str) {
        let read = self.exactly(answer.len()).await;
        assert_eq!(in_order(&String::from_utf8_lossy(&read)), in_order(answer));
    }

    /// Up to the empty line.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    pub async fn until(&mut self, mark: &str) -> String {
        loop {
            let found = self.read.windows(mark.len()).position(|window| window == mark.as_bytes());
            if let Some(at) = found {
                return String::from_utf8(self.read.drain(..at + mark.len()).collect()).unwrap();
            }
            assert!(self.more().await > 0, "it ended after {}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The rest, to the other side's end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.read)
    }

    pub async fn text(&mut self) -> String {
        String::from_utf8(self.rest().await).unwrap()
    }
}

/// A message with its headers sorted.
pub fn in_order(message: &str) -> String {
    let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    let mut lines: Vec<&str> = head.split("\r\n").map(str::trim_end).collect();
    lines[1..].sort_unstable();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}
