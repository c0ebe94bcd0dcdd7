//! Names of apps in Consul and in Calico: what is cut stays apart, and what folds together is reported.

use serde_json::{json, Value};

use crate::kit::wait::eventually;
use crate::world::{app, calico, with, World};

/// The ids of the apps that Consul has under this name.
async fn apps(world: &World, name: &str) -> Vec<Value> {
    let entries = world.consul(&format!("/v1/catalog/service/{name}")).await;
    entries.as_array().unwrap().iter().map(|entry| entry["ServiceMeta"]["mesos-app"].clone()).collect()
}

async fn names(world: &World) -> Vec<String> {
    let listed = world.consul("/v1/agent/services").await;
    listed.as_object().unwrap().values().map(|entry| entry["Service"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn two_apps_with_long_ids_have_two_names_and_two_labels() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let deep = "/production/eu-central-1/customer-portal/payment-gateway/reconciliation";
    let mut tasks = Vec::new();
    for color in ["blue", "green"] {
        let mut definition = app(&format!("{deep}/{color}"), "sleep 1000", calico());
        definition["labels"] = json!({"owner": format!("{}{color}", "team.of.payments.".repeat(5))});
        tasks.push(world.running(&definition).await);
    }
    let mut all = eventually("both apps have two names", async || {
        let all = names(&world).await;
        if all.len() >= 4 {
            Ok(all)
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await;
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "{all:?}");
    for name in &all {
        world.registered(name).await;
        assert_eq!(apps(&world, name).await.len(), 1, "{name}");
    }
    let endpoints = world.endpoints().await;
    let [one, other] = [0, 1].map(|at| endpoints[at]["metadata"]["labels"]["owner"].as_str().unwrap());
    assert_ne!(one, other);
    for task in &tasks {
        assert!(!task.log().contains("also the name"), "{}", task.log());
        task.kill().await;
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn a_name_that_another_app_has_is_reported_in_the_later_tasks_log() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let service = |id: &str| app(id, "sleep 1000", with(calico(), "SERVICE_PORT", "80,8080"));
    let first = world.running(&service("/a/b")).await;
    world.registered("b-a-direct").await;
    world.registered("b-a").await;
    let again = world.running(&service("/a/b")).await;
    let other = world.running(&service("/b-a")).await;
    eventually("all three tasks are registered", async || {
        let all = apps(&world, "b-a-direct").await.len() >= 6 && apps(&world, "b-a").await.len() >= 3;
        all.then_some(()).ok_or(&other)
    })
    .await;
    for name in ["b-a-direct", "b-a"] {
        let words = format!("{name} in Consul is also the name of the app '/a/b'");
        assert_eq!(other.log().matches(&words).count(), 1, "{}", other.log());
    }
    for task in [&first, &again] {
        assert!(!task.log().contains("is also the name"), "{}", task.log());
    }
    for task in [first, again, other] {
        task.kill().await;
    }
    world.nothing_left().await;
}
