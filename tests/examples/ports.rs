//! Several ports: at the task's own address, and at the host's.

use std::net::IpAddr;

use crate::world::{sh, Task};
use crate::{fetched, in_consul, world_with_consul, Example, HOST};

/// The two web servers of the examples of this file.
async fn serves(address: &str, shop: u16, metrics: u16) {
    assert_eq!(fetched(&format!("http://{address}:{shop}/")).await, "shop\n");
    assert_eq!(fetched(&format!("http://{address}:{metrics}/")).await, "orders 17\n");
}

fn address(task: &Task<'_>) -> String {
    let [address] = task.addresses().try_into().unwrap();
    assert!(address.parse::<IpAddr>().is_ok() && address != HOST);
    address
}

pub async fn service_ports(example: Example) {
    let world = world_with_consul().await;
    let task = example.running(&world).await;
    let address = address(&task);
    serves(&address, 80, 9100).await;
    let metrics = vec!["metrics".to_owned()];
    let expected = [(address.clone(), 80, vec![]), (address, 9100, metrics)];
    assert_eq!(in_consul(&world, "shop-prod-direct").await, expected);
    task.is_over().await;
}

/// Both kinds of a port of the host: the same two servers behind them, known by the same names.
async fn are_forwarded(example: Example, service: &str, inside: Option<[u16; 2]>) {
    let world = world_with_consul().await;
    let [shop, metrics] = example.ports().try_into().unwrap();
    let task = example.running(&world).await;
    serves(HOST, shop, metrics).await;
    let [own_shop, own_metrics] = inside.unwrap_or([shop, metrics]);
    serves(&address(&task), own_shop, own_metrics).await;
    let known = in_consul(&world, service).await;
    let of_host = |(_, port, tags): &(String, u64, Vec<String>)| (*port, tags.join(","));
    let mut known: Vec<_> = known.iter().map(of_host).collect();
    known.sort();
    let mut expected = [(shop.into(), "http".to_owned()), (metrics.into(), "metrics".to_owned())];
    expected.sort();
    assert_eq!(known, expected);
    task.is_over().await;
    assert_eq!(sh(&format!("curl -s -m 5 http://{HOST}:{shop}/; echo $?")), "7\n", "nobody is there");
}

pub async fn port_mappings(example: Example) {
    are_forwarded(example, "mapped-prod", Some([80, 9100])).await;
}

pub async fn host_ports(example: Example) {
    are_forwarded(example, "assigned-prod", None).await;
}
