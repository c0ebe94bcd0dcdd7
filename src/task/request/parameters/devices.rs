//! The parameters for devices, and for limits that the kernel keeps for a device or a process.

use super::values::{fields, integer, pair, size};
use super::Draft;
use crate::workload::{Device, DeviceRequest, Throttle, Throttled, Ulimit};

/// `path[:path in the container][:rwm]`, or a device's name as the CDI has it: `vendor.com/class=name`.
pub(super) fn device(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    if is_cdi_name(text) {
        let requests = &mut draft.spec.device_requests;
        match requests.iter_mut().find(|request| request.driver == "cdi") {
            Some(request) => request.ids.push(text.to_owned()),
            None => requests.push(DeviceRequest {
                driver: "cdi".into(),
                ids: vec![text.to_owned()],
                ..DeviceRequest::default()
            }),
        }
        return Ok(());
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, mode] if is_mode(mode) => (host, host, mode),
        [host, container] => (host, container, "rwm"),
        [host, container, mode] if is_mode(mode) => (host, container, mode),
        _ => return Err("is not device[:path in the container][:rwm]".into()),
    };
    if host.is_empty() || !container.starts_with('/') {
        return Err("has no absolute path".into());
    }
    draft.spec.devices.push(Device {
        host: host.to_owned(),
        container: container.to_owned(),
        permissions: permissions.to_owned(),
    });
    Ok(())
}

/// Each of `rwm` at most once.
fn is_mode(text: &str) -> bool {
    let known = |c: char| "rwm".contains(c) && text.matches(c).count() == 1;
    !text.is_empty() && text.chars().all(known)
}

fn is_cdi_name(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let word = |text: &str, extra: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    let name_fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c));
    word(vendor, "_-.") && word(class, "_-") && name_fits
}

/// `a 1:3 rwm`: kind, major and minor number, permissions.
pub(super) fn cgroup_rule(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let number = |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let fits = match text.split(' ').collect::<Vec<_>>()[..] {
        [kind, numbers, mode] => {
            let (major, minor) = numbers.split_once(':').unwrap_or_default();
            matches!(kind, "a" | "b" | "c")
                && number(major)
                && number(minor)
                && (1..=3).contains(&mode.len())
                && mode.bytes().all(|byte| b"rwm".contains(&byte))
        }
        _ => false,
    };
    if !fits {
        return Err("is not a rule such as 'c 1:3 rwm'".into());
    }
    draft.spec.device_cgroup_rules.push(text.to_owned());
    Ok(())
}

/// `all`, a number, or `device=0`, `capabilities=…`, `driver=…`, `options=…`; lists stand in quotes.
pub(super) fn gpus(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let mut request = DeviceRequest { capabilities: vec!["gpu".into()], ..DeviceRequest::default() };
    let mut seen: Vec<String> = Vec::new();
    let count = |text: &str| if text == "all" { Ok(-1) } else { integer(text) };
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    for field in fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        if seen.iter().any(|other| other == key) {
            return Err(format!("has {key} twice"));
        }
        seen.push(key.to_owned());
        match key {
            "count" => request.count = count(value)?,
            "driver" => value.clone_into(&mut request.driver),
            "device" => request.ids = list(value),
            "capabilities" => request.capabilities = [list(value), vec!["gpu".into()]].concat(),
            "options" => {
                for option in fields(value)? {
                    request.options.extend([pair(&option)?]);
                }
            }
            _ => return Err("has a field other than count, device, driver, capabilities and options".into()),
        }
    }
    if request.ids.is_empty() && !seen.iter().any(|key| key == "count") {
        request.count = 1;
    }
    draft.spec.device_requests.push(request);
    Ok(())
}

/// `/dev/sda:10mb` for bytes, `/dev/sda:1000` for operations a second.
pub(super) fn throttle(draft: &mut Draft<'_>, what: Throttled, text: &str) -> Result<(), String> {
    const WRONG: &str = "is not /dev/name:rate";
    let (path, rate) = text.split_once(':').ok_or(WRONG)?;
    if !path.starts_with("/dev/") {
        return Err(WRONG.into());
    }
    let rate = match what {
        Throttled::ReadBytes | Throttled::WriteBytes => size(rate)?,
        Throttled::ReadOperations | Throttled::WriteOperations => {
            rate.parse::<u32>().map_err(|_| "has a rate that is not a number")?.into()
        }
    };
    draft.spec.throttles.push(Throttle { what, path: path.to_owned(), rate });
    Ok(())
}

/// The kernel's names, as Docker spells them.
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`; `-1` is unlimited.
pub(super) fn ulimit(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let (name, limits) = text.split_once('=').ok_or("is not name=soft[:hard]")?;
    if !ULIMITS.contains(&name) {
        return Err(format!("names none of the limits {}", ULIMITS.join(", ")));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text.parse::<i64>() {
        Ok(number) if number >= -1 => Ok(number),
        _ => Err("is not name=soft[:hard]".to_owned()),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft > hard || soft < 0) {
        return Err("has a soft limit above the hard one".into());
    }
    draft.spec.ulimits.retain(|other| other.name != name);
    draft.spec.ulimits.push(Ulimit { name: name.to_owned(), soft, hard });
    Ok(())
}
