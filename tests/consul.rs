//! What we register is what `dig` sees, and what we remove is gone: with a real Consul.

mod kit;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use calico_mesos::config::Config;
use calico_mesos::consul::{Client, ConsulError, Health, Instance, Service};
use calico_mesos::error::chain;
use calico_mesos::names::{service_name, ContainerId};
use calico_mesos::rig::daemons::{find_consul, free_port, Consul, ConsulOptions};

use kit::faults::Freeze;
use kit::wait::within;

struct Peer {
    consul: Consul,
    client: Client,
    _dir: tempfile::TempDir,
}

async fn peer() -> Peer {
    let dir = tempfile::tempdir().unwrap();
    let options = ConsulOptions { any_dns_port: true, ..Default::default() };
    let consul = Consul::start(dir.path(), options).await.unwrap();
    let client = client(&consul.url());
    Peer { consul, client, _dir: dir }
}

fn client(address: &str) -> Client {
    let mut config = Config::default();
    config.consul.address = address.to_owned();
    Client::new(&config).unwrap()
}

fn direct(app: &str, addresses: &[&str], ports: &[(u16, Option<String>)]) -> Vec<Service> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let container = ContainerId::random();
    let name = service_name(app);
    let task_id = "a.task";
    Instance {
        name: &name,
        app_id: app,
        task_id,
        container: &container,
        node: "agent-1",
        since: "2026-08-22T10:11:12Z",
        addresses: &addresses,
        ports,
    }
    .direct()
}

