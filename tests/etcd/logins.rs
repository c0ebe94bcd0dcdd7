//! Tokens that etcd refuses in the middle of a life: the call logs in once more and goes on.

use std::path::Path;
use std::time::Instant;

use calico_mesos::calico::{Datastore, Terms};
use calico_mesos::config::Config;
use calico_mesos::error::Code;
use calico_mesos::rig::daemons::{Etcd, EtcdOptions};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, TlsOptions};

use crate::certificates::Authority;
use crate::datastore::*;
use crate::proxy::Proxy;

const USER: &str = "mesos";

/// An etcd that asks for passwords, and a host's configuration that has one.
struct Guarded {
    etcd: Etcd,
    root: Client,
    config: Config,
    dir: tempfile::TempDir,
}

impl Guarded {
    /// `arguments` choose the kind of token.
    async fn new(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let options = EtcdOptions { arguments, ..Default::default() };
        let etcd = Etcd::start(&dir.path().join("etcd"), options).await.unwrap();
        let mut config = Config::default();
        config.etcd.endpoints = vec![etcd.endpoint.clone()];
        config.paths.state = dir.path().into();
        config.paths.ipam_lock = dir.path().join("lock");
        let mut open = Datastore::connect(&config).await.unwrap();
        open.initialise_local("a", &["10.65.0.0/24".parse().unwrap()]).await.unwrap();

        let mut raw = Client::connect([&etcd.endpoint], None).await.unwrap();
        raw.role_add("root").await.unwrap();
        for (user, password) in [("root", "master"), (USER, "first")] {
            raw.user_add(user, password, None).await.unwrap();
            raw.user_grant_role(user, "root").await.unwrap();
        }
        raw.auth_enable().await.unwrap();
        let options = ConnectOptions::new().with_user("root", "master");
        let root = Client::connect([&etcd.endpoint], Some(options)).await.unwrap();
        config.etcd.username = Some(USER.into());
        config.etcd.password_file = Some(dir.path().join("password"));
        write_password(dir.path(), "first");
        Self { etcd, root, config, dir }
    }

    /// etcd forgets the user's simple tokens, as it does with one that is 300 s old.
    async fn rotate_password(&mut self, password: &str) {
        self.root.user_change_password(USER, password).await.unwrap();
        write_password(self.dir.path(), password);
    }
}

fn write_password(dir: &Path, password: &str) {
    std::fs::write(dir.join("password"), format!("{password}\n")).unwrap();
}

#[tokio::test]
async fn an_expired_token_is_renewed_by_reads_and_writes() {
    let mut world = Guarded::new(&[]).await;
    let mut datastore = Datastore::connect(&world.config).await.unwrap();
    let identity = task("a");
    world.rotate_password("second").await;
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    let requests = datastore.requests();
    world.rotate_password("third").await;
    let committed = datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    assert_eq!(datastore.requests() - requests, 2, "the write was not just sent again");
    world.rotate_password("fourth").await;
    assert_eq!(datastore.inventory("a", &[]).await.unwrap().endpoints.len(), 1);
    world.rotate_password("fifth").await;
    assert_eq!(datastore.release(&identity).await.unwrap().addresses, committed.addresses);
}

#[tokio::test]
async fn a_restarted_etcd_holds_no_tokens() {
    let mut world = Guarded::new(&[]).await;
    let mut datastore = Datastore::connect(&world.config).await.unwrap();
    let identity = task("a");
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    world.etcd.kill();
    world.etcd.restart().await.unwrap();
    let committed = datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    world.etcd.kill();
    world.etcd.restart().await.unwrap();
    assert_eq!(datastore.release(&identity).await.unwrap().addresses, committed.addresses);
}

/// The password is changed, and the connection lost before etcd could refuse the old token.
#[tokio::test]
async fn a_new_connection_is_made_with_the_password_of_that_moment() {
    let mut world = Guarded::new(&[]).await;
    let proxy = Proxy::start(world.etcd.address()).await;
    world.config.etcd.endpoints = vec![proxy.endpoint.clone()];
    let mut datastore = Datastore::connect(&world.config).await.unwrap();
    let identity = task("a");
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    world.rotate_password("second").await;
    proxy.hold_write();
    let committed = datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    assert_eq!(datastore.release(&identity).await.unwrap().addresses, committed.addresses);
}

