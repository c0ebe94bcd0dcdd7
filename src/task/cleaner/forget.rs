//! Finishes the records that name a Docker which is gone for good.
//!
//! A record stays until its Docker has confirmed that the container is gone. A record of a Docker from an earlier
//! set-up of the host would stay for ever, and with it everything without a record: the cleaner cannot exclude that the
//! missing Docker backs it. Only the operator can decide that such a Docker does not come back.

use crate::workload::{Docker, DockerHost, InvalidDockerHost};

use crate::task::record::journal::Record;

#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error(transparent)]
    Address(#[from] InvalidDockerHost),
    #[error(
        "something listens at {0}, so the Docker there is not gone, and no record is finished without it; stop that Docker for good first, or run `calico-mesos gc` without --forget-docker"
    )]
    Listens(DockerHost),
}

/// A Docker at whose address nothing listens.
#[derive(Debug, Clone)]
pub struct GoneDocker(DockerHost);

impl GoneDocker {
    /// Refused while anything accepts connections there, also a daemon that hangs.
    pub async fn at(address: &str) -> Result<Self, ForgetError> {
        let host = DockerHost::parse(address)?;
        match Docker::listens(&host).await {
            true => Err(ForgetError::Listens(host)),
            false => Ok(Self(host)),
        }
    }

    /// Whether the record names this Docker, in any form.
    pub(super) fn is_named_by(&self, record: &Record) -> bool {
        record.backing.docker().is_some_and(|address| self.is_at(address))
    }

    /// Whether this address is that Docker's, in any form.
    pub(super) fn is_at(&self, address: &str) -> bool {
        DockerHost::parse(address).is_ok_and(|host| host == self.0)
    }
}

impl std::fmt::Display for GoneDocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