/// The sorted lines of `dig +short`.
fn dig(consul: &Consul, kind: &str, name: &str) -> Vec<String> {
    let output = Command::new("dig")
        .args(["@127.0.0.1", "-p", &consul.dns.port().to_string(), "+short", kind, name])
        .output()
        .expect("dig is installed by scripts/setup.sh");
    let mut lines: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Within this time the agent's entries are in the catalogue, and a leader has set up its ACLs.
const FOLLOWS: Duration = Duration::from_secs(10);

/// The agent hands its entries to the catalogue, which DNS reads, a moment later.
async fn dig_until(consul: &Consul, kind: &str, name: &str, expected: &[&str]) {
    within(FOLLOWS, format!("{kind} {name} is {expected:?}"), async || {
        let found = dig(consul, kind, name);
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn instances_are_resolved_and_removed_one_by_one() {
    let Peer { consul, client, _dir } = peer().await;
    let one = direct("/prod/web", &["192.168.17.64"], &[(3000, None)]);
    let two = direct("/prod/web", &["192.168.17.65"], &[(3000, None)]);
    for service in one.iter().chain(&two) {
        client.register(service).await.unwrap();
    }
    let name = "web-prod-direct.service.consul";
    dig_until(&consul, "A", name, &["192.168.17.64", "192.168.17.65"]).await;
    let srv = dig(&consul, "SRV", name);
    assert!(srv.len() == 2 && srv.iter().all(|line| line.split(' ').nth(2) == Some("3000")), "{srv:?}");

    assert!(client.deregister(&one[0].id).await.unwrap());
    dig_until(&consul, "A", name, &["192.168.17.65"]).await;
    assert!(!client.deregister(&one[0].id).await.unwrap(), "it was there once");
    let left = client.services().await.unwrap();
    assert_eq!(left, two);
    client.deregister(&two[0].id).await.unwrap();
    dig_until(&consul, "A", name, &[]).await;
}

#[tokio::test]
async fn two_families_and_named_ports() {
    let Peer { consul, client, _dir } = peer().await;
    let ports = [(80, None), (443, Some("https".to_owned()))];
    for service in direct("testapp", &["192.168.17.64", "fd00::64"], &ports) {
        client.register(&service).await.unwrap();
    }
    let name = "testapp-direct.service.consul";
    dig_until(&consul, "A", name, &["192.168.17.64"]).await;
    dig_until(&consul, "AAAA", name, &["fd00::64"]).await;
    let srv = dig(&consul, "SRV", "https.testapp-direct.service.consul");
    assert!(srv.len() == 2 && srv.iter().all(|line| line.contains(" 443 ")), "{srv:?}");
}

#[tokio::test]
async fn only_healthy_instances_are_resolved_and_a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = ConsulOptions { any_dns_port: true, persistent: true, ..Default::default() };
    let mut consul = Consul::start(dir.path(), options).await.unwrap();
    let client = client(&consul.url());
    let health = |healthy, why: &str| Health { healthy, why: why.to_owned() };
    let [checked, plain]: [Service; 2] =
        ["192.168.17.64", "192.168.17.65"].map(|address| direct("web", &[address], &[(80, None)]).remove(0));
    let checked = Service { health: Some(health(false, "not yet")), ..checked };
    client.register(&checked).await.unwrap();
    client.register(&plain).await.unwrap();
    let name = "web-direct.service.consul";
    dig_until(&consul, "A", name, &["192.168.17.65"]).await;

    assert!(client.report(&checked.id, &health(true, "well")).await.unwrap());
    dig_until(&consul, "A", name, &["192.168.17.64", "192.168.17.65"]).await;
    consul.kill();
    consul.restart().await.unwrap();
    dig_until(&consul, "A", name, &["192.168.17.64", "192.168.17.65"]).await;
    assert!(client.report(&checked.id, &health(false, &"ill ".repeat(1000))).await.unwrap());
    dig_until(&consul, "A", name, &["192.168.17.65"]).await;
    consul.stop().await;
    consul.restart().await.unwrap();
    dig_until(&consul, "A", name, &["192.168.17.65"]).await;

    assert!(!client.report("calico-mesos-nobody", &health(true, "")).await.unwrap());
    assert!(!client.report(&plain.id, &health(true, "")).await.unwrap(), "it has no check");
    client.deregister(&checked.id).await.unwrap();
    assert!(!client.report(&checked.id, &health(true, "")).await.unwrap(), "the check outlives its entry");
}

#[tokio::test]
async fn another_registrator_is_noticed() {
    let Peer { consul: _consul, client, _dir } = peer().await;
    let container = ContainerId::random();
    let ours = Instance {
        name: "testapp",
        app_id: "/testapp",
        task_id: "testapp.1",
        container: &container,
        node: "agent-1",
        since: "2026-08-22T10:11:12Z",
        addresses: &[],
        ports: &[],
    }
    .host("10.0.0.1".parse().unwrap(), &Default::default())
    .remove(0);
    client.register(&ours).await.unwrap();
    assert!(!client.has_foreign_instance("testapp").await.unwrap());

    let foreign = Service { id: "somebody".into(), ..ours.clone() };
    client.register(&foreign).await.unwrap();
    wait_for_foreign(&client, "testapp", true).await;
    assert!(!client.has_foreign_instance("other").await.unwrap());
    client.deregister("somebody").await.unwrap();
    wait_for_foreign(&client, "testapp", false).await;

    let mesos_consul = Service { id: "mesos-consul:h:web:31000".into(), name: "web".into(), ..ours };
    client.register(&mesos_consul).await.unwrap();
    assert!(client.has_foreign_instance("testapp").await.unwrap());
}

async fn wait_for_foreign(client: &Client, name: &str, expected: bool) {
    let follows = async || client.has_foreign_instance(name).await.unwrap() == expected;
    within(FOLLOWS, format!("the catalogue has a foreign {name}: {expected}"), follows).await;
}

#[tokio::test]
async fn no_connection_is_kept() {
    let Peer { consul, client, _dir } = peer().await;
    client.services().await.unwrap();
    let port = format!(":{:04X}", consul.http.port());
    let open = || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        // Third column: the peer; fourth: 01 is "established".
        let ours = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[2].ends_with(&port) && words[3] == "01"
        };
        table.lines().filter(ours).count()
    };
    within(Duration::from_secs(2), "no connection is open", async || open() == 0).await;
}

#[tokio::test]
async fn a_consul_that_is_down_or_hangs_is_told() {
    let Peer { mut consul, client, _dir } = peer().await;
    consul.freeze();
    let limit = Duration::from_millis(300);
    assert!(tokio::time::timeout(limit, client.deregister("x")).await.is_err());
    consul.thaw();
    client.deregister("x").await.unwrap();

    consul.kill();
    let error = client.deregister("x").await.unwrap_err();
    assert!(chain(&error).contains(&consul.url()), "{}", chain(&error));
    consul.restart().await.unwrap();
    client.deregister("x").await.unwrap();
}

#[tokio::test]
async fn the_token_comes_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (consul, secret) = with_acls(dir.path()).await;
    let health = Health { healthy: true, why: String::new() };
    let service = direct("testapp", &["10.0.0.1"], &[]).remove(0);
    let service = &Service { health: Some(health.clone()), ..service };
    let anonymous = client(&consul.url());
    let error = anonymous.register(service).await.unwrap_err();
    assert!(matches!(error, ConsulError::Refused { status: 403, .. }), "{error}");

    let client = with_token(&consul, dir.path(), secret);
    // The management token is made when the leader has finished setting up ACLs.
    let register = async || client.register(service).await.map_err(|error| chain(&error));
    within(FOLLOWS, "the token may register", register).await;
    // Not taken for the answer to a check that Consul does not have, which leads to a new registration.
    let error = anonymous.report(&service.id, &health).await.unwrap_err();
    assert!(matches!(error, ConsulError::Refused { status: 403, .. }), "{error}");
    assert!(!chain(&error).contains(secret));
}

