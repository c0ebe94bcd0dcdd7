//! What a task with CALICO variables gets, and that nothing of it is left.

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::task::report::steps::Step;
use serde_json::json;
use tokio::net::UnixListener;

use crate::faults::reached;
use crate::world::{app, calico, sh, with, World};

const TESTAPP: &str = include_str!("../../marathon-examples/testapp.json");

#[tokio::test]
async fn the_testapp_lives_and_leaves_nothing() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let testapp: serde_json::Value = serde_json::from_str(TESTAPP).unwrap();
    let task = world.running(&testapp).await;

    let [address] = task.addresses().try_into().unwrap();
    let pool = world.stack.pools[0];
    assert!(pool.contains(&address.parse::<std::net::IpAddr>().unwrap()), "{address} is not in {pool}");

    let [endpoint] = world.endpoints().await.try_into().unwrap();
    assert_eq!(endpoint["spec"]["ipNetworks"], json!([format!("{address}/32")]));
    assert_eq!(endpoint["spec"]["profiles"], json!(["dev"]));
    assert_eq!(endpoint["spec"]["orchestrator"], "mesos");
    let interface = endpoint["spec"]["interfaceName"].as_str().unwrap();
    assert!(sh(&format!("ip -o link show {interface}")).contains("ee:ee:ee:ee:ee:ee"));
    assert!(world.get("/calico/resources/v3/projectcalico.org/profiles/dev").await.is_some());
    assert!(
        sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss"),
        "the host cannot reach its task"
    );

    world.registered("testapp-direct").await;
    let direct = world.consul("/v1/catalog/service/testapp-direct").await;
    assert_eq!(
        (&direct[0]["ServiceAddress"], &direct[0]["ServicePort"]),
        (&json!(address), &json!(3000)),
        "{direct}"
    );

    let status = task.kill().await;
    assert_eq!(status.state(), TaskState::TaskKilled, "{}", task.log());
    assert_eq!(
        task.states(),
        [TaskState::TaskStarting, TaskState::TaskRunning, TaskState::TaskKilling, TaskState::TaskKilled]
    );
    world.nothing_left().await;
}

#[tokio::test]
async fn the_first_instruction_sees_the_network() {
    let world = World::new().await;
    let script = "ip -o -4 addr show eth0 > /mnt/mesos/sandbox/eth0; ip route > /mnt/mesos/sandbox/route; \
                  cat /etc/hosts > /mnt/mesos/sandbox/hosts; hostname > /mnt/mesos/sandbox/hostname; \
                  hostname -i > /mnt/mesos/sandbox/own";
    let task = world.launch(&app("/first", script, calico())).await;
    let status = task.ends().await;
    assert_eq!(status.state(), TaskState::TaskFinished, "{}", task.log());
    let [address] = task.addresses().try_into().unwrap();
    let eth0 = task.file("eth0").await;
    assert!(eth0.contains(&format!("{address}/32")), "{eth0}");
    assert!(task.file("route").await.contains("default via 169.254.1.1 dev eth0"));
    let hosts = task.file("hosts").await;
    let hostname = task.file("hostname").await;
    assert!(hosts.contains(&format!("{address}\t{hostname}")), "{hosts}");
    assert_eq!(task.file("own").await.trim(), address);
    task.executor_exit().await;
    world.nothing_left().await;
}

fn with_parameters(mut app: serde_json::Value, parameters: &[(&str, &str)]) -> serde_json::Value {
    let list = parameters.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    app["container"]["docker"]["parameters"] = serde_json::Value::Array(list);
    app
}

#[tokio::test]
async fn the_hosts_file_has_the_names_of_the_task() {
    let world = World::new().await;
    let script = "cat /etc/hosts > /mnt/mesos/sandbox/hosts";
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let host = host.split_once('.').map_or(host.clone(), |(short, _)| format!("{host} {short}"));
    for (parameters, names) in [
        (
            &[("hostname", "web.prod"), ("domainname", "example.com"), ("add-host", "db:10.1.2.3")][..],
            "web.prod.example.com web",
        ),
        (&[("uts", "host"), ("add-host", "db:10.1.2.3")], &host),
    ] {
        let app = with_parameters(app("/named", script, calico()), parameters);
        let task = world.launch(&app).await;
        assert_eq!(task.ends().await.state(), TaskState::TaskFinished, "{}", task.log());
        let [address] = task.addresses().try_into().unwrap();
        let hosts = task.file("hosts").await;
        let end = format!("10.1.2.3\tdb\n{address}\t{names}\n");
        assert!(hosts.ends_with(&end), "{hosts}");
        task.executor_exit().await;
    }
    world.nothing_left().await;
}

