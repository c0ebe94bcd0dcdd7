//! What clients see of their containers.

use serde_json::json;

use crate::lab::Lab;

#[tokio::test]
async fn inspect_and_list_show_the_clients_own_settings_with_calicos_address() {
    let lab = Lab::new().await;
    let id = lab.run(&["--name", "web", "-p", "18080:80", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    let seen = lab.inspect("web");
    assert_eq!(seen["HostConfig"]["NetworkMode"], "default");
    assert_eq!(seen["HostConfig"]["Runtime"], "runc");
    assert_eq!(seen["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "18080");
    assert_eq!(seen["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], "18080");
    let network = &seen["NetworkSettings"]["Networks"]["bridge"];
    assert_eq!(network["IPAddress"], json!(address));
    assert!(lab.ok(&["ps"]).contains("18080->80/tcp"), "{}", lab.ok(&["ps"]));
    assert_eq!(lab.ok(&["ps", "-q", "--no-trunc"]), id);
    let refused = lab.fails(&["network", "connect", "host", "web"]);
    assert!(refused.contains("Calico"), "{refused}");
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}
