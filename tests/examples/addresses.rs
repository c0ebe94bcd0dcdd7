//! Addresses, profiles, names, and where a task may run.

use calico_mesos::mesos::messages::TaskState;
use serde_json::{json, Value};

use crate::world::{sh, Task, World};
use crate::{fetched, health, in_consul, world, world_with, world_with_consul, Example};

/// The specification of the only endpoint.
async fn endpoint(world: &World) -> Value {
    let [endpoint] = world.endpoints().await.try_into().unwrap();
    endpoint["spec"].clone()
}

fn address(task: &Task<'_>) -> String {
    let [address] = task.addresses().try_into().unwrap();
    address
}

fn answers(address: &str) {
    assert!(sh(&format!("busybox ping -c 1 -W 5 {address}")).contains(" 0% packet loss"), "{address}");
}

pub async fn testapp(example: Example) {
    let world = world_with_consul().await;
    let task = example.running(&world).await;
    let address = address(&task);
    assert!(world.stack.pools[0].contains(&address.parse::<std::net::IpAddr>().unwrap()), "{address}");
    answers(&address);
    let endpoint = endpoint(&world).await;
    assert_eq!(endpoint["ipNetworks"], json!([format!("{address}/32")]));
    assert_eq!((&endpoint["profiles"], &endpoint["orchestrator"]), (&json!(["dev"]), &json!("mesos")));
    assert!(world.get("/calico/resources/v3/projectcalico.org/profiles/dev").await.is_some());
    let interface = endpoint["interfaceName"].as_str().unwrap();
    assert!(sh(&format!("ip -o link show {interface}")).contains("ee:ee:ee:ee:ee:ee"));
    assert_eq!(in_consul(&world, "testapp-direct").await, [(address, 3000, vec![])]);
    task.is_over().await;
    use TaskState::*;
    assert_eq!(task.states(), [TaskStarting, TaskRunning, TaskKilling, TaskKilled]);
}

/// A deployment as `upgradeStrategy` has it, old task first; and what comes of the default.
pub async fn static_address(example: Example) {
    let capacity = json!({"minimumHealthCapacity": 0, "maximumOverCapacity": 0});
    assert_eq!(example.app["upgradeStrategy"], capacity);
    let wanted = example.app["env"]["CALICO_IP"].as_str().unwrap();
    let (network, _) = wanted.rsplit_once('.').unwrap();
    let pool = format!("{network}.0/24").parse().unwrap();
    let world = world_with(|stack| stack.pools = vec![pool], |_| ()).await;
    let old = example.running(&world).await;
    assert_eq!(address(&old), wanted);
    assert_eq!(endpoint(&world).await["ipNetworks"], json!([format!("{wanted}/32")]));
    answers(wanted);

    let too_early = world.launch(&example.app).await;
    assert!(too_early.fails().await.contains("CM-IP-TAKEN"));
    too_early.executor_exit().await;

    old.is_over().await;
    let new = world.running(&example.app).await;
    assert_eq!(address(&new), wanted);
    new.is_over().await;
}

pub async fn two_profiles(example: Example) {
    let world = world().await;
    let task = example.running(&world).await;
    assert_eq!(endpoint(&world).await["profiles"], json!(["web", "monitored"]));
    for profile in ["web", "monitored"] {
        let key = format!("/calico/resources/v3/projectcalico.org/profiles/{profile}");
        assert!(world.get(&key).await.is_some(), "there is no profile {profile}");
    }
    answers(&address(&task));
    task.is_over().await;
}

/// The pool that the app names gives the address, though another one serves the node as well.
pub async fn pool(example: Example) {
    let world = world().await;
    let refused = world.launch(&example.app).await;
    let message = refused.fails().await;
    assert!(
        message.contains("CALICO_POOL names public, which is not an IP pool of this cluster"),
        "{message}"
    );
    assert!(message.contains("CM-POOL-INVALID"), "{message}");
    refused.executor_exit().await;
    assert_eq!(world.endpoints().await, Vec::<Value>::new());

    let key = "/calico/resources/v3/projectcalico.org/ippools/public";
    world.put(key, r#"{"metadata":{"name":"public"},"spec":{"cidr":"10.203.0.0/24","blockSize":28}}"#).await;
    let task = example.running(&world).await;
    let address = address(&task);
    assert!(address.starts_with("10.203.0."), "{address}");
    assert_eq!(endpoint(&world).await["ipNetworks"], json!([format!("{address}/32")]));
    task.is_over().await;
}

pub async fn dual_stack(example: Example) {
    let world = world_with(|stack| stack.pools.push("fd00:202::/64".parse().unwrap()), |_| ()).await;
    let task = example.running(&world).await;
    let [v4, v6] = task.addresses().try_into().unwrap();
    assert!(v4.starts_with("10.202.") && v6.starts_with("fd00:202:"), "{v4} {v6}");
    assert_eq!(fetched(&format!("http://{v4}/")).await, fetched(&format!("http://[{v6}]/")).await);
    task.is_over().await;
}

pub async fn nested_id(example: Example) {
    let world = world_with_consul().await;
    let task = example.running(&world).await;
    assert_eq!(example.info.name, "web.cart.shop");
    let workload = endpoint(&world).await["workload"].as_str().unwrap().to_owned();
    assert_eq!(workload, format!("shop-cart-web.{}", task.launched.container_id));
    let address = address(&task);
    assert_eq!(in_consul(&world, "web-cart-shop-direct").await, [(address.clone(), 80, vec![])]);
    fetched(&format!("http://{address}/")).await;
    task.is_over().await;
}

pub async fn calico_network(example: Example) {
    let world = world().await;
    assert_eq!(example.app.get("env"), None);
    // What others find without Marathon: the container's port, at the address of the status.
    assert_eq!(example.ports(), [80]);
    let task = example.running(&world).await;
    assert_eq!(endpoint(&world).await["profiles"], json!(["dev"]));
    fetched(&format!("http://{}/", address(&task))).await;
    health::becomes_well(&task).await;
    task.is_over().await;
}

/// Which agents are offered is Marathon's business: the words are those of our sample of an agent's flags.
pub async fn constraints(example: Example) {
    assert_eq!(example.app["constraints"], json!([["calico", "LIKE", "true"]]));
    let flags = include_str!("../../mesos/agent-flags.env");
    assert!(flags.contains(r#""constraints": [["calico", "LIKE", "true"]]"#));
    assert!(flags.contains("MESOS_ATTRIBUTES=calico:true"));
    let world = world().await;
    let task = example.running(&world).await;
    answers(&address(&task));
    task.is_over().await;
}
