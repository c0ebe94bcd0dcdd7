//! `calico-mesos status` beside a real Felix and a real BIRD: what it says while they run, and when one of them does
//! not.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::kit::wait::within;
use crate::lab::{Lab, HOST, NODE, OUTSIDE};
use crate::programs;
use crate::world::{app, calico, CLI};

/// A BGP session takes some seconds to open, and BIRD tries again after a few more.
const SESSION: Duration = Duration::from_secs(60);

/// A BIRD with one session, named as Calico names it.
struct Bird(Child);

impl Bird {
    /// `namespace`: in place of this one.
    fn start(folder: &Path, namespace: Option<&Path>, own: &str, peer: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let text = format!(
            "router id {own};\nprotocol device {{ scan time 2; }}\nprotocol bgp Mesh_{} {{\n  local {own} as 64512;\n  \
             neighbor {peer} as 64512;\n  connect retry time 2;\n  error wait time 2, 4;\n  hold time 6;\n}}\n",
            peer.replace('.', "_")
        );
        let (config, socket) = (folder.join("bird.conf"), folder.join("bird.ctl"));
        std::fs::write(&config, text).unwrap();
        let mut command = match namespace {
            None => Command::new(programs::bird()),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg("--").arg(programs::bird());
                command
            }
        };
        command.arg("-f").arg("-c").arg(config).arg("-s").arg(socket).arg("-P").arg(folder.join("bird.pid"));
        let log = std::fs::File::create(folder.join("bird.log")).unwrap();
        Self(command.stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The verdict on a part of the host, and its line.
fn part(lab: &Lab, name: &str) -> (String, String) {
    let mut command = Command::new(CLI);
    command.arg("--config").arg(&lab.world.stack.config).args(["status", "-o", "json"]);
    let output = command.output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let check = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    let text = |field: &str| check[field].as_str().unwrap().to_owned();
    (text("verdict"), text("text"))
}

/// The part becomes what is expected.
async fn becomes(lab: &Lab, name: &str, verdict: &str, words: &[&str]) {
    within(SESSION, format!("{name} is {verdict}: {words:?}"), async || {
        let (found, text) = part(lab, name);
        let is_it = found == verdict && words.iter().all(|word| text.contains(word));
        is_it.then_some(()).ok_or(format!("{found}: {text}"))
    })
    .await;
}

#[tokio::test]
async fn status_is_well_beside_felix_and_bird_and_tells_when_one_has_stopped() {
    let lab = Lab::new(&[]).await;
    let mut felix = lab.felix().await;
    let run = lab.world.config.paths.endpoint_status.parent().unwrap().to_owned();
    let _bird = Bird::start(&run, None, HOST, OUTSIDE);
    let other = Bird::start(&run.join("other"), Some(lab.outside_namespace()), OUTSIDE, HOST);
    let task = lab.world.running(&app("/web", "sleep 1000", calico())).await;

    becomes(&lab, "bgp", "ok", &["1 of 1 peer up"]).await;
    becomes(&lab, "node", "ok", &[NODE, HOST]).await;
    becomes(&lab, "policy", "ok", &["1 of 1 endpoint reported"]).await;
    becomes(&lab, "felix", "ok", &["1 of 1 task programmed", "iptables nft"]).await;

    // The kernel keeps rules and routes: the task goes on, and status does not say otherwise.
    felix.stop();
    becomes(&lab, "felix", "fail", &["no Felix runs on this host", "1 of 1 task programmed"]).await;
    becomes(&lab, "bgp", "ok", &["1 of 1 peer up"]).await;

    drop(other);
    becomes(&lab, "bgp", "fail", &["0 of 1 peer up", OUTSIDE]).await;
    let again = lab.felix().await;
    becomes(&lab, "felix", "ok", &["1 of 1 task programmed"]).await;
    task.kill().await;
    lab.nothing_left(&[&task]).await;
    assert_eq!(again.failures(), Vec::<String>::new());
}
