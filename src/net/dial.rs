//! Connections made from within a namespace and used from outside.

use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use super::netns::{enter, Namespace};
use super::NetError;

/// Connects as a process in the namespace would. The socket is made there, by a thread that dies
/// right after, and stays there; whoever reads and writes it stays here.
pub async fn connect(namespace: &Namespace, address: SocketAddr) -> Result<TcpStream, NetError> {
    let failed = |source| NetError::Connect { address, source };
    let socket = enter(namespace, move || match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    });
    socket.await?.map_err(failed)?.connect(address).await.map_err(failed)
}
