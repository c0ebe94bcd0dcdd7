//! The tasks of an app's instances, each with its own host ports.

use std::net::{Ipv4Addr, TcpListener};

use crate::agent::marathon::{App, Instance};
use crate::mesos::messages::TaskInfo;

/// What a Mesos agent offers unless told otherwise.
const OFFERED: std::ops::RangeInclusive<u16> = 31_000..=32_000;

#[derive(Debug, thiserror::Error)]
#[error("{app} wants {wanted} host ports; of 31000 to 32000 only {found} are free")]
pub struct NoPorts {
    app: String,
    wanted: usize,
    found: usize,
}

/// One TaskInfo an instance, as Marathon would send them.
pub fn describe(app: &App, instances: u32) -> Result<Vec<TaskInfo>, NoPorts> {
    let each = app.free_ports();
    let wanted = each * instances as usize;
    let ports: Vec<u16> = OFFERED.filter(|port| is_free(*port)).take(wanted).collect();
    if ports.len() < wanted {
        return Err(NoPorts { app: app.id.clone(), wanted, found: ports.len() });
    }
    let hostname = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let info = |index: usize| {
        let own = ports[index * each..(index + 1) * each].to_vec();
        app.task_info(&Instance::new(hostname.clone(), own))
    };
    Ok((0..instances as usize).map(info).collect())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}
