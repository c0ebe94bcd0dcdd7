//! Daemons on hosts that are set up in another way: `userns-remap`, name servers at loopback.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use calico_mesos::config::Config;
use calico_mesos::error::{Blame, Code};
use calico_mesos::rig::daemons::{import_busybox, Dockerd, DockerdOptions};
use calico_mesos::task::request::docker_host::{Chosen, Source};
use calico_mesos::task::work::remapped;
use calico_mesos::workload::{resolver_fallback, Docker, DockerHost, UserNamespace};
use serde_json::json;

use crate::daemon::{listens, own_dir, shell};
use crate::kit::faults::Freeze;

/// `text` in place of a file of the machine.
fn file(dir: &Path, machines: &str, text: &str) -> (PathBuf, PathBuf) {
    let own = dir.join(machines.replace('/', "-"));
    std::fs::write(&own, text).unwrap();
    (machines.into(), own)
}

fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.paths.run = dir.join("run");
    config
}

#[tokio::test]
async fn a_daemon_that_remaps_users_is_refused_and_asked_once_in_its_life() {
    let dir = own_dir();
    // dockerd wants the remapped root to reach its folder.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let range = "nobody:100000:65536\n";
    let files = ["/etc/subuid", "/etc/subgid"].map(|name| file(dir.path(), name, range));
    let group = std::fs::read_to_string("/etc/group").unwrap() + "nobody:x:65533:\n";
    let files = files.into_iter().chain([file(dir.path(), "/etc/group", &group)]).collect::<BTreeMap<_, _>>();
    let mut configuration = serde_json::Map::new();
    configuration.insert("userns-remap".to_owned(), json!("nobody"));
    let options = DockerdOptions { configuration, files, ..Default::default() };
    let mut daemon = Dockerd::start(&dir.path().join("d"), options).await.unwrap();
    let host = DockerHost::Unix(daemon.socket.clone());
    let docker = Docker::connect(&host, "").await.unwrap();
    assert_eq!(docker.user_namespace().await.unwrap(), Some(UserNamespace::Remapped));

    let config = config(dir.path());
    let chosen = Chosen { host, tls: None, credentials: None, source: Source::Config };
    let failure = remapped::refuse(&config, &chosen).await.unwrap_err();
    assert_eq!((failure.code, failure.blame()), (Code::DockerUnsuitable, Blame::Host));
    for words in
        ["docker.sock", "docker.host in config.toml", "userns-remap", "Calico", "without userns-remap"]
    {
        assert!(failure.message.contains(words), "{words}: {}", failure.message);
    }
    // It could not answer now.
    daemon.freeze();
    let again = remapped::refuse(&config, &chosen).await.unwrap_err();
    assert_eq!(again.message, failure.message);
    daemon.thaw();
    daemon.stop().await;

    // Another process behind the same socket is asked anew.
    let other = Dockerd::start(&dir.path().join("d"), DockerdOptions::default()).await.unwrap();
    assert_eq!(other.socket, daemon.socket);
    remapped::refuse(&config, &chosen).await.unwrap();
    other.freeze();
    remapped::refuse(&config, &chosen).await.unwrap();
    other.thaw();
}

/// Which process listens at a TCP port is unknown: a dockerd that starts beside it makes no new question.
#[tokio::test]
async fn a_daemon_behind_tcp_is_asked_once_while_it_lives() {
    let dir = own_dir();
    let options = DockerdOptions { tcp: true, ..Default::default() };
    let mut daemon = Dockerd::start(&dir.path().join("d"), options).await.unwrap();
    let address = daemon.tcp.unwrap();
    listens(&daemon).await;
    let config = config(dir.path());
    let host = DockerHost::Tcp { host: address.ip().to_string(), port: address.port() };
    let chosen = Chosen { host, tls: None, credentials: None, source: Source::Config };
    remapped::refuse(&config, &chosen).await.unwrap();
    let [answer] =
        std::fs::read_dir(config.paths.run.join("docker")).unwrap().collect::<Vec<_>>().try_into().unwrap();
    let answer = answer.unwrap().path();
    let mut said: serde_json::Value = serde_json::from_slice(&std::fs::read(&answer).unwrap()).unwrap();
    assert_eq!(said["remapped"], false);
    // Of the dockerds on this machine only this test's own is sure to live; another answer shows that it is remembered.
    let own = format!(" {} ", daemon.pid().unwrap());
    said["daemons"].as_array_mut().unwrap().retain(|one| one.as_str().unwrap().contains(&own));
    assert_eq!(said["daemons"].as_array().unwrap().len(), 1, "{said}");
    said["remapped"] = true.into();
    std::fs::write(&answer, said.to_string()).unwrap();
    let other = Dockerd::start(&dir.path().join("other"), DockerdOptions::default()).await.unwrap();
    remapped::refuse(&config, &chosen).await.unwrap_err();

    daemon.stop().await;
    daemon.restart().await.unwrap();
    listens(&daemon).await;
    remapped::refuse(&config, &chosen).await.unwrap();
    drop(other);
}

#[tokio::test]
async fn a_host_that_resolves_at_loopback_gets_its_tasks_public_name_servers() {
    let dir = own_dir();
    let resolv_conf = "nameserver 127.0.0.1\n";
    let files = BTreeMap::from([file(dir.path(), "/etc/resolv.conf", resolv_conf)]);
    let arguments = vec!["--storage-driver=vfs".to_owned()];
    let options = DockerdOptions { files, arguments, ..Default::default() };
    let daemon = Dockerd::start(&dir.path().join("d"), options).await.unwrap();
    import_busybox(&daemon).await.unwrap();
    let docker = Docker::connect(&DockerHost::Unix(daemon.socket.clone()), "").await.unwrap();
    let given = async |name: &str, dns: &[&str]| {
        let dns = dns.iter().map(|server| (*server).to_owned()).collect();
        let spec = calico_mesos::workload::ContainerSpec { dns, ..shell("sleep 60") };
        let id = docker.create(name, &spec).await.unwrap();
        docker.start(&id, std::time::Duration::from_secs(60)).await.unwrap();
        let file = docker.inspect(&id).await.unwrap().resolv_conf.unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        docker.remove(&id, true).await.unwrap();
        text
    };
    let note = resolver_fallback(&given("left", &[]).await, resolv_conf).unwrap();
    assert!(note.contains("8.8.8.8") && note.contains("127.0.0.1") && note.contains("[dns]"), "{note}");
    assert_eq!(resolver_fallback(&given("set", &["10.0.0.2"]).await, resolv_conf), None);
}
