//! The `container` of an app: image, parameters, volumes.

use super::fields::Fields;
use super::model::AppDocker;
use super::AppError;
use crate::mesos::messages::{volume, Parameter, Volume};

pub(super) fn read(top: Fields<'_>) -> Result<(AppDocker, Vec<Volume>), AppError> {
    let container = top.object("container", |container| {
        if container.word("type", &["DOCKER", "MESOS"])? == Some("MESOS") {
            return Err(container.error("type", of_mesos(container)?));
        }
        let docker = container
            .object("docker", docker)?
            .ok_or_else(|| container.error("docker", "is missing: name the image to run"))?;
        Ok((docker, container.objects("volumes", volume)?))
    })?;
    container.ok_or_else(|| {
        top.error(
            "container",
            "is missing: an app without one is run by a custom executor, which executor in the app definition or \
             --executor names (such as --executor /usr/bin/calico-executor)",
        )
    })
}

/// Why a container of Mesos' own containerizer (UCR) is not run, and what would do instead.
fn of_mesos(container: Fields<'_>) -> Result<&'static str, AppError> {
    let image = container.object("docker", |docker| Ok(docker.text("image")?.is_some()))?;
    Ok(match image {
        Some(true) => {
            "MESOS is Mesos' own containerizer (UCR), which is not available here: with \"type\": \"DOCKER\" Docker runs the \
             same image"
        }
        _ => {
            "MESOS is Mesos' own containerizer (UCR), which is not available here, and there is no image for Docker: set \
             \"type\": \"DOCKER\" and docker.image, or leave container out and name a custom executor (--executor)"
        }
    })
}

fn docker(docker: Fields<'_>) -> Result<AppDocker, AppError> {
    if docker.has("pullConfig") {
        return Err(docker.error("pullConfig", "takes a secret, which is not supported here"));
    }
    Ok(AppDocker {
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
    let mode = match volume.word("mode", &["RW", "RO"])? {
        Some("RO") => volume::Mode::Ro,
        _ => volume::Mode::Rw,
    };
    Ok(Volume {
        container_path: volume.required_text("containerPath")?.to_owned(),
        host_path: Some(volume.required_text("hostPath")?.to_owned()),
        mode: mode.into(),
        source: None,
    })
}
