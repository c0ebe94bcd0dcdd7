//! A TCP proxy before etcd that loses answers or holds requests back, as a network may.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Requests go through, answers do not.
    Mute,
    /// The next request is kept; its sender loses the connection.
    Hold,
    /// The same with the next write.
    HoldWrite,
    /// The next write goes through, its answer does not, and its sender loses the connection.
    LoseWrite,
    /// Connections are closed at once.
    Refuse,
    /// Nothing goes through.
    Silence,
}

pub struct Proxy {
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    etcd: OnceLock<SocketAddr>,
    mode: Mutex<Mode>,
    closed: AtomicBool,
    cut: Notify,
    held: Notify,
    swallowed: Notify,
    release: Notify,
    delivered: Notify,
}

impl Proxy {
    pub async fn start(etcd: SocketAddr) -> Self {
        let proxy = Self::listen().await;
        proxy.aim(etcd);
        proxy
    }

    /// Before it is known where etcd is.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            etcd: OnceLock::new(),
            mode: Mutex::new(Mode::Pass),
            closed: AtomicBool::new(false),
            cut: Notify::new(),
            held: Notify::new(),
            swallowed: Notify::new(),
            release: Notify::new(),
            delivered: Notify::new(),
        });
        let state = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if state.closed.load(Ordering::Relaxed) {
                    continue;
                }
                tokio::spawn(carry(client, state.clone()));
            }
        });
        Self { endpoint, shared }
    }

    pub fn aim(&self, etcd: SocketAddr) {
        self.shared.etcd.set(etcd).unwrap();
    }

    fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub fn mute(&self) {
        self.set(Mode::Mute);
    }

    /// Ends all connections and lets new ones through.
    pub fn cut(&self) {
        self.set(Mode::Pass);
        self.shared.cut.notify_waiters();
    }

    pub fn refuse(&self) {
        self.set(Mode::Refuse);
        self.shared.cut.notify_waiters();
    }

    /// Lets nobody in from now on; what is carried or held is carried on.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
    }

    pub fn silence(&self) {
        self.set(Mode::Silence);
    }

    pub fn hold(&self) {
        self.set(Mode::Hold);
    }

    pub fn hold_write(&self) {
        self.set(Mode::HoldWrite);
    }

    pub fn lose_write(&self) {
        self.set(Mode::LoseWrite);
    }

    /// A request has been held back, or an answer lost.
    pub async fn held(&self) {
        self.shared.held.notified().await;
    }

    /// A request has come into the silence.
    pub async fn swallowed(&self) {
        self.shared.swallowed.notified().await;
    }

    /// Sends the request that was held back; returns when etcd has answered it.
    pub async fn deliver(&self) {
        self.shared.release.notify_one();
        self.shared.delivered.notified().await;
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    /// The mode for this request; what is meant for one request is used up by asking.
    fn mode_of_request(&self, request: &[u8]) -> Mode {
        let mut mode = self.mode.lock().unwrap();
        match *mode {
            Mode::Hold => std::mem::replace(&mut *mode, Mode::Pass),
            Mode::HoldWrite | Mode::LoseWrite if is_write(request) => {
                std::mem::replace(&mut *mode, Mode::Pass)
            }
            Mode::HoldWrite | Mode::LoseWrite => Mode::Pass,
            other => other,
        }
    }
}

/// What is written is JSON; what only reads has none.
fn is_write(request: &[u8]) -> bool {
    request.windows(2).any(|pair| pair == b"{\"")
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    if shared.mode() == Mode::Refuse {
        return;
    }
    let Some(etcd) = shared.etcd.get() else { return };
    let Ok(mut server) = TcpStream::connect(etcd).await else { return };
    let (mut up, mut down) = ([0; 65536], [0; 65536]);
    loop {
        tokio::select! {
            () = shared.cut.notified() => return,
            read = client.read(&mut up) => {
                let Some(length) = read.ok().filter(|length| *length > 0) else { return };
                let mode = shared.mode_of_request(&up[..length]);
                match mode {
                    Mode::Silence => {
                        shared.swallowed.notify_one();
                        continue;
                    }
                    Mode::Hold | Mode::HoldWrite | Mode::LoseWrite => {
                        let mut request = up[..length].to_vec();
                        // Headers and body may come apart.
                        let gap = Duration::from_millis(100);
                        while let Ok(Ok(more)) = timeout(gap, client.read(&mut up)).await {
                            request.extend(&up[..more]);
                            if more == 0 { break }
                        }
                        return keep(client, server, request, mode, &shared).await;
                    }
                    _ if server.write_all(&up[..length]).await.is_err() => return,
                    _ => {}
                }
            }
            read = server.read(&mut down) => {
                let Some(length) = read.ok().filter(|length| *length > 0) else { return };
                let passes = !matches!(shared.mode(), Mode::Mute | Mode::Silence);
                if passes && client.write_all(&down[..length]).await.is_err() { return }
            }
        }
    }
}

/// The end of a connection whose last request is carried out without its sender.
async fn keep(client: TcpStream, mut server: TcpStream, request: Vec<u8>, mode: Mode, shared: &Shared) {
    let mut down = [0; 65536];
    // Answered when nothing more comes.
    let gap = Duration::from_millis(500);
    if mode == Mode::LoseWrite {
        server.write_all(&request).await.unwrap();
        while let Ok(Ok(1..)) = timeout(gap, server.read(&mut down)).await {}
        drop(client);
        return shared.held.notify_one();
    }
    drop(client);
    shared.held.notify_one();
    shared.release.notified().await;
    server.write_all(&request).await.unwrap();
    while let Ok(Ok(1..)) = timeout(gap, server.read(&mut down)).await {}
    shared.delivered.notify_one();
}
