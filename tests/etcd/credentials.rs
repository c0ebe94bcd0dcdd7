//! Certificates and passwords, as a production etcd asks for them.

use calico_mesos::calico::{Datastore, Terms};
use calico_mesos::config::Config;
use calico_mesos::dev::{Etcd, EtcdOptions};

use crate::certificates::Authority;
use crate::harness::*;

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
    assert_eq!(error.failure().code, "CM-ETCD", "a server of an unknown authority is not spoken to");
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
    assert_eq!(failure.code, "CM-ETCD");
    assert!(!failure.message.contains("wrong"), "{}", failure.message);
    config.etcd.username = None;
    let mut datastore = Datastore::connect(&config).await.unwrap();
    assert!(datastore.prepare(&task("a"), &auto()).await.is_err());
}
