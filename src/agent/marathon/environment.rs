//! The variables Marathon gives a task: context, then ports, then the app's own, later ones winning.

use std::collections::BTreeMap;

use super::model::{App, Instance};

/// Labels beyond these lengths are left out.
const LABEL_NAME_MAX: usize = 492;
const LABEL_VALUE_MAX: usize = 511;

pub(super) fn variables(app: &App, instance: &Instance, ports: &[Option<u16>]) -> BTreeMap<String, String> {
    let mut all = context(app, instance);
    all.extend(port_variables(app, ports));
    all.insert("HOST".into(), instance.hostname.clone());
    all.extend(app.env.clone());
    all
}

fn context(app: &App, instance: &Instance) -> BTreeMap<String, String> {
    let resources = &app.resources;
    let mut all = BTreeMap::from([
        ("MESOS_TASK_ID".to_owned(), app.task_id(instance)),
        ("MARATHON_APP_ID".to_owned(), app.id.clone()),
        ("MARATHON_APP_VERSION".to_owned(), instance.version.clone()),
        ("MARATHON_APP_RESOURCE_CPUS".to_owned(), format!("{:?}", resources.cpus)),
        ("MARATHON_APP_RESOURCE_MEM".to_owned(), format!("{:?}", resources.mem)),
        ("MARATHON_APP_RESOURCE_DISK".to_owned(), format!("{:?}", resources.disk)),
        ("MARATHON_APP_RESOURCE_GPUS".to_owned(), resources.gpus.to_string()),
        ("MARATHON_APP_ENFORCE_GROUP_ROLE".to_owned(), "FALSE".to_owned()),
    ]);
    let image = app.docker.iter().map(|docker| docker.image.clone());
    all.extend(image.map(|image| ("MARATHON_APP_DOCKER_IMAGE".to_owned(), image)));
    let mut names = Vec::new();
    for (key, value) in &app.labels {
        if key.len() > LABEL_NAME_MAX || value.len() > LABEL_VALUE_MAX {
            continue;
        }
        let name = variable_name(key);
        all.insert(format!("MARATHON_APP_LABEL_{name}"), value.clone());
        names.push(name);
    }
    all.insert("MARATHON_APP_LABELS".into(), names.join(" "));
    all
}

/// Upper case; every run of other characters becomes one underscore.
fn variable_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_uppercase());
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    name
}

fn port_variables(app: &App, assigned: &[Option<u16>]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut list = Vec::new();
    for (index, (port, host)) in app.ports().iter().zip(assigned).enumerate() {
        let Some(number) = host.or(port.container).filter(|number| *number != 0) else { continue };
        let number = number.to_string();
        all.insert(format!("PORT{index}"), number.clone());
        if let Some(declared) = port.container.filter(|declared| *declared != 0) {
            all.insert(format!("PORT_{declared}"), number.clone());
        }
        if let Some(name) = &port.name {
            all.insert(format!("PORT_{}", variable_name(name)), number.clone());
        }
        list.push(number);
    }
    if let Some(first) = list.first() {
        all.insert("PORT".into(), first.clone());
        all.insert("PORTS".into(), list.join(","));
    }
    all
}
