//! The captured requests, `tests/fixtures/mesos/lifeN/NN-<sender>-<Message>.req.bin`.

use std::fs;
use std::path::{Path, PathBuf};

use calico_mesos::mesos::libprocess::framing::{ActorRequest, Decoder};
use calico_mesos::mesos::libprocess::Upid;
use calico_mesos::mesos::messages::Wire;

pub struct Capture {
    pub file: String,
    pub bytes: Vec<u8>,
    pub request: ActorRequest,
}

impl Capture {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut decoder = Decoder::default();
        decoder.buffer.extend_from_slice(&bytes);
        let request = decoder.next_request().unwrap().unwrap();
        assert!(decoder.is_idle(), "{} holds more than one request", path.display());
        Self { file: path.display().to_string(), bytes, request }
    }

    pub fn name(&self) -> &str {
        self.request.path.rsplit('/').next().unwrap()
    }

    pub fn decode<M: Wire>(&self) -> M {
        assert_eq!(self.name(), M::NAME, "{}", self.file);
        M::decode(self.request.body.as_slice()).unwrap()
    }

    pub fn from(&self) -> Upid {
        self.request.sender.as_ref().unwrap().parse().unwrap()
    }

    /// The receiver, from the path and the Host header.
    pub fn to(&self) -> Upid {
        let text = String::from_utf8_lossy(&self.bytes);
        let host = text.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
        let actor = self.request.path[1..].split('/').next().unwrap();
        format!("{actor}@{host}").parse().unwrap()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mesos")
}

pub fn life(name: &str) -> Vec<Capture> {
    let mut files: Vec<_> =
        fs::read_dir(root().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| Capture::read(file)).collect()
}

pub fn all() -> Vec<Capture> {
    let mut lives: Vec<_> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    lives.sort();
    lives.iter().flat_map(|name| life(name)).collect()
}

/// The first message of its kind in a conversation.
pub fn first<M: Wire>(life: &[Capture]) -> M {
    life.iter().find(|capture| capture.name() == M::NAME).unwrap().decode()
}
