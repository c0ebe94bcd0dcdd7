//! The bytes of a libprocess message: an HTTP/1.1 post with a fixed set of headers (pure).
//!
//! Written exactly as Mesos writes it: one chunk in lower-case hex, and for an empty body neither a
//! length nor an encoding. Read generously: any chunking, Content-Length, or no body.

use bytes::{Buf, BytesMut};

use super::{Incoming, Upid};

/// No message comes near it: the largest one carries a TaskInfo or the text of a `docker inspect`.
pub const MAX_BODY: usize = 64 << 20;
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 64;
/// A chunk's size line; extensions are allowed and ignored.
const MAX_LINE: usize = 1 << 10;
const API_HEADERS: [&str; 3] = ["content-type", "accept", "authorization"];

/// The request that carries `body` from one actor to another.
pub fn encode(from: &Upid, to: &Upid, name: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /{}/{name} HTTP/1.1\r\nUser-Agent: libprocess/{from}\r\nLibprocess-From: {from}\r\n\
         Connection: Keep-Alive\r\nHost: {}\r\n",
        to.actor, to.address
    )
    .into_bytes();
    if body.is_empty() {
        request.extend_from_slice(b"\r\n");
        return request;
    }
    request.extend_from_slice(format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).as_bytes());
    request.extend_from_slice(body);
    request.extend_from_slice(b"\r\n0\r\n\r\n");
    request
}

/// One whole request, of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorRequest {
    pub method: String,
    /// The path with its percent escapes undone, up to a `?`.
    pub path: String,
    /// What the sender calls itself; `None` for anything that is not a libprocess message.
    pub sender: Option<String>,
    /// The sender wants the connection closed afterwards.
    pub close: bool,
    /// Those that version 1 of the executor API looks at.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl ActorRequest {
    /// One of the kept headers, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The message in it, when it is one for `actor`.
    pub fn for_actor(self, actor: &str) -> Option<Incoming> {
        let sender = self.sender.filter(|_| self.method == "POST")?;
        let (to, name) = self.path.strip_prefix('/')?.split_once('/')?;
        if to != actor || name.is_empty() {
            return None;
        }
        Some(Incoming { from: sender.parse().ok(), name: name.to_owned(), body: self.body })
    }
}

/// Why a connection's bytes are not HTTP that is understood here; it is closed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    #[error("not an HTTP/1.1 request")]
    Head,
    #[error("a head of more than {MAX_HEAD} bytes")]
    HeadTooLong,
    #[error("a body whose length is not understood")]
    Length,
    #[error("a body of more than {MAX_BODY} bytes")]
    BodyTooLong,
}

/// Cuts a stream of bytes into requests.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has been read and not been used yet; the reader appends to it.
    pub buffer: BytesMut,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes of body are still to come.
    Fixed(ActorRequest, usize),
    ChunkSize(ActorRequest),
    Chunk(ActorRequest, usize),
    /// Header lines behind the last chunk, up to an empty one.
    Trailer(ActorRequest),
}

impl Decoder {
    /// The next whole request, or `None` until more bytes are there.
    pub fn next_request(&mut self) -> Result<Option<ActorRequest>, Garbage> {
        loop {
            match std::mem::take(&mut self.state) {
                State::Head => match self.head()? {
                    Some(state) => self.state = state,
                    None => return Ok(None),
                },
                State::Fixed(mut request, mut left) => {
                    left -= self.move_body(&mut request, left);
                    if left == 0 {
                        return Ok(Some(request));
                    }
                    self.state = State::Fixed(request, left);
                    return Ok(None);
                }
                State::ChunkSize(request) => match self.line()? {
                    None => {
                        self.state = State::ChunkSize(request);
                        return Ok(None);
                    }
                    Some(line) => self.state = after_size(request, &line)?,
                },
                State::Chunk(mut request, mut left) => {
                    left -= self.move_body(&mut request, left);
                    if left > 0 || self.buffer.len() < 2 {
                        self.state = State::Chunk(request, left);
                        return Ok(None);
                    }
                    if !self.buffer.starts_with(b"\r\n") {
                        return Err(Garbage::Length);
                    }
                    self.buffer.advance(2);
                    self.state = State::ChunkSize(request);
                }
                State::Trailer(request) => match self.line()? {
                    Some(line) if line.is_empty() => return Ok(Some(request)),
                    Some(_) => self.state = State::Trailer(request),
                    None => {
                        self.state = State::Trailer(request);
                        return Ok(None);
                    }
                },
            }
        }
    }

    /// Whether the stream may end here.
    pub fn is_idle(&self) -> bool {
        self.buffer.is_empty() && matches!(self.state, State::Head)
    }

    fn head(&mut self) -> Result<Option<State>, Garbage> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let used = match parsed.parse(&self.buffer) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if self.buffer.len() > MAX_HEAD => {
                return Err(Garbage::HeadTooLong)
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Garbage::Head),
        };
        let state = after_head(&parsed)?;
        self.buffer.advance(used);
        Ok(Some(state))
    }

    fn line(&mut self) -> Result<Option<String>, Garbage> {
        let Some(end) = self.buffer.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
            return if self.buffer.len() >= MAX_LINE { Err(Garbage::Length) } else { Ok(None) };
        };
        let line = self.buffer.split_to(end + 1);
        let line = std::str::from_utf8(&line).map_err(|_| Garbage::Length)?;
        Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    fn move_body(&mut self, request: &mut ActorRequest, left: usize) -> usize {
        let count = left.min(self.buffer.len());
        request.body.extend_from_slice(&self.buffer[..count]);
        self.buffer.advance(count);
        count
    }
}

fn after_head(parsed: &httparse::Request<'_, '_>) -> Result<State, Garbage> {
    let header = |name: &str| {
        let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let agent = header("user-agent").and_then(|agent| agent.strip_prefix("libprocess/"));
    let request = ActorRequest {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: percent_decode(parsed.path.unwrap_or_default().split('?').next().unwrap_or_default()),
        sender: header("libprocess-from").or(agent).map(str::to_owned),
        close: header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        headers: API_HEADERS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), header(name)?.to_owned())))
            .collect(),
        body: Vec::new(),
    };
    if let Some(encoding) = header("transfer-encoding") {
        return match encoding.eq_ignore_ascii_case("chunked") {
            true => Ok(State::ChunkSize(request)),
            false => Err(Garbage::Length),
        };
    }
    match header("content-length") {
        None => Ok(State::Fixed(request, 0)),
        Some(length) => match length.parse::<usize>() {
            Ok(length) if length > MAX_BODY => Err(Garbage::BodyTooLong),
            Ok(length) => Ok(State::Fixed(request, length)),
            Err(_) => Err(Garbage::Length),
        },
    }
}

fn after_size(request: ActorRequest, line: &str) -> Result<State, Garbage> {
    let digits = line.split(';').next().unwrap_or_default().trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Garbage::Length);
    }
    match usize::from_str_radix(digits, 16) {
        Ok(0) => Ok(State::Trailer(request)),
        Ok(size) if size <= MAX_BODY - request.body.len() => Ok(State::Chunk(request, size)),
        _ => Err(Garbage::BodyTooLong),
    }
}

/// Undoes `%28` and its kind; what is no escape stays as it is.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let value = escape.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let value = value.and_then(|digits| std::str::from_utf8(digits).ok());
        match value.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests;
