//! The tasks of an app's instances, each with its own host ports.

use crate::mesos::messages::TaskInfo;
use crate::net::forward;
use crate::rig::agent::marathon::{App, AppInstance};
use crate::rig::agent::ports::{self, OFFERED};

#[derive(Debug, thiserror::Error)]
#[error(
    "{app} needs {wanted} host ports, and of 31000 to 32000 only {found} are free; launch fewer instances"
)]
pub struct NoPorts {
    app: String,
    wanted: usize,
    found: usize,
}

/// One TaskInfo an instance, as Marathon would send them.
///
/// Assigned are ports that nothing listens on, that lead to no other task, and that the app itself does not name.
pub async fn describe(app: &App, instances: u32) -> Result<Vec<TaskInfo>, NoPorts> {
    let each = app.free_ports();
    let wanted = each * instances as usize;
    let mut taken = app.fixed_ports();
    if wanted > 0 {
        // Tables that cannot be read are reported by the launch, which writes to them.
        let forwards = forward::all().await.unwrap_or_default();
        taken.extend(forwards.into_values().flatten().map(|mapping| mapping.host));
    }
    let ports = ports::free(OFFERED, wanted, &taken);
    if ports.len() < wanted {
        return Err(NoPorts { app: app.id.clone(), wanted, found: ports.len() });
    }
    let hostname = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let info = |index: usize| {
        let own = ports[index * each..(index + 1) * each].to_vec();
        app.task_info(&AppInstance::new(hostname.clone(), own))
    };
    Ok((0..instances as usize).map(info).collect())
}
