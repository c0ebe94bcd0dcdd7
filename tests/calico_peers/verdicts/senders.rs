//! Real packets: who sends from where, and who listens.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use calico_mesos::calico::Flow;
use calico_mesos::net::{netns, Namespace};

use crate::lab::shell;

/// An answer within this host takes less than a millisecond.
const ANSWER: Duration = Duration::from_millis(400);
const UDP: u8 = 17;

/// Where packets are sent from.
pub struct Sender(Option<PathBuf>);

impl Sender {
    pub fn inside(namespace: &Path) -> Self {
        Self(Some(namespace.to_owned()))
    }

    pub fn here() -> Self {
        Self(None)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.0 {
            None => tokio::task::spawn_blocking(work).await.unwrap(),
            Some(path) => {
                let namespace = Namespace::open(path).unwrap();
                netns::enter(&namespace, work).await.unwrap()
            }
        }
    }

    /// Whether a first packet is answered.
    pub async fn reaches(&self, address: String, flow: Flow) -> bool {
        let target: IpAddr = address.parse().unwrap();
        match flow {
            Flow::Port { protocol, port } => {
                let target = SocketAddr::new(target, port);
                self.run(move || if protocol == UDP { echoes(target) } else { connects(target) }).await
            }
            _ => {
                let ping = format!("busybox ping -c 1 -W 1 {address}");
                let within = self.0.as_ref().map(|path| format!("nsenter --net={} ", path.display()));
                shell(&format!("{}{ping}", within.unwrap_or_default())).await.0
            }
        }
    }
}

fn connects(target: SocketAddr) -> bool {
    TcpStream::connect_timeout(&target, ANSWER).is_ok()
}

fn echoes(target: SocketAddr) -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    let mut answer = [0; 8];
    socket.connect(target).is_ok() && socket.send(b"x").is_ok() && socket.recv(&mut answer).is_ok()
}

/// Threads that take connections and answer datagrams, until they are dropped.
pub struct Listeners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Listeners {
    pub async fn start<'a>(places: impl Iterator<Item = &'a (String, Sender)>, ports: &[u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (address, place) in places {
            // An answer has to come from the address that was asked: this host has others.
            let (address, ports): (IpAddr, _) = (address.parse().unwrap(), ports.to_vec());
            let open = move || {
                let listener = |port| TcpListener::bind((address, port)).unwrap();
                let socket = |port| UdpSocket::bind((address, port)).unwrap();
                let tcp: Vec<TcpListener> = ports.iter().map(|port| listener(*port)).collect();
                let udp: Vec<UdpSocket> = ports.iter().map(|port| socket(*port)).collect();
                (tcp, udp)
            };
            let (tcp, udp) = place.run(open).await;
            for listener in tcp {
                listener.set_nonblocking(true).unwrap();
                threads.push(until(&stop, move || listener.accept().map(drop)));
            }
            for socket in udp {
                socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let mut bytes = [0; 8];
                threads.push(until(&stop, move || {
                    let (length, from) = socket.recv_from(&mut bytes)?;
                    socket.send_to(&bytes[..length], from).map(drop)
                }));
            }
        }
        Self { stop, threads }
    }
}

/// Calls the work again and again.
fn until(
    stop: &Arc<AtomicBool>,
    mut work: impl FnMut() -> std::io::Result<()> + Send + 'static,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match work() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(20))
                }
                _ => {}
            }
        }
    })
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}
