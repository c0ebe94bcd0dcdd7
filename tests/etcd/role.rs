//! `mesos/etcd-role.sh` gives as much as a task's whole life needs, and no more: with a real etcd that asks for a
//! certificate and a password.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use calico_mesos::calico::{Datastore, Pending, Settled, Terms};
use calico_mesos::config::Config;
use calico_mesos::rig::daemons::{Etcd, EtcdOptions};
use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, Permission, PutOptions, TlsOptions,
};

use crate::certificates::{Authority, Pair};
use crate::datastore::*;

const ROLE: &str = "calico-mesos";

/// etcd with everything that a careful operator asks of it, and our user with the script's role.
struct Guarded {
    root: Client,
    ours: Client,
    config: Config,
    _etcd: Etcd,
    _dir: tempfile::TempDir,
}

async fn client(endpoint: &str, ca: &Path, pair: &Pair, user: Option<(&str, &str)>) -> Client {
    let read = |path: &Path| std::fs::read(path).unwrap();
    let tls = TlsOptions::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(read(ca)))
        .identity(Identity::from_pem(read(&pair.0), read(&pair.1)));
    let mut options = ConnectOptions::new().with_tls(tls);
    if let Some((name, password)) = user {
        options = options.with_user(name, password);
    }
    Client::connect([endpoint], Some(options)).await.unwrap()
}

/// What the script asks etcdctl for, a line a call.
fn calls(dir: &Path, arguments: &[&str]) -> Vec<String> {
    let program = dir.join("etcdctl");
    let log = dir.join("calls");
    let text = format!(
        "#!/bin/sh\n[ \"$1 $2\" != 'role get' ] || exit 1\nprintf '%s\\n' \"$*\" >> '{}'\n",
        log.display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "mesos", "etcd-role.sh"].iter().collect();
    let path = format!("{}:/usr/bin:/bin", dir.display());
    let output = Command::new(script).args(arguments).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What etcdctl would do.
async fn obey(root: &mut Client, calls: &[String]) {
    for call in calls {
        let words: Vec<&str> = call.split(' ').collect();
        let permission = |kind: &str, key: &str| match kind {
            "read" => Permission::read(key),
            "readwrite" => Permission::read_write(key),
            other => panic!("{other} is no permission"),
        };
        match words[..] {
            ["role", "add", role] => {
                root.role_add(role).await.unwrap();
            }
            ["role", "grant-permission", "--prefix=true", role, kind, key] => {
                root.role_grant_permission(role, permission(kind, key).with_prefix()).await.unwrap();
            }
            ["role", "grant-permission", role, kind, key] => {
                root.role_grant_permission(role, permission(kind, key)).await.unwrap();
            }
            _ => panic!("unexpected: etcdctl {call}"),
        }
    }
}

async fn guarded(arguments: &[&str]) -> Guarded {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("ca"));
    let (server, pair) = (authority.server("server"), authority.client("agent"));
    let tls = Some((server.0, server.1, authority.ca.clone()));
    let options = EtcdOptions { tls, arguments: Vec::new() };
    let etcd = Etcd::start(&dir.path().join("etcd"), options).await.unwrap();
    let mut root = client(&etcd.endpoint, &authority.ca, &pair, None).await;
    obey(&mut root, &calls(dir.path(), arguments)).await;
    root.user_add("root", "master", None).await.unwrap();
    root.role_add("root").await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    root.user_add(ROLE, "se cret", None).await.unwrap();
    root.user_grant_role(ROLE, ROLE).await.unwrap();
    root.auth_enable().await.unwrap();
    let root = client(&etcd.endpoint, &authority.ca, &pair, Some(("root", "master"))).await;
    let ours = client(&etcd.endpoint, &authority.ca, &pair, Some((ROLE, "se cret"))).await;

    let password = dir.path().join("password");
    std::fs::write(&password, "se cret\n").unwrap();
    let mut config = Config::default();
    config.etcd.endpoints = vec![format!("https://localhost:{}", etcd.address().port())];
    config.etcd.ca_file = Some(authority.ca.clone());
    (config.etcd.cert_file, config.etcd.key_file) = (Some(pair.0), Some(pair.1));
    (config.etcd.username, config.etcd.password_file) = (Some(ROLE.into()), Some(password));
    config.node.name = Some("a".into());
    config.paths.state = dir.path().into();
    config.paths.ipam_lock = dir.path().join("lock");
    Guarded { root, ours, config, _etcd: etcd, _dir: dir }
}

