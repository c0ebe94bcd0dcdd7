//! The datastore layer alone: Calico's programs take our records for their own, we go on in theirs.

use calico_mesos::calico::{AddressRequest, Family, NamedPort};

use crate::datastore::*;
use crate::programs::{self, Peers};

#[tokio::test]
async fn calicos_programs_take_our_records_for_their_own() {
    programs::folder();
    let mut world = World::empty().await;
    let peers = Peers::new(&world.etcd.endpoint);
    peers.prepare_check().await;
    let mut datastore = world.connect("agent-1").await;
    let pools = ["10.65.0.0/24".parse().unwrap(), "fd00:65::/64".parse().unwrap()];
    datastore.initialise_local("agent-1", &pools).await.unwrap();
    let identity = task("agent-1");
    let mut wanted = wants(&[AddressRequest::Auto(Family::V4), AddressRequest::Auto(Family::V6)]);
    wanted.labels = [("team/name".to_owned(), "a b".to_owned())].into();
    wanted.ports = vec![NamedPort { name: "http".into(), protocol: "tcp".into(), port: 80 }];
    let committed = world.launch(&identity, &wanted).await.unwrap();
    let address = committed.addresses[0].to_string();

    let listed = peers.calicoctl("get wep -o wide").await;
    for part in [&identity.workload, &identity.interface, &format!("{address}/32"), "dev", "agent-1"] {
        assert!(listed.contains(part), "{part} is missing in\n{listed}");
    }
    let shown = peers.calicoctl(&format!("ipam show --ip={address}")).await;
    assert!(shown.contains(&identity.task_id), "{shown}");
    peers.check_ipam().await;
    // Every read-modify-write validates the whole object.
    let name = format!("agent--1-mesos-{}-eth0", identity.workload.replace('-', "--"));
    peers.calicoctl(&format!("label wep {name} seen=yes")).await;
    for kind in [
        "profile dev",
        "ippool mesos-10-65-0-0-24",
        "ippool mesos-fd00-65---64",
        "node agent-1",
        "clusterinformation default",
    ] {
        let yaml = peers.calicoctl(&format!("get {kind} -o yaml")).await;
        if kind.starts_with("profile") || kind.starts_with("ippool mesos-10") || kind.starts_with("node") {
            let file = world.dir.path().join("object.yaml");
            std::fs::write(&file, yaml).unwrap();
            peers.calicoctl(&format!("replace -f {}", file.display())).await;
        }
    }

    // Their plugin goes on in our block, we in theirs, and either takes back its own.
    let lock = world.dir.path().join("ipam.lock");
    let answer = peers.ipam("ADD", "agent-1", "00000001-77aa", &lock).await;
    let block = answer["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
    assert_eq!(next(&address), block);
    let second = task("agent-1");
    let ours = world.launch(&second, &auto()).await.unwrap().addresses[0].to_string();
    assert_eq!(next(&block), ours);
    peers.ipam("DEL", "agent-1", "00000001-77aa", &lock).await;
    world.connect("agent-1").await.release(&second).await.unwrap();
    peers.check_ipam().await;
    world.connect("agent-1").await.release(&identity).await.unwrap();
    peers.check_ipam().await;
    let left = world.ipam().await;
    assert!(
        !left.keys().any(|key| key.contains("/handle/") || key.contains("/workloadendpoints/")),
        "{left:?}"
    );
}

/// The address behind this one.
fn next(address: &str) -> String {
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    std::net::Ipv4Addr::from(u32::from(address) + 1).to_string()
}
