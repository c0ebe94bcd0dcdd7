//! The gate: the words between `calico-runc start` and the executor that owns the container.
//!
//! The executor listens on a unix stream socket (`<run>/tasks/<ContainerID>/gate`) for as long as it
//! lives. `calico-runc start` connects, sends one line and reads one line:
//!
//! ```text
//! -> calico-mesos gate 1 start <docker id>\n
//! <- open\n            or   refused <reason>\n
//! ```
//!
//! A container that others start has no executor. For it the Docker API proxy listens at `<run>/proxy.sock`, and the
//! same words go there: `prepare`, which `create` asks before the container is made and which is answered when its
//! namespace is there; and `ended`, which `delete` says and which is answered at once. Such a container's gate is its
//! own, as an executor's.
//!
//! It fails closed: no listener, end of file before a verdict, an unknown answer and silence
//! until the deadline all mean "refused". No tokio here: `calico-runc` starts in a millisecond.
//!
//! While a host is upgraded, or set back, the two are of different releases. The executor answers questions of
//! this version and of the one before, each in its own words. To an executor that is older `calico-runc` asks
//! again in the version before: a question that is not understood opens no gate, and uses none up.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

/// The version of these words. It grows when the previous release would misunderstand them.
pub const VERSION: u32 = 1;
/// The oldest one that is understood: that of the release before.
const VERSION_BEFORE: u32 = 1;
/// How a refusal begins that is about the version, in every version.
const OTHER_VERSION: &str = "calico-runc speaks version ";
/// What `prepare` and `ended` go to.
const PROXY: &str = "the Docker API proxy of calico-mesos";

/// No line is longer than this, in bytes; a reason is cut, anything else is refused.
pub const MAX_LINE: usize = 4096;

/// What the executor decided about a container that waits for its first instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateVerdict {
    /// Address, routes, hosts file and endpoint are there: start.
    Open,
    /// Do not start, and why; the reason reaches the framework through Docker.
    Refused(String),
}

impl GateVerdict {
    /// The verdict as one line with its newline; control characters of the reason become spaces.
    pub fn line(&self) -> String {
        match self {
            Self::Open => "open\n".to_owned(),
            Self::Refused(reason) => {
                let mut reason: String =
                    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                let mut end = reason.len().min(MAX_LINE - "refused \n".len());
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                reason.truncate(end);
                format!("refused {}\n", reason.trim())
            }
        }
    }

    /// Reads a line, with or without its newline. A line that is not understood is a refusal.
    pub fn parse(line: &str) -> Self {
        let line = line.strip_suffix('\n').unwrap_or(line);
        if line == "open" {
            return Self::Open;
        }
        match line.strip_prefix("refused") {
            Some("") => Self::Refused("the executor gave no reason".to_owned()),
            Some(reason) if reason.starts_with(' ') => Self::Refused(reason.trim().to_owned()),
            _ => Self::Refused(format!("the executor answered '{}' at the gate", shown(line))),
        }
    }
}

/// The request of `calico-runc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateRequest {
    pub verb: GateVerb,
    /// Docker's id of the container that it is about.
    pub docker_id: String,
}

/// What `calico-runc` wants to know, or has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateVerb {
    /// May the container start?
    Start,
    /// Make a namespace for the container, which is about to be made.
    Prepare,
    /// The container is over.
    Ended,
}

impl GateVerb {
    const ALL: [Self; 3] = [Self::Start, Self::Prepare, Self::Ended];

    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Prepare => "prepare",
            Self::Ended => "ended",
        }
    }
}

/// There was no answer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered(pub String);

/// Why a request line was not understood; the text is fit for a refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("{OTHER_VERSION}{0} at the gate, this executor only version {VERSION}")]
    Version(String),
    #[error("'{0}' is not a request that the gate understands")]
    Malformed(String),
}

impl GateRequest {
    pub fn parse(line: &str) -> Result<Self, RequestError> {
        let malformed = || RequestError::Malformed(shown(line));
        let words: Vec<&str> = line.strip_suffix('\n').unwrap_or(line).split(' ').collect();
        let ["calico-mesos", "gate", version, rest @ ..] = words.as_slice() else {
            return Err(malformed());
        };
        if !(VERSION_BEFORE..=VERSION).any(|known| *version == known.to_string()) {
            return Err(RequestError::Version(shown(version)));
        }
        let [word, id] = rest else { return Err(malformed()) };
        let verb = GateVerb::ALL.into_iter().find(|verb| verb.word() == *word);
        match verb {
            Some(verb) if !id.is_empty() => Ok(Self { verb, docker_id: (*id).to_owned() }),
            _ => Err(malformed()),
        }
    }

