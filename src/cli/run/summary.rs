//! What an app asks for, as `run` prints it: name, image, profiles, ports and DNS name.

use crate::config::Config;
use crate::mesos::messages::TaskInfo;
use crate::names::service_name;
use crate::task::request;

use super::task::{image, variable};

#[derive(Debug, Clone)]
pub struct AppSummary {
    pub app: String,
    /// None: the task is a command.
    pub image: Option<String>,
    /// What Calico applies; empty for an app without CALICO variables.
    pub profiles: Vec<String>,
    pub ports: Vec<u16>,
    /// The name in Consul that leads to the Calico addresses.
    pub dns: Option<String>,
}

impl AppSummary {
    pub fn of(info: &TaskInfo, config: &Config) -> Self {
        let app = variable(info, "MARATHON_APP_ID").unwrap_or(&info.name).to_owned();
        let calico = is_calico(info);
        let mut profiles = list(variable(info, "CALICO_PROFILE").unwrap_or_default());
        if profiles.is_empty() {
            profiles.push(config.profile.default.clone());
        }
        let service = service_name(&app);
        Self {
            image: image(info).map(str::to_owned),
            profiles: if calico { profiles } else { Vec::new() },
            ports: ports(variable(info, "SERVICE_PORT").unwrap_or_default()),
            dns: (calico && config.consul.enabled && !service.is_empty())
                .then(|| format!("{service}-direct.service.consul")),
            app,
        }
    }

    pub fn profile(&self) -> String {
        match self.profiles.is_empty() {
            true => "-".to_owned(),
            false => self.profiles.join(","),
        }
    }

    pub fn port(&self) -> String {
        match self.ports.is_empty() {
            true => "-".to_owned(),
            false => self.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        }
    }

    pub fn is_calico(&self) -> bool {
        !self.profiles.is_empty()
    }
}

/// By its variables, or by a user network of the name `calico`.
pub fn is_calico(info: &TaskInfo) -> bool {
    let by_variable = ["CALICO_IP", "CALICO_PROFILE", "CALICO_POOL"];
    let by_variable = by_variable.iter().any(|name| variable(info, name).is_some());
    let infos = info.container.iter().flat_map(|container| &container.network_infos);
    by_variable || infos.into_iter().any(|info| info.name.as_deref() == Some(request::NETWORK))
}

fn list(text: &str) -> Vec<String> {
    text.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// `80,https:443`; the executor reports what is wrong in it.
fn ports(text: &str) -> Vec<u16> {
    list(text).iter().filter_map(|word| word.rsplit(':').next()?.parse().ok()).collect()
}
