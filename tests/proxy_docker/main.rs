//! The proxy's reading of requests and its words for answers, held against a real Docker daemon of its own.
//!
//! Needs root, `dockerd` and a static busybox. No proxy runs here: what `create` makes of a request goes to the daemon
//! itself, and what `show` makes of the daemon's answer is compared with its answer for a container that is none of
//! Calico's.

mod attacks;
mod chaos;
mod compose;
mod executors;
#[path = "../kit/mod.rs"]
mod kit;
mod lab;
mod life;
mod notes;
mod outages;
mod reading;
mod seen;
mod showing;
mod steps;

use std::path::PathBuf;
use std::process::Child;

use calico_mesos::config::Config;
use calico_mesos::proxy::create::{self, CalicoCreation, Creation};
use calico_mesos::rig::daemons::{import_busybox, Dockerd, DockerdOptions, Network};
use serde_json::{json, Value};

use kit::netlab::own_netns;
use kit::{wait, world};

/// A daemon with a bridge, in a network namespace of its own.
struct Daemon {
    dockerd: Dockerd,
    /// Holds the namespace; dropped after the daemon.
    _netns: Holder,
    _folder: tempfile::TempDir,
}

struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    async fn start() -> Self {
        let netns = Holder(own_netns());
        let folder = tempfile::Builder::new().prefix("cm-proxy-").tempdir().unwrap();
        let options = DockerdOptions {
            network: Network::Bridge,
            netns: Some(PathBuf::from(format!("/proc/{}/ns/net", netns.0.id()))),
            runtimes: [("calico".to_owned(), env!("CARGO_BIN_EXE_calico-runc").into())].into(),
            ..DockerdOptions::default()
        };
        let dockerd = Dockerd::start(folder.path(), options).await.unwrap();
        import_busybox(&dockerd).await.unwrap();
        Self { dockerd, _netns: netns, _folder: folder }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.dockerd.request(method, path, body.as_bytes()).await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Makes a container of this body; returns its id.
    async fn create(&self, body: &str) -> String {
        let (status, answer) = self.ask("POST", "/containers/create", body).await;
        assert_eq!(status, 201, "{body}: {answer}");
        answer["Id"].as_str().unwrap().to_owned()
    }

    async fn start_container(&self, id: &str) {
        let (status, answer) = self.ask("POST", &format!("/containers/{id}/start"), "").await;
        assert_eq!(status, 204, "{answer}");
    }

    async fn remove(&self, id: &str) {
        let (status, answer) = self.ask("DELETE", &format!("/containers/{id}?force=1"), "").await;
        assert_eq!(status, 204, "{answer}");
    }

    async fn inspect(&self, id: &str) -> Value {
        let (status, answer) = self.ask("GET", &format!("/containers/{id}/json"), "").await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The container's entry of the list.
    async fn listed(&self, id: &str) -> Value {
        let (_, list) = self.ask("GET", "/containers/json?all=1", "").await;
        let mut entries = list.as_array().unwrap().iter();
        entries.find(|entry| entry["Id"] == id).unwrap().clone()
    }
}

/// What the proxy makes of the body, which is a Calico container's.
fn calico(body: &str) -> CalicoCreation {
    match create::read(body.as_bytes(), None, &Config::default()) {
        Ok(Creation::Calico(creation)) => *creation,
        other => panic!("{body}: {other:?}"),
    }
}

/// A container that stays, with these settings.
fn sleeper(env: &Value, host: &Value) -> Value {
    json!({
        "Image": "busybox", "Cmd": ["sleep", "600"], "Env": env, "HostConfig": host,
        "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
    })
}