#[tokio::test]
async fn a_jwt_from_before_a_change_of_roles_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let token = format!("jwt,sign-method=HS256,priv-key={},ttl=10m", key.display());
    let mut world = Guarded::new(&["--auth-token", &token]).await;
    let mut datastore = Datastore::connect(&world.config).await.unwrap();
    let identity = task("a");
    world.root.role_add("one").await.unwrap();
    // This client's own token is old by now.
    let mut root = renewed(&world).await;
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    root.role_add("two").await.unwrap();
    let committed = datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    let mut root = renewed(&world).await;
    root.role_add("three").await.unwrap();
    assert_eq!(datastore.inventory("a", &[]).await.unwrap().endpoints.len(), 1);
    let mut root = renewed(&world).await;
    root.role_add("four").await.unwrap();
    assert_eq!(datastore.release(&identity).await.unwrap().addresses, committed.addresses);
}

async fn renewed(world: &Guarded) -> Client {
    let options = ConnectOptions::new().with_user("root", "master");
    Client::connect([&world.etcd.endpoint], Some(options)).await.unwrap()
}

/// A second refusal is the answer.
#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let mut world = Guarded::new(&[]).await;
    let mut datastore = Datastore::connect(&world.config).await.unwrap();
    let identity = task("a");
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    world.root.user_change_password(USER, "second").await.unwrap();
    let requests = datastore.requests();
    let failure = datastore.commit(prepared, MAC, Terms::default()).await.unwrap_err().failure();
    assert_eq!(failure.code, Code::Etcd, "{}", failure.message);
    assert!(failure.message.contains("authentication failed"), "{}", failure.message);
    assert!(datastore.requests() - requests <= 2, "{} requests", datastore.requests() - requests);
}

/// A page that is refused is not asked for again in smaller pieces.
#[tokio::test]
async fn a_refusal_is_not_taken_for_an_answer_that_is_too_long() {
    let mut world = Guarded::new(&[]).await;
    world.root.role_add("part").await.unwrap();
    let resources = Permission::read("/calico/resources/").with_prefix();
    world.root.role_grant_permission("part", resources).await.unwrap();
    world.root.user_revoke_role(USER, "root").await.unwrap();
    world.root.user_grant_role(USER, "part").await.unwrap();
    let mut datastore = Datastore::connect(&world.config).await.unwrap();
    let error = datastore.usage().await.err().unwrap().failure();
    assert!(error.message.contains("permission denied"), "{}", error.message);
    let refused = datastore.requests();
    assert!(refused <= 2, "{refused} requests");
}

/// No login, and no token that could be refused.
#[tokio::test]
async fn a_certificate_whose_common_name_is_the_user_needs_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("ca"));
    let (server, pair) = (authority.server("server"), authority.client("agent"));
    let tls = Some((server.0, server.1, authority.ca.clone()));
    let options = EtcdOptions { tls, arguments: Vec::new() };
    let etcd = Etcd::start(&dir.path().join("etcd"), options).await.unwrap();
    let mut config = Config::default();
    config.etcd.endpoints = vec![format!("https://localhost:{}", etcd.address().port())];
    config.etcd.ca_file = Some(authority.ca.clone());
    (config.etcd.cert_file, config.etcd.key_file) = (Some(pair.0.clone()), Some(pair.1.clone()));
    config.paths.state = dir.path().into();
    config.paths.ipam_lock = dir.path().join("lock");
    let mut open = Datastore::connect(&config).await.unwrap();
    open.initialise_local("a", &["10.65.0.0/24".parse().unwrap()]).await.unwrap();

    let read = |path: &Path| std::fs::read(path).unwrap();
    let tls = TlsOptions::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(read(&authority.ca)))
        .identity(Identity::from_pem(read(&pair.0), read(&pair.1)));
    let options = ConnectOptions::new().with_tls(tls);
    let mut raw = Client::connect([&etcd.endpoint], Some(options)).await.unwrap();
    raw.role_add("root").await.unwrap();
    for user in ["root", "agent"] {
        raw.user_add(user, "never used", None).await.unwrap();
        raw.user_grant_role(user, "root").await.unwrap();
    }
    raw.auth_enable().await.unwrap();
    let mut datastore = Datastore::connect(&config).await.unwrap();
    let identity = task("a");
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    assert_eq!(datastore.release(&identity).await.unwrap().addresses.len(), 1);
}

/// Figures for the README; what is asserted is only that a login works.
#[tokio::test]
async fn what_a_login_costs() {
    let world = Guarded::new(&[]).await;
    let took = |begun: Instant| begun.elapsed().as_secs_f64() * 1000.0;
    for _ in 0..5 {
        let begun = Instant::now();
        let mut datastore = Datastore::connect(&world.config).await.unwrap();
        let login = took(begun);
        let begun = Instant::now();
        datastore.prepare(&task("a"), &auto()).await.unwrap();
        eprintln!("login {login:.1} ms, then the launch's read {:.1} ms", took(begun));
    }
}
