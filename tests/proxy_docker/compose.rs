//! docker compose version 2 as a client of the proxy.
//!
//! `make test-compose` builds it once and names the program in [`VARIABLE`].

use std::process::{Command, Stdio};

use crate::lab::Lab;
use crate::wait::eventually;

const VARIABLE: &str = "DOCKER_COMPOSE";
/// One service with Calico's network and one without, in the default network of the project.
const PROJECT: &str = r#"
name: shop
services:
  web:
    image: busybox
    command: ["sh", "-c", "echo begins; exec sleep 1000"]
    environment: {CALICO_IP: auto, CALICO_PROFILE: dev, CALICO_SERVICE: shop}
    ports: ["80"]
    stop_grace_period: 0s
    healthcheck: {test: "true", interval: 1s}
  job:
    image: busybox
    command: ["sleep", "1000"]
    environment: [CALICO_IP=auto]
    restart: always
    stop_grace_period: 0s
    depends_on: {web: {condition: service_healthy}}
  plain:
    image: busybox
    command: ["sleep", "1000"]
    network_mode: none
    stop_grace_period: 0s
"#;

/// What it prints, on both streams, when it succeeds.
fn compose(lab: &Lab, arguments: &[&str]) -> String {
    let program = std::env::var_os(VARIABLE).expect("run `make test-compose`");
    let file = lab.world.stack.dir.join("compose.yaml");
    std::fs::write(&file, PROJECT).unwrap();
    let mut command = Command::new(program);
    command.arg("--progress=plain").arg("-f").arg(&file).args(arguments).stdin(Stdio::null());
    command
        .env("DOCKER_HOST", format!("unix://{}", lab.socket().display()))
        .env("HOME", &lab.world.stack.dir);
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "compose {arguments:?}: {text}\n{}", lab.log());
    text
}

#[tokio::test]
#[ignore = "needs docker compose: make test-compose"]
async fn compose_brings_a_project_up_once_and_takes_it_down() {
    let lab = Lab::new().await;
    println!("{}", compose(&lab, &["version"]));
    compose(&lab, &["up", "-d"]);
    let ids = lab.ok(&["ps", "-q", "--no-trunc"]);
    assert_eq!(ids.lines().count(), 3, "{ids}");
    let address = async |service: &str| {
        let id = compose(&lab, &["ps", "-q", service]);
        eventually(format!("{service} has an address"), async || {
            let seen = lab.inspect(id.trim());
            let address = &seen["NetworkSettings"]["Networks"]["shop_default"]["IPAddress"];
            address.as_str().filter(|address| !address.is_empty()).map(str::to_owned).ok_or(seen.to_string())
        })
        .await
    };
    let (web, job) = (address("web").await, address("job").await);
    assert_ne!(web, job);
    assert_eq!(lab.world.endpoints().await.len(), 2);
    // What is there is as the file asks for: nothing is made anew.
    compose(&lab, &["up", "-d"]);
    assert_eq!(lab.ok(&["ps", "-q", "--no-trunc"]), ids, "{}", lab.log());
    let listed = compose(&lab, &["ps", "--format", "json"]);
    assert!(listed.contains("\"State\":\"running\"") && listed.contains("(healthy)"), "{listed}");
    assert!(compose(&lab, &["port", "web", "80"]).contains(':'));
    assert!(compose(&lab, &["logs", "web"]).contains("begins"));
    assert!(compose(&lab, &["exec", "-T", "web", "ip", "addr"]).contains(&web));
    compose(&lab, &["restart", "web"]);
    assert_eq!(address("web").await, web);
    compose(&lab, &["stop"]);
    compose(&lab, &["start"]);
    assert_eq!((address("web").await, address("job").await), (web, job));
    compose(&lab, &["up", "-d", "--force-recreate", "--no-deps", "web"]);
    address("web").await;
    compose(&lab, &["down"]);
    assert_eq!(lab.ok(&["ps", "-aq"]), "");
    assert!(!lab.ok(&["network", "ls"]).contains("shop_default"));
    lab.nothing_left().await;
}
