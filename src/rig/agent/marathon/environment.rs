//! The variables Marathon gives a task: context, then ports, then the app's own, later ones winning.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{App, AppInstance, AppPort};

/// Labels beyond these lengths are left out; Marathon counts as Java does, in units of UTF-16.
const LABEL_NAME_MAX: usize = 492;
const LABEL_VALUE_MAX: usize = 511;

/// Ports that Marathon invents for containers begin above these.
const LOWEST_INVENTED: u16 = 1025;

pub(super) fn variables(
    app: &App,
    instance: &AppInstance,
    ports: &[Option<u16>],
) -> BTreeMap<String, String> {
    let mut all = context(app, instance);
    all.extend(port_variables(app.ports(), ports, instance.id.as_u128()));
    all.insert("HOST".into(), instance.hostname.clone());
    all.extend(app.env.clone());
    all
}

fn context(app: &App, instance: &AppInstance) -> BTreeMap<String, String> {
    let resources = &app.resources;
    let mut all = BTreeMap::from([
        ("MESOS_TASK_ID".to_owned(), app.task_id(instance)),
        ("MARATHON_APP_ID".to_owned(), app.id.clone()),
        ("MARATHON_APP_VERSION".to_owned(), instance.version.clone()),
        ("MARATHON_APP_RESOURCE_CPUS".to_owned(), as_java_writes(resources.cpus)),
        ("MARATHON_APP_RESOURCE_MEM".to_owned(), as_java_writes(resources.mem)),
        ("MARATHON_APP_RESOURCE_DISK".to_owned(), as_java_writes(resources.disk)),
        ("MARATHON_APP_RESOURCE_GPUS".to_owned(), resources.gpus.to_string()),
        ("MARATHON_APP_ENFORCE_GROUP_ROLE".to_owned(), "FALSE".to_owned()),
    ]);
    let image = app.docker.iter().map(|docker| docker.image.clone());
    all.extend(image.map(|image| ("MARATHON_APP_DOCKER_IMAGE".to_owned(), image)));
    let length = |text: &str| text.encode_utf16().count();
    let short = |key: &str, value: &str| length(key) <= LABEL_NAME_MAX && length(value) <= LABEL_VALUE_MAX;
    let mut names: Vec<String> = Vec::new();
    for (key, value) in app.labels.iter().filter(|(key, value)| short(key, value)) {
        let name = label_name(key);
        all.insert(format!("MARATHON_APP_LABEL_{name}"), value.clone());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    all.insert("MARATHON_APP_LABELS".into(), names.join(" "));
    all
}

/// A double as Java prints it: an exponent from ten million on and below a thousandth.
fn as_java_writes(number: f64) -> String {
    if number == 0.0 || (1e-3..1e7).contains(&number) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// Upper case; every run of characters that no variable has becomes one underscore. Underscores stay as they are.
fn label_name(text: &str) -> String {
    let mut name = String::new();
    let mut replaced = false;
    for c in text.chars() {
        let kept = c.is_ascii_alphanumeric() || c == '_';
        if kept {
            name.push(c.to_ascii_uppercase());
        } else if !replaced {
            name.push('_');
        }
        replaced = !kept;
    }
    name
}

/// `PORT0`, and by number and name. `PORT` and `PORTS` are about ports of the host and invented ones: a container
/// network whose ports the app names has no `PORT`.
fn port_variables(ports: &[AppPort], assigned: &[Option<u16>], seed: u128) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if assigned.is_empty() {
        return all;
    }
    let mut used: BTreeSet<u16> = assigned.iter().flatten().copied().collect();
    used.extend(ports.iter().map(AppPort::requested));
    let mut invented = Vec::new();
    let mut names = Vec::new();
    for (index, (port, host)) in ports.iter().zip(assigned).enumerate() {
        let number = match (host, port.requested()) {
            (Some(host), _) => *host,
            (None, 0) => {
                let number = invent(seed, &mut used);
                invented.push(number);
                number
            }
            (None, container) => container,
        };
        all.insert(format!("PORT{index}"), number.to_string());
        let requested = if port.requested() == 0 { number } else { port.requested() };
        all.insert(format!("PORT_{requested}"), number.to_string());
        names.extend(
            port.name.iter().map(|name| (format!("PORT_{}", name.to_uppercase()), number.to_string())),
        );
    }
    // A name wins over a number of the same letters.
    all.extend(names);
    let listed: Vec<String> =
        assigned.iter().flatten().copied().chain(invented).map(|port| port.to_string()).collect();
    all.extend(listed.first().map(|first| ("PORT".to_owned(), first.clone())));
    all.insert("PORTS".into(), listed.join(","));
    all
}

/// A port for a container that asks for any and has none on the host: the instance's own, none that is used.
fn invent(seed: u128, used: &mut BTreeSet<u16>) -> u16 {
    let span = u128::from(u16::MAX - LOWEST_INVENTED) + 1;
    let mut offset = seed % span;
    loop {
        // The remainder is below the span: it fits.
        let port = LOWEST_INVENTED + (offset % span) as u16;
        if used.insert(port) {
            return port;
        }
        offset += 1;
    }
}