/// Docker runs without a bridge here. 20.10 would write `<nil>` into the hosts file.
#[tokio::test]
async fn a_host_gateway_that_docker_does_not_have_fails_the_task_with_a_sentence() {
    let world = World::new().await;
    let app = with_parameters(app("/gateway", "sleep 1000", calico()), &[("add-host", "up:host-gateway")]);
    let task = world.launch(&app).await;
    let message = task.fails().await;
    assert!(message.contains("without a bridge") && message.contains("host-gateway-ip"), "{message}");
    task.executor_exit().await;
    world.nothing_left().await;
}

/// The daemon of this world has no `userns-remap`: what is remembered of its answer is changed, and the launch goes by
/// that without another question. `docker::elsewhere` has a real one.
#[tokio::test]
async fn a_docker_that_remaps_users_is_refused_before_anything_is_claimed() {
    let world = World::new().await;
    let first = world.running(&app("/before", "sleep 1000", calico())).await;
    first.kill().await;
    let said = world.config.paths.run.join("docker");
    // One daemon, one file.
    let files: Vec<_> = std::fs::read_dir(&said).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = files.try_into().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"remapped\":false"), "{text}");
    std::fs::write(&file, text.replace("\"remapped\":false", "\"remapped\":true")).unwrap();
    let pid = world.stack.docker.pid().unwrap();
    assert!(text.contains(&format!(" {pid} ")), "{text}");

    let task = world.launch(&app("/after", "sleep 1000", calico())).await;
    let message = task.fails().await;
    assert!(message.contains("CM-DOCKER") && message.contains("userns-remap"), "{message}");
    task.executor_exit().await;
    let audit = std::fs::read_to_string(world.config.paths.log.join("audit/current")).unwrap();
    assert!(audit.contains(&first.id) && !audit.contains(&task.id), "{audit}");
    // A task that wants nothing of Calico runs.
    let plain = world.launch(&app("/plain", "true", json!({}))).await;
    assert_eq!(plain.ends().await.state(), TaskState::TaskFinished, "{}", plain.log());
    plain.executor_exit().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn tasks_reach_each_other_and_explicit_addresses_are_kept() {
    let world = World::new().await;
    let pool = world.stack.pools[0];
    let wanted = pool.hosts().nth(700).unwrap().to_string();
    let server = world.running(&app("/server", "sleep 1000", with(calico(), "CALICO_IP", &wanted))).await;
    assert_eq!(server.addresses(), std::slice::from_ref(&wanted));
    let client = world
        .launch(&app(
            "/client",
            &format!("ping -c 1 -W 5 {wanted} && echo reached > /mnt/mesos/sandbox/result"),
            calico(),
        ))
        .await;
    assert_eq!(client.ends().await.state(), TaskState::TaskFinished, "{}", client.log());
    assert_eq!(client.file("result").await, "reached\n");

    let second = world.launch(&app("/second", "sleep 1000", with(calico(), "CALICO_IP", &wanted))).await;
    let message = second.fails().await;
    assert!(message.contains("CM-IP-TAKEN") && message.contains(&wanted), "{message}");
    assert!(
        message.contains("/server") && message.contains(&server.id),
        "the message does not name the holder: {message}"
    );
    assert!(message.contains("upgradeStrategy"), "{message}");
    let mut other = crate::world::task_info(&app("/x", "sleep 1000", with(calico(), "CALICO_IP", &wanted)));
    let variables = &mut other.command.as_mut().unwrap().environment.as_mut().unwrap().variables;
    variables.retain(|variable| !variable.name.starts_with("MARATHON_"));
    let other = world.launch_info(other).await;
    let message = other.fails().await;
    assert!(message.contains("CM-IP-TAKEN") && message.contains("CALICO_IP=auto"), "{message}");
    for word in ["upgradeStrategy", "Marathon", "minimumHealthCapacity"] {
        assert!(!message.contains(word), "a message for another framework speaks of Marathon: {message}");
    }
    other.executor_exit().await;

    server.kill().await;
    second.executor_exit().await;
    world.nothing_left().await;
    // Free again: the same address goes to the next task that asks for it.
    let third = world.running(&app("/third", "sleep 1000", with(calico(), "CALICO_IP", &wanted))).await;
    assert_eq!(third.addresses(), [wanted]);
    third.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn an_address_that_is_given_back_in_time_is_waited_for() {
    let world = World::with(
        |stack| {
            stack.config.insert("launch.ip_wait".into(), "\"20s\"".into());
        },
        |_| (),
    )
    .await;
    let wanted = world.stack.pools[0].hosts().nth(9).unwrap().to_string();
    let old = world.running(&app("/web", "sleep 1000", with(calico(), "CALICO_IP", &wanted))).await;
    let new = world.launch(&app("/web", "sleep 1000", with(calico(), "CALICO_IP", &wanted))).await;
    new.logs("waiting for it", 1).await;
    old.kill().await;
    new.reaches(TaskState::TaskRunning).await;
    assert_eq!(new.addresses(), [wanted]);
    new.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn a_task_has_an_address_of_each_family() {
    let world = World::with(
        |stack| stack.pools = vec!["192.168.0.0/16".parse().unwrap(), "fd00:65::/64".parse().unwrap()],
        |_| (),
    )
    .await;
    let task = world
        .running(&app(
            "/six",
            "ip -o addr show eth0 > /mnt/mesos/sandbox/a; sleep 1000",
            with(calico(), "CALICO_IP", "auto,auto6"),
        ))
        .await;
    let [v4, v6] = task.addresses().try_into().unwrap();
    assert!(v4.starts_with("192.168.") && v6.starts_with("fd00:65::"), "{v4} {v6}");
    assert!(task.file("a").await.contains(&format!("{v6}/128")));
    assert!(sh(&format!("busybox ping6 -c 1 -W 2 {v6}")).contains(" 0% packet loss"), "{}", task.log());
    task.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn many_tasks_launch_at_once() {
    let world = World::new().await;
    let mut tasks = Vec::new();
    for index in 0..8 {
        tasks.push(world.launch(&app(&format!("/many/{index}"), "sleep 1000", calico())).await);
    }
    let mut addresses = std::collections::BTreeSet::new();
    for task in &tasks {
        task.reaches(TaskState::TaskRunning).await;
        addresses.extend(task.addresses());
    }
    assert_eq!(addresses.len(), 8, "{addresses:?}");
    for task in &tasks {
        world.agent.kill(&task.id, None).await.unwrap();
    }
    for task in &tasks {
        assert_eq!(task.ends().await.state(), TaskState::TaskKilled);
        task.executor_exit().await;
    }
    world.nothing_left().await;
}

/// The interface gets its planned address while that is written; another task may have been quicker.
#[tokio::test]
async fn a_task_whose_planned_address_is_taken_has_only_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let steps = folder.path().join("steps");
    let listener = UnixListener::bind(&steps).unwrap();
    let setting = ("paths.steps".to_owned(), format!("{:?}", steps.display().to_string()));
    let world = World::with(|stack| stack.config.extend([setting]), |_| ()).await;
    let script = "ip -o -4 addr show eth0 > /mnt/mesos/sandbox/eth0; exec sleep 1000";
    let slow = world.launch(&app("/slow", script, calico())).await;
    let held = reached(&listener, Step::Chosen).await;
    // No other step is held up any more.
    drop(listener);
    let quick = world.running(&app("/quick", "sleep 1000", calico())).await;
    drop(held);
    slow.reaches(TaskState::TaskRunning).await;
    let address = |list: Vec<String>| list[0].parse::<std::net::IpAddr>().unwrap();
    // The lowest free address is chosen.
    assert!(address(quick.addresses()) < address(slow.addresses()), "{}", slow.log());
    let eth0 = slow.file("eth0").await;
    assert_eq!(eth0.lines().count(), 1, "{eth0}");
    assert!(eth0.contains(&format!("{}/32", slow.addresses()[0])), "{eth0}");
    assert_eq!(quick.kill().await.state(), TaskState::TaskKilled);
    assert_eq!(slow.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
}

#[tokio::test]
async fn the_calico_network_and_labels() {
    let world = World::new().await;
    let mut definition = app("/prod/labelled", "sleep 1000", json!({}));
    definition["networks"] = json!([{"mode": "container", "name": "calico"}]);
    definition["labels"] = json!({"team/name": "a b_c--x", "projectcalico.org/namespace": "kube-system"});
    let task = world.running(&definition).await;
    assert_eq!(task.addresses().len(), 1);
    let [endpoint] = world.endpoints().await.try_into().unwrap();
    let labels = &endpoint["metadata"]["labels"];
    assert_eq!(labels["projectcalico.org/namespace"], "default", "{labels}");
    assert_eq!(endpoint["metadata"]["namespace"], "default");
    assert_eq!(endpoint["spec"]["profiles"], json!(["dev"]));
    task.kill().await;
    world.nothing_left().await;
}
