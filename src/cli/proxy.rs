//! `calico-mesos proxy`: the Docker API proxy, in the foreground until a signal ends it.

use std::path::Path;
use std::process::ExitCode;

use crate::proxy;

use super::Failed;

pub async fn proxy(config: &Path) -> Result<ExitCode, Failed> {
    proxy::run(config).await?;
    Ok(ExitCode::SUCCESS)
}
