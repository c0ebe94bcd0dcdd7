//! Who listens on a port of this host.

use std::fmt;
use std::fs;
use std::path::Path;

use super::forward::Protocol;
use crate::host::processes::pids;

/// A socket that packets from anywhere may go to, and its process where `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What `/proc/<pid>/comm` calls it.
    pub process: Option<(i32, String)>,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            // For a container's published port Docker has a proxy listen, or listens itself.
            Some((pid, name)) if name == "docker-proxy" || name == "dockerd" => {
                write!(f, "a container: Docker publishes it ({name}, pid {pid})")
            }
            Some((pid, name)) => write!(f, "the process {name} (pid {pid})"),
            None => f.write_str("a process that cannot be seen from here"),
        }
    }
}

/// The first of these ports that a program listens on, at any of this host's addresses. SCTP is not checked, whose
/// sockets belong to programs that no host runs by chance.
pub(super) fn first_listener(ports: &[(Protocol, u16)]) -> Option<(Protocol, u16, Listener)> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find_map(|protocol| {
        let wanted: Vec<u16> =
            ports.iter().filter(|(other, _)| *other == protocol).map(|(_, port)| *port).collect();
        let (port, listener) = if wanted.is_empty() { None } else { listener(protocol, &wanted) }?;
        Some((protocol, port, listener))
    })
}

fn listener(protocol: Protocol, ports: &[u16]) -> Option<(u16, Listener)> {
    // The states TCP_LISTEN and, of a UDP socket without a peer, TCP_CLOSE.
    let (files, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], "0A"),
        Protocol::Udp => (["udp", "udp6"], "07"),
        Protocol::Sctp => return None,
    };
    let (port, inode) = files.iter().find_map(|file| {
        // The thread's own namespace, like everything here.
        let table = fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).ok()?;
        socket(&table, ports, state)
    })?;
    Some((port, Listener { process: owner(&inode) }))
}

/// The first socket in a table of the kernel with one of these local ports and this state: port and inode.
fn socket(table: &str, ports: &[u16], state: &str) -> Option<(u16, String)> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, found) = (fields.next()?, fields.next()?, fields.next()?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        if found != state || !ports.contains(&port) {
            return None;
        }
        // Queues, timer, retransmissions, user and timeout stand between.
        fields.nth(5).map(|inode| (port, inode.to_owned()))
    })
}

/// The first process that has the socket open.
fn owner(inode: &str) -> Option<(i32, String)> {
    let wanted = format!("socket:[{inode}]");
    let pid = pids().find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn listeners_are_found_and_named() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let (_, found) = listener(Protocol::Tcp, &[port]).unwrap();
        assert_eq!(found.process.as_ref().unwrap().0, i32::try_from(std::process::id()).unwrap());
        assert!(found.to_string().contains("the process "), "{found}");
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        assert!(listener(Protocol::Udp, &[1, port]).is_some());
        // Talks to one peer only: no other packet would reach it.
        udp.connect(udp.local_addr().unwrap()).unwrap();
        assert_eq!(listener(Protocol::Udp, &[port]), None);
        drop(tcp);
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:7918 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 11 1 x\n\
            \x20  1: 00000000:7918 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1 x\n";
        assert_eq!(socket(table, &[1, 31000], "0A"), Some((31000, "22".to_owned())));
        assert_eq!(socket(table, &[31001], "0A"), None);
    }
}
