//! The captured connections, `tests/fixtures/mesos-v1/aN/NNN.{c2s,s2c}.bin`: all bytes of one direction.

use std::fs;
use std::path::{Path, PathBuf};

use calico_mesos::mesos::http::recordio;
use calico_mesos::mesos::libprocess::framing::{ActorRequest, Decoder};
use calico_mesos::mesos::messages::{Call, Event};
use prost::Message as _;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mesos-v1")
}

pub fn bytes(name: &str) -> Vec<u8> {
    fs::read(root().join(name)).unwrap()
}

/// Every captured file of this direction.
pub fn all(direction: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for life in ["a1", "a2", "a3", "a4"] {
        let mut files: Vec<_> =
            fs::read_dir(root().join(life)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let wanted = files.iter().filter(|path| path.to_str().unwrap().ends_with(direction));
        found.extend(wanted.map(|path| fs::read(path).unwrap()));
    }
    found
}

pub fn requests(bytes: &[u8]) -> Vec<ActorRequest> {
    let mut decoder = Decoder::default();
    decoder.buffer.extend_from_slice(bytes);
    let requests = std::iter::from_fn(|| decoder.next_request().unwrap()).collect();
    assert!(decoder.is_idle());
    requests
}

pub fn call(request: &ActorRequest) -> Call {
    Call::decode(request.body.as_slice()).unwrap()
}

/// Head and body, at the first empty line.
pub fn split(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8(bytes[..end].to_vec()).unwrap(), &bytes[end + 4..])
}

/// The head without the one line that differs each second.
pub fn undated(head: &str) -> Vec<&str> {
    head.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

/// The whole chunks of a body, one by one; a stream that broke off has no last, empty one.
pub fn chunks(mut body: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some(end) = body.iter().position(|byte| *byte == b'\n') {
        let size = std::str::from_utf8(&body[..end]).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap();
        let Some(chunk) = body.get(end + 1..end + 1 + size) else { break };
        found.push(chunk);
        body = body.get(end + 3 + size..).unwrap_or_default();
    }
    found
}

/// The record in each chunk, bytes and meaning.
pub fn events(body: &[u8]) -> Vec<(Vec<u8>, Event)> {
    let mut decoder = recordio::RecordDecoder::default();
    let mut found = Vec::new();
    for chunk in chunks(body) {
        decoder.feed(chunk);
        while let Some(record) = decoder.next_record().unwrap() {
            found.push((record.to_vec(), Event::decode(&record[..]).unwrap()));
        }
        // One record is one chunk.
        assert!(decoder.is_idle());
    }
    found
}
