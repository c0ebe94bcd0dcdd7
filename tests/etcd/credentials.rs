//! Certificates and passwords, as a production etcd asks for them.

use calico_mesos::calico::{Datastore, Terms};
use calico_mesos::config::Config;
use calico_mesos::error::Code;
use calico_mesos::rig::daemons::{Etcd, EtcdOptions};

use crate::certificates::Authority;
use crate::datastore::*;

#[tokio::test]
async fn tls_with_a_client_certificate_and_a_host_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let authority = Authority::new(path);
    let (server, client) = (authority.server("server"), authority.client("client"));
    let ca = authority.ca;
    let options = EtcdOptions { tls: Some((server.0, server.1, ca.clone())), arguments: Vec::new() };
    let mut etcd = Etcd::start(&path.join("etcd"), options).await.unwrap();
    let mut config = Config::default();
    // The certificate names the host, not its address: the name has to be kept although we resolve it.
    config.etcd.endpoints = vec![format!("https://localhost:{}", etcd.address().port())];
    config.etcd.ca_file = Some(ca.clone());
    config.etcd.cert_file = Some(client.0);
    config.etcd.key_file = Some(client.1);
    config.paths.state = path.into();
    config.paths.ipam_lock = path.join("lock");
    let mut datastore = Datastore::connect(&config).await.unwrap();
    datastore.initialise_local("a", &["10.65.0.0/24".parse().unwrap()]).await.unwrap();
    let identity = task("a");
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    datastore.commit(prepared, MAC, Terms::default()).await.unwrap();

    // Everything is replaced under the running task, in the same files.
    let authority = Authority::new(path);
    authority.server("server");
    authority.client("client");
    etcd.kill();
    etcd.restart().await.unwrap();
    let mut datastore = Datastore::connect(&config).await.unwrap();
    assert_eq!(datastore.release(&identity).await.unwrap().addresses.len(), 1);

    config.etcd.ca_file = None;
    let error = match Datastore::connect(&config).await {
        Ok(mut datastore) => datastore.prepare(&task("a"), &auto()).await.err().unwrap(),
        Err(error) => error,
    };
    assert_eq!(error.failure().code, Code::Etcd, "a server of an unknown authority is not spoken to");
}

/// etcd answers in each of these cases: where to look is the certificates, not whether it runs.
#[tokio::test]
async fn a_refused_tls_connection_is_not_taken_for_an_etcd_that_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (authority, other) = (Authority::new(&path("ca")), Authority::new(&path("cb")));
    let ca = &authority.ca;
    let start = |name: &str, tls| {
        let folder = path(name);
        async move { Etcd::start(&folder, EtcdOptions { tls, arguments: Vec::new() }).await.unwrap() }
    };
    let (server, elsewhere) = (authority.server("server"), authority.server_of("elsewhere", "DNS:elsewhere"));
    let mut etcd = start("etcd", Some((server.0, server.1, ca.clone()))).await;
    let misnamed = start("misnamed", Some((elsewhere.0, elsewhere.1, ca.clone()))).await;
    let plain = start("plain", None).await;

    let (client, stranger) = (authority.client("client"), other.client("stranger"));
    let mut config = Config::default();
    config.paths.state = dir.path().into();
    config.paths.ipam_lock = path("lock");
    config.etcd.endpoints = vec![etcd.endpoint.clone()];
    config.etcd.ca_file = Some(ca.clone());
    config.etcd.cert_file = Some(client.0);
    config.etcd.key_file = Some(client.1);
    let failure = async |config: &Config| {
        let error = match Datastore::connect(config).await {
            Ok(mut datastore) => datastore.prepare(&task("a"), &auto()).await.err().unwrap(),
            Err(error) => error,
        };
        let failure = error.failure();
        assert_eq!(failure.code, Code::Etcd, "{}", failure.message);
        failure.message
    };
    // Nothing is wrong with this one.
    let message =
        Datastore::connect(&config).await.unwrap().prepare(&task("a"), &auto()).await.err().unwrap();
    assert!(message.to_string().contains("not ready"), "{message}");

    type Change = Box<dyn Fn(&mut Config)>;
    let at = |endpoint: String| -> Change {
        Box::new(move |config| config.etcd.endpoints = vec![endpoint.clone()])
    };
    let cases: [(&str, &str, Change); 6] = [
        (
            "fails on this side: invalid peer certificate",
            "check endpoints and ca_file of",
            Box::new(move |config| config.etcd.ca_file = Some(other.ca.clone())),
        ),
        (
            "refuses the TLS connection: received fatal alert",
            "check cert_file and key_file of",
            Box::new(|config| (config.etcd.cert_file, config.etcd.key_file) = (None, None)),
        ),
        (
            "refuses the TLS connection: received fatal alert",
            "check cert_file and key_file of",
            Box::new(move |config| {
                (config.etcd.cert_file, config.etcd.key_file) =
                    (Some(stranger.0.clone()), Some(stranger.1.clone()));
            }),
        ),
        ("certificate not valid for name", "the names in etcd's certificate", at(misnamed.endpoint.clone())),
        (
            "fails on this side: it speaks HTTP without TLS",
            "check endpoints",
            at(plain.endpoint.replace("http:", "https:")),
        ),
        ("expects TLS, which is not configured", "https://", at(etcd.endpoint.replace("https:", "http:"))),
    ];
    for (says, advice, change) in &cases {
        let mut config = config.clone();
        change(&mut config);
        let message = failure(&config).await;
        assert!(message.contains(says) && message.contains(advice), "{says}: {message}");
        assert!(
            message.contains("[etcd] in config.toml") && !message.contains("etcd answers there"),
            "{message}"
        );
    }
    config.etcd.ca_file = Some("/nonexistent/ca.pem".into());
    let message = failure(&config).await;
    assert!(
        message.contains("cannot read /nonexistent/ca.pem") && message.contains("check the files"),
        "{message}"
    );
    config.etcd.ca_file = Some(ca.clone());
    etcd.kill();
    let message = failure(&config).await;
    assert!(message.contains("check that etcd answers there"), "{message}");
}

#[tokio::test]
async fn a_user_with_a_password_from_a_file() {
    let mut world = World::new(&["a"], &[("pool", r#"{"cidr":"10.65.0.0/24"}"#)]).await;
    world.raw.user_add("root", "se cret", None).await.unwrap();
    world.raw.role_add("root").await.unwrap();
    world.raw.user_grant_role("root", "root").await.unwrap();
    world.raw.auth_enable().await.unwrap();
    let mut config = world.config("a");
    let password = world.dir.path().join("password");
    std::fs::write(&password, "se cret\n").unwrap();
    config.etcd.username = Some("root".into());
    config.etcd.password_file = Some(password.clone());
    let mut datastore = Datastore::connect(&config).await.unwrap();
    let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
    datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    std::fs::write(&password, "wrong").unwrap();
    let failure = Datastore::connect(&config).await.err().unwrap().failure();
    assert_eq!(failure.code, Code::Etcd);
    assert!(!failure.message.contains("wrong"), "{}", failure.message);
    config.etcd.username = None;
    let mut datastore = Datastore::connect(&config).await.unwrap();
    assert!(datastore.prepare(&task("a"), &auto()).await.is_err());
}