    /// The line without its newline.
    fn line(&self, version: u32) -> String {
        format!("calico-mesos gate {version} {} {}", self.verb.word(), self.docker_id)
    }
}

/// Asks whether the container may start and waits for the verdict, at most until `deadline` has passed.
pub fn ask(socket: &Path, docker_id: &str, deadline: Duration) -> GateVerdict {
    question(GateVerb::Start, socket, docker_id, deadline)
        .unwrap_or_else(|Unanswered(why)| GateVerdict::Refused(why))
}

/// The same for any question, where it matters whether there was an answer.
pub fn question(
    verb: GateVerb,
    socket: &Path,
    docker_id: &str,
    deadline: Duration,
) -> Result<GateVerdict, Unanswered> {
    question_from(VERSION, GateRequest { verb, docker_id: docker_id.to_owned() }, socket, deadline)
}

/// In this version first, and in those before if the other side does not speak it.
fn question_from(
    newest: u32,
    request: GateRequest,
    socket: &Path,
    deadline: Duration,
) -> Result<GateVerdict, Unanswered> {
    let ends = Instant::now() + deadline;
    let mut version = newest;
    loop {
        match ask_once(socket, &request.line(version), ends) {
            Ok(GateVerdict::Refused(reason))
                if reason.starts_with(OTHER_VERSION) && version > VERSION_BEFORE =>
            {
                version -= 1;
            }
            Ok(verdict) => return Ok(verdict),
            Err(error) => return Err(Unanswered(unanswered(request.verb, socket, deadline, &error))),
        }
    }
}

fn ask_once(socket: &Path, question: &str, ends: Instant) -> io::Result<GateVerdict> {
    let answer = nearby(socket).and_then(|near| UnixStream::connect(near.path())).and_then(|mut stream| {
        stream.set_write_timeout(Some(left(ends)?))?;
        // In one piece; an executor that refuses without listening may have closed its end already,
        // and its verdict can be read all the same.
        match stream.write_all(format!("{question}\n").as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => read_line(&mut stream, ends),
        }
    });
    match answer? {
        line if line.ends_with('\n') => Ok(GateVerdict::parse(&line)),
        // Half a verdict is none.
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Why there was no answer, as the owner of the app has to read it.
fn unanswered(verb: GateVerb, socket: &Path, deadline: Duration, error: &io::Error) -> String {
    let of_executor = verb == GateVerb::Start;
    let other = if of_executor { "the executor of this container" } else { PROXY };
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused if of_executor => {
            "no executor waits for this container to start (it has ended, or this is not the first start)"
                .into()
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("{PROXY}, which gives this container its network, does not run; `systemctl start calico-mesos-proxy` starts it")
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            let who = if of_executor { "the executor" } else { PROXY };
            format!("{who} did not have the network ready within {} s", deadline.as_secs())
        }
        // Closed before our line was written, or before a whole line came back.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            format!("{other} died before its network was ready")
        }
        _ => format!("cannot reach {other} at {}: {error}", socket.display()),
    }
}

/// The process that listens at the gate, as seen from here; `None` when there is none, or it cannot be seen.
pub fn owner(socket: &Path) -> Option<i32> {
    let stream = nearby(socket).and_then(|near| UnixStream::connect(near.path())).ok()?;
    let peer = getsockopt(&stream, PeerCredentials).ok()?;
    Some(peer.pid()).filter(|pid| *pid > 0)
}

/// The socket's folder, held open: a socket's whole path may have 107 bytes at most, and a folder chosen
/// by an operator together with two ids may be longer.
#[derive(Debug)]
pub struct Nearby {
    folder: File,
    name: OsString,
}

/// A way to `socket` that is always short enough.
pub fn nearby(socket: &Path) -> io::Result<Nearby> {
    let folder = File::open(socket.parent().unwrap_or(Path::new("/")))?;
    Ok(Nearby { folder, name: socket.file_name().unwrap_or_default().to_owned() })
}

impl Nearby {
    /// Leads to the socket as long as this value lives.
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name)
    }
}