/// A request of an operator's, or of somebody with a token: status and body.
fn curl(consul: &Consul, token: &str, method: &str, path: &str, body: &str) -> (String, String) {
    let url = format!("{}{path}", consul.url());
    let header = format!("X-Consul-Token: {token}");
    let output = Command::new("curl")
        .args(["-s", "-w", "\n%{http_code}", "-X", method, "-H", &header, "-d", body, &url])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[tokio::test]
async fn the_policy_in_mesos_is_enough_and_gives_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (consul, master) = with_acls(dir.path()).await;
    let rules = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/mesos/consul-policy.hcl")).unwrap();
    let policy = serde_json::json!({ "Name": "calico-mesos", "Rules": rules }).to_string();
    within(FOLLOWS, "the policy is made", async || {
        let (status, body) = curl(&consul, master, "PUT", "/v1/acl/policy", &policy);
        if status == "200" {
            Ok(())
        } else {
            Err(body)
        }
    })
    .await;
    let token = serde_json::json!({ "Policies": [{ "Name": "calico-mesos" }] }).to_string();
    let (_, body) = curl(&consul, master, "PUT", "/v1/acl/token", &token);
    let token: serde_json::Value = serde_json::from_str(&body).unwrap();
    let token = token["SecretID"].as_str().unwrap();
    let client = with_token(&consul, dir.path(), token);

    let health = Some(Health { healthy: false, why: "not yet".into() });
    let service = Service { health, ..direct("/prod/web", &["10.0.0.1"], &[]).remove(0) };
    client.register(&service).await.unwrap();
    let healthy = Health { healthy: true, why: "it answers".into() };
    assert!(client.report(&service.id, &healthy).await.unwrap());
    assert_eq!(client.services().await.unwrap().len(), 1);
    let foreign = Service { id: "somebody".into(), health: None, ..service.clone() };
    client.register(&foreign).await.unwrap();
    wait_for_foreign(&client, &service.name, true).await;
    client.deregister(&foreign.id).await.unwrap();
    client.deregister(&service.id).await.unwrap();
    assert_eq!(client.services().await.unwrap(), []);

    for (method, path, body) in [
        ("PUT", "/v1/kv/x", "y"),
        ("GET", "/v1/acl/tokens", ""),
        ("PUT", "/v1/session/create", "{}"),
        ("PUT", "/v1/agent/leave", ""),
        ("PUT", "/v1/agent/maintenance?enable=true", ""),
        ("PUT", "/v1/event/fire/x", ""),
        ("GET", "/v1/agent/self", ""),
        ("POST", "/v1/query", r#"{"Name":"x","Service":{"Service":"x"}}"#),
        ("PUT", "/v1/catalog/register", r#"{"Node":"other","Address":"10.9.9.9"}"#),
    ] {
        let (status, answer) = curl(&consul, token, method, path, body);
        assert_eq!(status, "403", "{method} {path}: {answer}");
    }
}

/// Whoever shows no token gets nothing; the second is the operator's own.
async fn with_acls(dir: &Path) -> (Consul, &'static str) {
    let master = "6d0a3b9e-8a49-4a83-9d3c-5f6a6e0c1b11";
    let acl = format!(
        "acl {{\n enabled = true\n default_policy = \"deny\"\n tokens {{ initial_management = \"{master}\" agent = \"{master}\" }}\n}}"
    );
    let options = ConsulOptions { configuration: Some(acl), any_dns_port: true, ..Default::default() };
    (Consul::start(dir, options).await.unwrap(), master)
}

fn with_token(consul: &Consul, dir: &Path, token: &str) -> Client {
    let token_file = dir.join("token");
    fs::write(&token_file, format!("{token}\n")).unwrap();
    let mut config = Config::default();
    config.consul.address = consul.url();
    config.consul.token_file = Some(token_file);
    Client::new(&config).unwrap()
}

#[tokio::test]
async fn certificates_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    run_consul(dir.path(), &["tls", "ca", "create"]);
    run_consul(dir.path(), &["tls", "cert", "create", "-server"]);
    run_consul(dir.path(), &["tls", "cert", "create", "-client"]);
    let https = free_port().unwrap();
    let configuration = format!(
        "ports {{ https = {https} }}\ntls {{ https {{\n ca_file = {:?}\n cert_file = {:?}\n key_file = {:?}\n verify_incoming = true\n}} }}",
        path("consul-agent-ca.pem"),
        path("dc1-server-consul-0.pem"),
        path("dc1-server-consul-0-key.pem"),
    );
    let options =
        ConsulOptions { configuration: Some(configuration), any_dns_port: true, ..Default::default() };
    let consul = Consul::start(&path("agent"), options).await.unwrap();

    let mut config = Config::default();
    config.consul.address = format!("https://localhost:{https}/");
    config.consul.ca_file = Some(path("consul-agent-ca.pem"));
    let failed = async |config: &Config, says: &str, advice: &str| {
        let error = match Client::new(config) {
            Ok(client) => client.services().await.expect_err("Consul wants to know who we are"),
            Err(error) => error,
        };
        let message = chain(&error);
        assert!(message.contains("cannot list the services: ") && message.contains(says), "{message}");
        assert!(message.contains(advice) && message.contains("[consul] in config.toml"), "{message}");
    };
    let (alert, unknown) = ("refuses the TLS connection", "fails on this side");
    failed(&config, alert, "cert_file and key_file").await;
    config.consul.cert_file = Some(path("dc1-client-consul-0.pem"));
    config.consul.key_file = Some(path("dc1-client-consul-0-key.pem"));
    assert_eq!(Client::new(&config).unwrap().services().await.unwrap(), []);

    // Each side certified by an authority that the other does not trust.
    let other = path("other");
    fs::create_dir(&other).unwrap();
    run_consul(&other, &["tls", "ca", "create"]);
    run_consul(&other, &["tls", "cert", "create", "-client"]);
    let mut stranger = config.clone();
    stranger.consul.cert_file = Some(other.join("dc1-client-consul-0.pem"));
    stranger.consul.key_file = Some(other.join("dc1-client-consul-0-key.pem"));
    failed(&stranger, alert, "cert_file and key_file").await;
    let mut untrusted = config.clone();
    untrusted.consul.ca_file = Some(other.join("consul-agent-ca.pem"));
    failed(&untrusted, unknown, "ca_file").await;
    // Consul's certificate does not name the address in its other form.
    let mut misnamed = config.clone();
    misnamed.consul.address = format!("https://[::ffff:127.0.0.1]:{https}");
    failed(&misnamed, "not valid for name", "the names in Consul's certificate").await;
    let mut plain = config.clone();
    plain.consul.address = format!("http://localhost:{https}");
    failed(&plain, "expects TLS", "https://").await;
    config.consul.address = consul.url().replace("http:", "https:");
    failed(&config, unknown, "address and ca_file").await;
}

fn run_consul(dir: &Path, arguments: &[&str]) {
    let program = find_consul().expect("scripts/consul.sh has run");
    let output = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