/// Everything that is done to the datastore in the life of a task, whatever happens in it.
async fn a_whole_life(config: &Config) {
    let mut datastore = Datastore::connect(config).await.unwrap();
    let overview = datastore.overview("a", &["dev".into()]).await.unwrap();
    assert!(overview.node_known);
    // The profile and the host's first block are made, too.
    let identity = task("a");
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    let committed = datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    assert_eq!(datastore.list_endpoints("a").await.unwrap().len(), 1);
    let holder = datastore.holder_of(committed.addresses[0]).await.unwrap().unwrap();
    assert_eq!(holder.node.as_deref(), Some("a"));

    // What the cleaner asks, and who decommissions a node.
    assert_eq!(datastore.inventory("a", &[]).await.unwrap().endpoints.len(), 1);
    let whole = datastore.whole_inventory("a").await.unwrap();
    assert!(datastore.signs_of_life("a").await.unwrap().known);
    assert!(!datastore.give_up_block("a", &whole.blocks[0]).await.unwrap(), "an address in it is in use");

    // A write whose answer is lost is ruled out.
    let lost = task("a");
    let prepared = datastore.prepare(&lost, &auto()).await.unwrap();
    let noted: Arc<Mutex<Option<Pending>>> = Arc::default();
    let note = noted.clone();
    let terms = Terms {
        note: Box::new(move |pending| {
            *note.lock().unwrap() = Some(pending.clone());
            Err(std::io::ErrorKind::Other.into())
        }),
        ..Terms::default()
    };
    datastore.commit(prepared, MAC, terms).await.unwrap_err();
    let pending = noted.lock().unwrap().take().unwrap();
    assert_eq!(datastore.settle(&lost, &pending).await.unwrap(), Settled::Fenced);

    for identity in [&identity, &lost] {
        datastore.release(identity).await.unwrap();
    }
    // A datastore that has lost a living task gets it back.
    let lost = datastore.write_again(&identity, &committed.kept).await.unwrap();
    assert!(lost.missing.len() == 3 && lost.conflicts.is_empty(), "{lost:?}");
    datastore.release(&identity).await.unwrap();
    assert!(datastore.list_endpoints("a").await.unwrap().is_empty());
    assert!(datastore.give_up_block("a", &whole.blocks[0]).await.unwrap());
}

#[tokio::test]
async fn a_whole_life_with_the_smallest_role_and_nothing_beyond() {
    let mut guarded = guarded(&[]).await;
    let (root, ours) = (&mut guarded.root, &mut guarded.ours);
    let foreign = [
        (format!("{RESOURCES}/clusterinformations/default"), r#"{"spec":{"datastoreReady":true}}"#),
        (format!("{RESOURCES}/nodes/a"), r#"{"metadata":{"name":"a"},"spec":{}}"#),
        (format!("{RESOURCES}/ippools/p"), r#"{"metadata":{"name":"p"},"spec":{"cidr":"10.65.0.0/24"}}"#),
        (format!("{IPAM}/config"), r#"{"auto_allocate_blocks":true}"#),
        (format!("{IPAM}/handle/k8s-pod-network.1"), r#"{"block":{}}"#),
    ];
    for (key, value) in &foreign {
        root.put(key.as_str(), *value, None).await.unwrap();
    }
    a_whole_life(&guarded.config).await;

    let secrets = [
        format!("{RESOURCES}/workloadendpoints/kube-system/x"),
        format!("{RESOURCES}/globalnetworkpolicies/x"),
        format!("{RESOURCES}/networkpolicies/default/x"),
        "/registry/secrets/x".to_owned(),
        "/calico".to_owned(),
    ];
    for key in &secrets {
        root.put(key.as_str(), "secret", None).await.unwrap();
        assert!(ours.get(key.as_str(), None).await.is_err(), "{key} can be read");
    }
    let all = GetOptions::new().with_prefix();
    assert!(ours.get("/calico/", Some(all)).await.is_err(), "everything can be read at once");
    for key in secrets.iter().chain(foreign.iter().map(|(key, _)| key)) {
        let put = ours.put(key.as_str(), "x", Some(PutOptions::new())).await;
        assert!(put.is_err(), "{key} can be written");
        assert!(ours.delete(key.as_str(), None).await.is_err(), "{key} can be deleted");
    }
    assert!(ours.user_list().await.is_err() && ours.role_add("x").await.is_err());
}

#[tokio::test]
async fn a_host_without_calico_node_makes_what_is_missing() {
    let mut guarded = guarded(&["--local", ROLE]).await;
    let mut datastore = Datastore::connect(&guarded.config).await.unwrap();
    let made = datastore.initialise_local("a", &["10.65.0.0/24".parse().unwrap()]).await.unwrap();
    assert!(made.cluster && made.node && made.pools.len() == 1);
    a_whole_life(&guarded.config).await;
    assert!(guarded.ours.put(format!("{RESOURCES}/globalnetworkpolicies/x"), "x", None).await.is_err());
}
