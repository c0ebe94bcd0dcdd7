//! BIRD's control socket: the BGP sessions of this host.
//!
//! BIRD greets with `0001 BIRD 1.6.8 ready.`; each answer's lines begin with a code and `-`, further lines of the same
//! code with a blank, and the last one with `0000`.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::limits::STATUS_LOOK;

/// What answers with more lines is not BIRD.
const MOST_LINES: usize = 10_000;
const END: &str = "0000";

/// What was found at the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Bird {
    /// There is no socket, or none listens.
    #[default]
    Absent,
    /// It cannot be asked.
    Silent(String),
    Answers(Vec<BirdPeer>),
}

/// A BGP session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BirdPeer {
    pub address: String,
    /// As calicoctl calls it.
    pub kind: &'static str,
    /// `up`, `start` and so on.
    pub state: String,
    pub since: String,
    pub info: String,
}

impl BirdPeer {
    pub fn is_up(&self) -> bool {
        self.state == "up" && self.info.starts_with("Established")
    }
}

/// Asks the BIRD at this socket.
pub async fn ask(socket: &Path) -> Bird {
    let talk = async {
        let stream = UnixStream::connect(socket).await?;
        let mut stream = BufReader::new(stream);
        stream.write_all(b"show protocols\n").await?;
        let mut lines = Vec::new();
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 && lines.len() < MOST_LINES {
            let is_last = line.starts_with(END) || line.starts_with(['8', '9']);
            lines.push(std::mem::take(&mut line));
            if is_last {
                break;
            }
        }
        Ok::<_, std::io::Error>(lines)
    };
    let limit: Duration = STATUS_LOOK;
    match timeout(limit, talk).await {
        Err(_) => Bird::Silent(format!("no answer within {} s", limit.as_secs())),
        Ok(Err(error)) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Bird::Absent,
            std::io::ErrorKind::PermissionDenied => {
                Bird::Silent("its socket can be read by root only".to_owned())
            }
            _ => Bird::Silent(error.to_string()),
        },
        Ok(Ok(lines)) => match lines.iter().find(|line| line.starts_with(['8', '9'])) {
            Some(refusal) => Bird::Silent(refusal.trim().to_owned()),
            None => Bird::Answers(peers(&lines)),
        },
    }
}

/// The BGP sessions among the lines of `show protocols`.
fn peers(lines: &[String]) -> Vec<BirdPeer> {
    let peer = |line: &String| {
        // Without the code: `1002-name` or ` name`.
        let text = match line.split_once('-') {
            Some((code, rest)) if code.len() == 4 && code.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => line.as_str(),
        };
        let mut words = text.split_whitespace();
        let (name, protocol, _table) = (words.next()?, words.next()?, words.next()?);
        let (state, since) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (kind, address) = named(name).filter(|_| protocol == "BGP")?;
        let info = words.collect::<Vec<_>>().join(" ");
        Some(BirdPeer { address, kind, state, since, info })
    };
    lines.iter().filter_map(peer).collect()
}

/// Calico names its sessions by kind and address, with underscores for dots and colons.
fn named(name: &str) -> Option<(&'static str, String)> {
    let (kind, rest) = name.split_once('_')?;
    let kind = match kind {
        "Mesh" => "node-to-node mesh",
        "Node" => "node specific",
        "Global" => "global",
        _ => return None,
    };
    // `_port_1790` follows where it is not BGP's own.
    let (host, port) = rest.split_once("_port_").map_or((rest, None), |(host, port)| (host, Some(port)));
    let is_v4 = host.split('_').count() == 4 && host.split('_').all(|part| part.parse::<u8>().is_ok());
    let address = host.replace('_', if is_v4 { "." } else { ":" });
    Some((
        kind,
        match port {
            Some(port) => format!("{address} (port {port})"),
            None => address,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "0001 BIRD 1.6.8 ready.
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     02:00:01    
 kernel1  Kernel   master   up     02:00:01    
 Mesh_10_0_0_31 BGP      master   start  02:11:04    Connect       Socket: Connection refused
 Global_fd00__1 BGP      master   up     2026-11-23  Established   
 Node_10_0_0_9_port_1790 BGP master up 02:12:00 Established
0000 
";

    #[test]
    fn sessions_by_kind_and_address() {
        let lines: Vec<String> = ANSWER.lines().map(str::to_owned).collect();
        let found = peers(&lines);
        let short: Vec<(&str, &str, &str, bool)> = found
            .iter()
            .map(|peer| (peer.address.as_str(), peer.kind, peer.since.as_str(), peer.is_up()))
            .collect();
        assert_eq!(
            short,
            [
                ("10.0.0.31", "node-to-node mesh", "02:11:04", false),
                ("fd00::1", "global", "2026-11-23", true),
                ("10.0.0.9 (port 1790)", "node specific", "02:12:00", true),
            ]
        );
        assert_eq!(found[0].info, "Connect Socket: Connection refused");
    }

    #[tokio::test]
    async fn absence_an_answer_and_a_refusal_of_bird_are_distinguished() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("bird.ctl");
        assert_eq!(ask(&socket).await, Bird::Absent);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let serve = async {
            for answer in [ANSWER, "0001 BIRD ready.\n9001 Parse error\n"] {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut question = String::new();
                stream.read_line(&mut question).await.unwrap();
                assert_eq!(question, "show protocols\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let asking = async { (ask(&socket).await, ask(&socket).await) };
        let ((first, second), ()) = tokio::join!(asking, serve);
        assert!(matches!(first, Bird::Answers(peers) if peers.len() == 3));
        assert_eq!(second, Bird::Silent("9001 Parse error".to_owned()));
        drop(listener);
        assert_eq!(ask(&socket).await, Bird::Absent);
    }
}
