//! The `container` of an app: image, parameters, volumes.

use super::fields::Fields;
use super::model::Docker;
use super::AppError;
use crate::mesos::messages::{volume, Parameter, Volume};

pub(super) fn read(top: Fields<'_>) -> Result<(Docker, Vec<Volume>), AppError> {
    let container = top.object("container", |container| {
        match container.text("type")? {
            None | Some("DOCKER") => {}
            Some(other) => {
                return Err(
                    container.error("type", format!("'{other}' cannot be run here: it must be DOCKER"))
                )
            }
        }
        let docker = container
            .object("docker", docker)?
            .ok_or_else(|| container.error("docker", "is missing: which image is to be run?"))?;
        Ok((docker, container.objects("volumes", volume)?))
    })?;
    container.ok_or_else(|| top.error("container", "is missing: only Docker containers are run here"))
}

fn docker(docker: Fields<'_>) -> Result<Docker, AppError> {
    if docker.has("pullConfig") {
        return Err(docker.error("pullConfig", "takes a secret, which is not supported here"));
    }
    Ok(Docker {
        image: docker.required_text("image")?.to_owned(),
        privileged: docker.flag("privileged")?.unwrap_or(false),
        force_pull: docker.flag("forcePullImage")?.unwrap_or(false),
        parameters: docker.objects("parameters", |parameter| {
            Ok(Parameter {
                key: parameter.required_text("key")?.to_owned(),
                value: parameter.text("value")?.unwrap_or_default().to_owned(),
            })
        })?,
    })
}

fn volume(volume: Fields<'_>) -> Result<Volume, AppError> {
    for (kind, what) in [("persistent", "persistent"), ("external", "external"), ("secret", "secret")] {
        if volume.has(kind) {
            return Err(volume.error(kind, format!("is not supported here: {what} volumes need a cluster")));
        }
    }
    let mode = match volume.text("mode")? {
        None | Some("RW") => volume::Mode::Rw,
        Some("RO") => volume::Mode::Ro,
        Some(other) => return Err(volume.error("mode", format!("'{other}' is neither RO nor RW"))),
    };
    Ok(Volume {
        container_path: volume.required_text("containerPath")?.to_owned(),
        host_path: Some(volume.required_text("hostPath")?.to_owned()),
        mode: mode.into(),
        source: None,
    })
}
