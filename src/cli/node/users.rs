//! Which containers have the runtime `calico`: without its program Docker can neither stop nor remove them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::Config;
use crate::error::chain;
use crate::names::RUNTIME;
use crate::workload::{Docker, DockerHost, Listed};

/// Where Docker keeps its containers, unless its configuration names another folder.
const DATA_ROOT: &str = "/var/lib/docker";

/// The names of such containers of the daemon that `docker` would talk to here, stopped ones too.
///
/// `daemon_json`: the configuration of the daemon of this host. Where that one does not run its files are read: its
/// containers may outlive it, and are there again when it starts.
pub async fn users(config: &Path, daemon_json: &Path) -> Result<Vec<String>, String> {
    let address = address(config);
    if address == DockerHost::DEFAULT && !Docker::listens(&parse(&address)?).await {
        return Ok(on_disk(&data_root(daemon_json)));
    }
    Ok(containers(config).await?.into_iter().map(|container| container.name).collect())
}

/// Such containers, as their daemon lists them.
pub async fn containers(config: &Path) -> Result<Vec<Listed>, String> {
    let host = parse(&address(config))?;
    let tls = Config::docker_only(config).tls();
    let docker = Docker::connect_with(&host, tls, "").await.map_err(|error| chain(&error))?;
    docker.users_of_runtime(RUNTIME).await.map_err(|error| chain(&error))
}

fn parse(address: &str) -> Result<DockerHost, String> {
    DockerHost::parse(address).map_err(|error| chain(&error))
}

fn address(config: &Path) -> String {
    let configured = || Config::docker_only(config).host;
    std::env::var("DOCKER_HOST").ok().or_else(configured).unwrap_or_else(|| DockerHost::DEFAULT.to_owned())
}

fn data_root(daemon_json: &Path) -> PathBuf {
    let json: Value = fs::read_to_string(daemon_json)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    json["data-root"].as_str().unwrap_or(DATA_ROOT).into()
}

fn on_disk(data_root: &Path) -> Vec<String> {
    let json = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let folders = fs::read_dir(data_root.join("containers")).into_iter().flatten().flatten();
    let mut names: Vec<String> = folders
        .filter(|folder| {
            json(folder.path().join("hostconfig.json")).is_some_and(|host| host["Runtime"] == RUNTIME)
        })
        .map(|folder| {
            let container = json(folder.path().join("config.v2.json")).unwrap_or_default();
            let name = container["Name"].as_str().map(|name| name.trim_start_matches('/').to_owned());
            name.unwrap_or_else(|| folder.file_name().to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_a_daemon_that_does_not_run_are_found_in_its_files() {
        let root = tempfile::tempdir().unwrap();
        assert!(on_disk(root.path()).is_empty());
        for (id, runtime, name) in
            [("1f", "calico", Some("/web")), ("2e", "runc", Some("/db")), ("3d", "calico", None)]
        {
            let folder = root.path().join("containers").join(id);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("hostconfig.json"), format!(r#"{{"Runtime":"{runtime}"}}"#)).unwrap();
            if let Some(name) = name {
                fs::write(folder.join("config.v2.json"), format!(r#"{{"Name":"{name}"}}"#)).unwrap();
            }
        }
        assert_eq!(on_disk(root.path()), ["3d", "web"]);
        let daemon_json = root.path().join("daemon.json");
        assert_eq!(data_root(&daemon_json), Path::new(DATA_ROOT));
        fs::write(&daemon_json, r#"{"data-root":"/srv/docker"}"#).unwrap();
        assert_eq!(data_root(&daemon_json), Path::new("/srv/docker"));
    }
}
