//! A TCP proxy before etcd that loses answers or holds requests back, as a network may.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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
}

pub struct Proxy {
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mutex<Mode>,
    closed: AtomicBool,
    cut: Notify,
    held: Notify,
    release: Notify,
    delivered: Notify,
}

impl Proxy {
    pub async fn start(etcd: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Pass),
            closed: AtomicBool::new(false),
            cut: Notify::new(),
            held: Notify::new(),
            release: Notify::new(),
            delivered: Notify::new(),
        });
        let state = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if state.closed.load(Ordering::Relaxed) {
                    continue;
                }
                tokio::spawn(carry(client, etcd, state.clone()));
            }
        });
        Self { endpoint, shared }
    }

    pub fn mute(&self) {
        *self.shared.mode.lock().unwrap() = Mode::Mute;
    }

    /// Ends all connections and lets new ones through.
    pub fn cut(&self) {
        *self.shared.mode.lock().unwrap() = Mode::Pass;
        self.shared.cut.notify_waiters();
    }

    pub fn hold(&self) {
        *self.shared.mode.lock().unwrap() = Mode::Hold;
    }

    /// Lets nobody in from now on; what is carried or held is carried on.
    pub fn refuse(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
    }

    pub async fn held(&self) {
        self.shared.held.notified().await;
    }

    /// Sends the request that was held back; returns when etcd has answered it.
    pub async fn deliver(&self) {
        self.shared.release.notify_one();
        self.shared.delivered.notified().await;
    }
}

impl Shared {
    /// The mode; a hold is used up by asking.
    fn mode_of_request(&self) -> Mode {
        let mut mode = self.mode.lock().unwrap();
        match *mode {
            Mode::Hold => std::mem::replace(&mut *mode, Mode::Pass),
            other => other,
        }
    }
}

async fn carry(mut client: TcpStream, etcd: SocketAddr, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(etcd).await else { return };
    let (mut up, mut down) = ([0; 16384], [0; 16384]);
    loop {
        tokio::select! {
            () = shared.cut.notified() => return,
            read = client.read(&mut up) => {
                let Some(length) = read.ok().filter(|length| *length > 0) else { return };
                if shared.mode_of_request() == Mode::Hold {
                    let mut request = up[..length].to_vec();
                    // Headers and body may come apart.
                    let gap = Duration::from_millis(100);
                    while let Ok(Ok(more)) = timeout(gap, client.read(&mut up)).await {
                        request.extend(&up[..more]);
                        if more == 0 { break }
                    }
                    drop(client);
                    shared.held.notify_one();
                    shared.release.notified().await;
                    server.write_all(&request).await.unwrap();
                    // Answered when nothing more comes.
                    let gap = Duration::from_millis(500);
                    while let Ok(Ok(1..)) = timeout(gap, server.read(&mut down)).await {}
                    shared.delivered.notify_one();
                    return;
                }
                if server.write_all(&up[..length]).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Some(length) = read.ok().filter(|length| *length > 0) else { return };
                let muted = *shared.mode.lock().unwrap() == Mode::Mute;
                if !muted && client.write_all(&down[..length]).await.is_err() { return }
            }
        }
    }
}
