//! Docker at an address, with certificates on both sides.

use std::collections::BTreeMap;

use calico_mesos::config::Docker as Configured;
use calico_mesos::error::Code;
use calico_mesos::limits::START_WITHOUT_GATE as START;
use calico_mesos::rig::daemons::{import_busybox, Dockerd, DockerdOptions};
use calico_mesos::workload::{Docker, DockerHost};

use crate::certificates::Authority;
use crate::daemon::{listens, own_dir, run, shell, unique};

#[tokio::test]
async fn a_daemon_that_wants_a_certificate_gets_the_configured_one() {
    let dir = own_dir();
    let (authority, other) = (Authority::new(&dir.path().join("ca")), Authority::new(&dir.path().join("cb")));
    let (server, client) = (authority.server("server"), authority.client("client"));
    let tls = Some((server.0, server.1, authority.ca.clone()));
    let options = DockerdOptions { tcp: true, tls, ..Default::default() };
    let mut daemon = Dockerd::start(dir.path(), options).await.unwrap();
    import_busybox(&daemon).await.unwrap();
    let port = daemon.tcp.unwrap().port();
    listens(&daemon).await;
    let configured = Configured {
        ca_file: Some(authority.ca.clone()),
        cert_file: Some(client.0.clone()),
        key_file: Some(client.1.clone()),
        ..Configured::default()
    };
    // By name and by number: both stand in the daemon's certificate.
    for host in ["localhost", "127.0.0.1"] {
        let host = DockerHost::Tcp { host: host.into(), port };
        let docker = Docker::connect_with(&host, configured.tls(), "").await.unwrap();
        assert!(docker.is_local().await.unwrap());
        // A stream in both directions, too.
        let ran = run(&docker, &shell("echo out; echo err >&2; exit 3")).await.unwrap();
        assert_eq!((ran.exit.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"));
        let id = docker.create(&unique("mesos"), &shell("exec sleep 1000")).await.unwrap();
        docker.start(&id, START).await.unwrap();
        let command = ["sh", "-c", "exit 5"].map(str::to_owned);
        let running = docker.exec(&id, &command, &BTreeMap::new()).await.unwrap();
        assert_eq!(running.exit(None, 0).await.unwrap(), 5);
        docker.remove(&id, true).await.unwrap();
    }

    let host = DockerHost::Tcp { host: "localhost".into(), port };
    let nobody = Configured { cert_file: None, key_file: None, ..configured.clone() };
    let stranger = other.client("stranger");
    let stranger =
        Configured { cert_file: Some(stranger.0), key_file: Some(stranger.1), ..configured.clone() };
    let unknown_daemon = Configured { ca_file: Some(other.ca.clone()), ..configured.clone() };
    let no_file = Configured { key_file: Some("/nonexistent/key.pem".into()), ..configured };
    for (who, says) in [
        (
            Configured::default(),
            "expects TLS, which is not configured: a plain HTTP request was answered with 400",
        ),
        (nobody, "refuses the TLS connection"),
        (stranger, "refuses the TLS connection"),
        (unknown_daemon, "fails on this side: invalid peer certificate"),
        (no_file, "cannot be prepared: cannot read /nonexistent/key.pem"),
    ] {
        let failure = Docker::connect_with(&host, who.tls(), "by config.toml").await.unwrap_err().failure();
        assert!(failure.code == Code::Docker && failure.message.contains(says), "{says}: {failure}");
        // dockerd runs and listens: what has to be looked at is the certificates.
        assert!(failure.message.contains("of [docker] in config.toml"), "{failure}");
        assert!(!failure.message.contains("check that dockerd runs"), "{failure}");
    }
    daemon.stop().await;
}
