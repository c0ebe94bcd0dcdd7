//! The sockets that clients come to: systemd's, or our own.
//!
//! | socket | who reaches it |
//! | --- | --- |
//! | `proxy.listen`, TCP on loopback | every local user |
//! | `proxy.socket` | root and the group `docker` (mode 0660) |
//!
//! Access to Docker's API is root's access to this host, so no other address is listened at: for other machines there
//! are Docker's ssh contexts.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockname, listen, AddressFamily, Backlog, SockaddrLike, SockaddrStorage};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use crate::config;

use super::socket::ClientSocket;
use super::upstream::Own;

/// The first descriptor that systemd hands over.
const FIRST: RawFd = 3;
/// As Go's servers: the kernel cuts it to what the host allows.
const QUEUE: u32 = 4096;
const MODE: u32 = 0o660;
const GROUP: &str = "docker";

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "{0} is not an address of loopback, and access to Docker's API is root's access to this host: reach Docker from \
         other machines through ssh (docker context create NAME --docker host=ssh://USER@HOST)"
    )]
    Public(SocketAddr),
    #[error("cannot listen at {address}")]
    Bind {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen at {}: another program listens there", .0.display())]
    Taken(PathBuf),
    #[error("descriptor {descriptor} from systemd (LISTEN_FDS) cannot be used: {problem}")]
    Handed { descriptor: RawFd, problem: String },
    #[error("there is nowhere to listen: set proxy.listen or proxy.socket in config.toml")]
    Nowhere,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// All that the proxy listens at.
#[derive(Debug)]
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// For log and tests: as an operator would write them.
    pub addresses: Vec<String>,
    pub own: Own,
    /// Socket files that this process made, and removes.
    made: Vec<(PathBuf, (u64, u64))>,
}

impl Listeners {
    /// Takes what systemd hands over, if anything, and else listens at what is configured.
    pub async fn open(config: &config::Proxy) -> Result<Self, ListenError> {
        let mut listeners =
            Self { all: Vec::new(), addresses: Vec::new(), own: Own::default(), made: Vec::new() };
        let handed = handed_over();
        for descriptor in handed.clone() {
            listeners.take(descriptor)?;
        }
        if handed.is_empty() {
            if let Some(address) = config.listen {
                listeners.bind_tcp(address)?;
            }
            if let Some(path) = &config.socket {
                listeners.bind_unix(path).await?;
            }
        }
        match listeners.all.is_empty() {
            true => Err(ListenError::Nowhere),
            false => Ok(listeners),
        }
    }

    /// Waits for the next client of any of them.
    pub async fn accept(&self) -> io::Result<ClientSocket> {
        let waits = self.all.iter().map(|listener| Box::pin(listener.accept()));
        futures_util::future::select_all(waits).await.0
    }

    fn bind_tcp(&mut self, address: SocketAddr) -> Result<(), ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::Public(address));
        }
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A proxy that was restarted finds connections of the one before, which wait for their end.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(QUEUE)
        };
        let failed = |source| ListenError::Bind { address: address.to_string(), source };
        self.add_tcp(bind().map_err(failed)?).map_err(failed)
    }

    fn add_tcp(&mut self, listener: TcpListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        self.addresses.push(format!("tcp://{address}"));
        self.own.tcp.push(address);
        self.all.push(Listener::Tcp(listener));
        Ok(())
    }

    async fn bind_unix(&mut self, path: &Path) -> Result<(), ListenError> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(ListenError::Taken(path.into()));
        }
        let listener = bind_private(path)
            .map_err(|source| ListenError::Bind { address: path.display().to_string(), source })?;
        self.made.push((path.into(), identity(path).unwrap_or_default()));
        self.add_unix(listener, path);
        Ok(())
    }

    fn add_unix(&mut self, listener: UnixListener, path: &Path) {
        self.addresses.push(format!("unix://{}", path.display()));
        self.own.unix.extend(identity(path));
        self.all.push(Listener::Unix(listener));
    }

    /// One of systemd's. What it is not meant for is refused: a service unit may hold any socket.
    fn take(&mut self, descriptor: RawFd) -> Result<(), ListenError> {
        let unusable = |problem: String| ListenError::Handed { descriptor, problem };
        let failed = |error: io::Error| unusable(error.to_string());
        let address: SockaddrStorage = getsockname(descriptor).map_err(|error| failed(error.into()))?;
        let own = own(descriptor);
        match address.family() {
            Some(AddressFamily::Unix) => {
                let listener = std::os::unix::net::UnixListener::from(own);
                listener.set_nonblocking(true).map_err(failed)?;
                let listener = UnixListener::from_std(listener).map_err(failed)?;
                let path = address.as_unix_addr().and_then(|address| Some(address.path()?.to_owned()));
                let path = path.ok_or_else(|| unusable("its socket has no path".to_owned()))?;
                self.add_unix(listener, &path);
                Ok(())
            }
            Some(AddressFamily::Inet | AddressFamily::Inet6) => {
                let listener = std::net::TcpListener::from(own);
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                if !address.ip().is_loopback() {
                    return Err(ListenError::Public(address));
                }
                self.add_tcp(TcpListener::from_std(listener).map_err(failed)?).map_err(failed)
            }
            family => Err(unusable(format!("it is of the family {family:?}, neither TCP nor a unix socket"))),
        }
    }

    /// Stops listening. A file that is still ours is removed; one that another proxy has replaced is not.
    pub fn close(self) {
        for (path, made) in self.made {
            if identity(&path) == Some(made) {
                // What stays is replaced by the next start.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<ClientSocket> {
        match self {
            Self::Tcp(listener) => ClientSocket::tcp(listener.accept().await?.0),
            Self::Unix(listener) => Ok(ClientSocket::unix(listener.accept().await?.0)),
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// A socket under another name first: no client reaches it before its mode is right, and a stale one is replaced.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(crate::host::files::NEW);
    let new = PathBuf::from(new);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    match group_number(GROUP) {
        Some(group) => std::os::unix::fs::chown(&new, None, Some(group))?,
        None => tracing::warn!("there is no group {GROUP}: only root reaches {}", path.display()),
    }
    std::fs::set_permissions(&new, Permissions::from_mode(MODE))?;
    std::fs::rename(&new, path)?;
    // With the queue of Go's servers; the library's own is shorter.
    let queue = i32::try_from(QUEUE).ok().and_then(|queue| Backlog::new(queue).ok());
    listen(&listener, queue.unwrap_or(Backlog::MAXCONN))?;
    Ok(listener)
}

/// From the file itself: the C library may ask a directory service.
fn group_number(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The descriptors that systemd opened for this very process.
fn handed_over() -> std::ops::Range<RawFd> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    let is_for_us = number("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|count| is_for_us && (1..=64).contains(count)).unwrap_or(0);
    FIRST..FIRST + count
}

#[allow(unsafe_code, reason = "systemd hands descriptors over by their numbers")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the number comes from `handed_over`, each once, before this process opens anything of that number: it is
    // open, as `getsockname` has just shown, and systemd has given it to this process alone.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