fn read_line(stream: &mut UnixStream, ends: Instant) -> io::Result<String> {
    let mut line = Vec::new();
    let mut chunk = [0; 512];
    while !line.ends_with(b"\n") && line.len() <= MAX_LINE {
        stream.set_read_timeout(Some(left(ends)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => line.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The time left; none left is an error, because a time limit of zero means "wait for ever" to the kernel.
fn left(ends: Instant) -> io::Result<Duration> {
    let left = ends.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Foreign text, safe and short enough to be quoted.
fn shown(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_reason_survives_as_one_line(reason in ".{0,6000}") {
            let line = GateVerdict::Refused(reason).line();
            prop_assert!(line.len() <= MAX_LINE && line.ends_with('\n') && line.matches('\n').count() == 1);
            prop_assert!(matches!(GateVerdict::parse(&line), GateVerdict::Refused(_)));
        }

        #[test]
        fn only_the_exact_word_opens(line in "\\PC{0,40}") {
            if line != "open" {
                prop_assert_ne!(GateVerdict::parse(&line), GateVerdict::Open);
            }
        }

        #[test]
        fn requests_round_trip(id in "[0-9a-f]{64}") {
            let request = GateRequest { verb: GateVerb::Prepare, docker_id: id };
            prop_assert_eq!(GateRequest::parse(&format!("{}\n", request.line(VERSION))), Ok(request));
        }

        #[test]
        fn any_line_is_parsed_without_a_panic(line in ".{0,200}") {
            let _ = GateRequest::parse(&line);
        }
    }

    #[test]
    fn the_owner_is_who_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        assert_eq!(owner(&path), None);
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(owner(&path), i32::try_from(std::process::id()).ok());
    }

    #[test]
    fn a_question_of_another_version_is_recognised() {
        assert_eq!(
            GateRequest::parse("calico-mesos gate 2 start abc\n"),
            Err(RequestError::Version("2".to_owned()))
        );
        assert!(matches!(GateRequest::parse("GET / HTTP/1.1\r\n"), Err(RequestError::Malformed(_))));
        assert!(matches!(
            GateRequest::parse("calico-mesos gate 1 start \n"),
            Err(RequestError::Malformed(_))
        ));
    }

    /// A runtime of a later release, and an executor of this one.
    #[test]
    fn an_older_executor_is_asked_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = [0; 512];
                let count = stream.read(&mut line).unwrap();
                let line = String::from_utf8_lossy(&line[..count]).into_owned();
                let verdict = match GateRequest::parse(&line) {
                    Ok(_) => GateVerdict::Open,
                    Err(reason) => GateVerdict::Refused(reason.to_string()),
                };
                stream.write_all(verdict.line().as_bytes()).unwrap();
                asked.push(line);
            }
            asked
        });
        let request = GateRequest { verb: GateVerb::Start, docker_id: "abc".to_owned() };
        assert_eq!(question_from(VERSION + 1, request, &path, Duration::from_secs(5)), Ok(GateVerdict::Open));
        assert_eq!(
            server.join().unwrap(),
            ["calico-mesos gate 2 start abc\n", "calico-mesos gate 1 start abc\n"]
        );
    }

    fn refusal(verdict: GateVerdict) -> String {
        match verdict {
            GateVerdict::Refused(reason) => reason,
            GateVerdict::Open => panic!("open"),
        }
    }

    fn served(answer: &'static str) -> GateVerdict {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 512];
            let count = stream.read(&mut line).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&line[..count]).into_owned()
        });
        let verdict = ask(&path, "abc", Duration::from_secs(5));
        assert_eq!(server.join().unwrap(), "calico-mesos gate 1 start abc\n");
        verdict
    }

    #[test]
    fn verdicts_of_a_living_executor() {
        assert_eq!(served("open\n"), GateVerdict::Open);
        assert_eq!(served("refused pool is empty\n"), GateVerdict::Refused("pool is empty".into()));
        assert!(refusal(served("perhaps\n")).contains("'perhaps'"));
    }

    #[test]
    fn a_refusal_without_listening_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..50 {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"refused too late\n").unwrap();
            }
        });
        for _ in 0..50 {
            assert_eq!(refusal(ask(&path, "abc", Duration::from_secs(5))), "too late");
        }
        server.join().unwrap();
    }

    #[test]
    fn an_executor_that_dies_refuses() {
        assert!(refusal(served("")).contains("died"));
        // Half a verdict is none.
        assert!(refusal(served("open")).contains("died"));
    }

    #[test]
    fn a_gate_without_a_listener_is_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        assert!(refusal(ask(&path, "abc", Duration::from_secs(1))).contains("no executor"));
        drop(UnixListener::bind(&path).unwrap());
        assert!(refusal(ask(&path, "abc", Duration::from_secs(1))).contains("no executor"));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(refusal(ask(&path, "abc", Duration::from_secs(1))).contains("within 1 s"));
    }
}
