//! Connections made from within a namespace and used from outside.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioTime};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::netns::{enter, Namespace};
use super::NetError;
use crate::dial;
use crate::host::resolve::{self, ResolveError};
use crate::limits::NAME_SERVER;

/// Connects as a process in the namespace would. The socket is made there, by a thread that dies
/// right after, and stays there; its reader and writer stay here.
pub async fn connect(namespace: &Namespace, address: SocketAddr) -> Result<TcpStream, NetError> {
    let failed = |source| NetError::Connect { address, source };
    let socket = enter(namespace, move || match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    });
    let socket = socket.await?.map_err(failed)?;
    dial::tcp_from(socket, address).await.map_err(|error| failed(error.into()))
}

/// Looks a name up as a process in the namespace would: what its policy keeps from it, a look-up does not reach.
pub async fn lookup(namespace: &Arc<Namespace>, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let within = Within { namespace: namespace.clone(), handle: TokioHandle::default() };
    resolve::lookup_by(within, host).await
}

/// A resolver's sockets, made in the namespace.
#[derive(Clone)]
struct Within {
    namespace: Arc<Namespace>,
    handle: TokioHandle,
}

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for Within {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.handle.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _local: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        let namespace = self.namespace.clone();
        Box::pin(async move {
            let connected = timeout(limit.unwrap_or(NAME_SERVER), connect(&namespace, server)).await?;
            Ok(AsyncIoTokioAsStd(connected.map_err(io::Error::other)?))
        })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Opening<Self::Udp> {
        let namespace = self.namespace.clone();
        Box::pin(async move {
            let bound = enter(&namespace, move || std::net::UdpSocket::bind(local));
            let socket = bound.await.map_err(io::Error::other)??;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        })
    }
}
