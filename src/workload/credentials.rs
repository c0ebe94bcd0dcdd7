//! Credentials for registries, out of the docker CLI's own files.
//!
//! | file | form |
//! | --- | --- |
//! | `.docker/config.json` in the sandbox | `{"auths": {registry: entry}}` |
//! | `.dockercfg` in the sandbox, when the former is not there | `{registry: entry}` |
//! | `docker.config_file` of config.toml, when neither is there | `{"auths": {registry: entry}}` |
//!
//! As under the stock executor the first file that exists decides alone. Those in the sandbox come from
//! the app's URIs: links are not followed, and what is no small regular file is not read. No text of a
//! file reaches a log, not even in an error: serde's messages would quote it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::DecodePaddingMode;
use base64::{alphabet, Engine};
use bollard::auth::DockerCredentials;
use nix::fcntl::{openat, OFlag};
use nix::sys::stat::Mode;
use serde::Deserialize;
use serde_json::Value;

/// What the docker CLI calls Docker Hub in its files.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB: &str = "docker.io";
const HUB_NAMES: &[&str] = &[HUB, "index.docker.io", "registry-1.docker.io"];
/// Far above what a few dozen registries need.
const LONGEST: u64 = 1 << 20;
/// Some write the padding, some do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials of one registry. Never printed: [`fmt::Debug`] shows the server only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    server: String,
    username: Option<String>,
    password: Option<String>,
    identity_token: Option<String>,
    registry_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn for_docker(&self) -> DockerCredentials {
        DockerCredentials {
            username: self.username.clone(),
            password: self.password.clone(),
            identitytoken: self.identity_token.clone(),
            registrytoken: self.registry_token.clone(),
            serveraddress: Some(self.server.clone()),
            ..DockerCredentials::default()
        }
    }
}

/// The credentials for pulling this image, if there are some. What is wrong with a file is logged, and
/// the pull tried without: the registry may not ask.
pub fn find(image: &str, sandbox: &Path, configured: Option<&Path>) -> Option<Credentials> {
    let in_sandbox = [(".docker/config.json", false), (".dockercfg", true)];
    let of_sandbox = in_sandbox.into_iter().find_map(|(name, flat)| {
        let text = match open_beneath(sandbox, Path::new(name)).and_then(read_small) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            text => text,
        };
        Some((format!("{name} of the sandbox"), flat, text))
    });
    let (file, flat, text) = of_sandbox.or_else(|| {
        let path = configured?;
        Some((path.display().to_string(), false, File::open(path).and_then(read_small)))
    })?;
    let registry = registry(image);
    let found = text
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|text| ClientConfig::parse(&text, flat))
        .and_then(|config| config.credentials(registry));
    match found {
        Ok(found) => {
            if found.is_some() {
                tracing::info!("the pull uses the credentials for {registry} from {file}");
            }
            found
        }
        Err(reason) => {
            tracing::warn!("{file} {reason}; the image is pulled without credentials");
            None
        }
    }
}

/// Opens a file of the sandbox without following any link below it.
fn open_beneath(folder: &Path, path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut at: OwnedFd = File::open(folder)?.into();
    for part in path.parent().into_iter().flat_map(Path::components) {
        at = openat(&at, part.as_os_str(), flags | OFlag::O_DIRECTORY, Mode::empty())?;
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(openat(&at, name, flags, Mode::empty())?.into())
}

/// The text of a regular file that is not too long.
pub(super) fn read_small(file: File) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LONGEST {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB")),
        false => Ok(text),
    }
}

/// The registry in an image's name: a first part that can be no folder on Docker Hub.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => {
            if HUB_NAMES.contains(&first) {
                HUB
            } else {
                first
            }
        }
        _ => HUB,
    }
}

/// The part of the docker CLI's file that is about registries.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ClientConfig {
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, Value>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `user:password` in base64.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl ClientConfig {
    fn parse(text: &str, flat: bool) -> Result<Self, String> {
        let parsed = match flat {
            true => serde_json::from_str(text).map(|auths| Self { auths: Some(auths), ..Self::default() }),
            false => serde_json::from_str(text),
        };
        parsed.map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("is not the JSON of a docker client's configuration (line {line}, column {column})")
        })
    }

    fn credentials(&self, registry: &str) -> Result<Option<Credentials>, String> {
        let auths = self.auths.iter().flatten();
        let exact = |key: &str| key == registry || (registry == HUB && key == HUB_KEY);
        let entry = auths
            .clone()
            .find(|(key, _)| exact(key))
            .or_else(|| auths.clone().find(|(key, _)| host(key) == registry))
            .and_then(|(key, entry)| entry.credentials(key, registry).transpose())
            .transpose()?;
        let helped = self.helpers.iter().flatten().any(|(key, _)| exact(key) || host(key) == registry);
        let stored = self.store.as_ref().is_some_and(|store| !store.is_empty());
        if entry.is_none() && (helped || stored) {
            return Err(format!(
                "leaves the credentials for {registry} to a program (credHelpers or credsStore), which is not run here"
            ));
        }
        Ok(entry)
    }
}

/// `https://registry:5000/v2/` and the like, as older clients wrote it.
fn host(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let host = bare.split('/').next().unwrap_or(bare);
    if HUB_NAMES.contains(&host) {
        HUB
    } else {
        host
    }
}

impl Entry {
    /// `None`: the entry is empty, as a credential store leaves it.
    fn credentials(&self, key: &str, registry: &str) -> Result<Option<Credentials>, String> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let server = if registry == HUB { HUB_KEY } else { registry }.to_owned();
        let mut found = Credentials {
            server,
            username: filled(&self.username),
            password: filled(&self.password),
            identity_token: filled(&self.identitytoken),
            registry_token: filled(&self.registrytoken),
        };
        if let Some(auth) = filled(&self.auth) {
            let wrong = || format!("has no user:password in base64 as the auth of {key}");
            let bytes = BASE64.decode(auth.trim()).map_err(|_| wrong())?;
            let text = String::from_utf8(bytes).map_err(|_| wrong())?;
            let (user, password) =
                text.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or_else(wrong)?;
            found.username = Some(user.to_owned());
            found.password = Some(password.trim_matches('\0').to_owned());
        }
        let nothing = Credentials { server: found.server.clone(), ..Credentials::default() };
        Ok((found != nothing).then_some(found))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// user:secret
    const AUTH: &str = "dXNlcjpzZWNyZXQ=";

    fn chosen(text: &str, image: &str) -> Result<Option<(String, String, String)>, String> {
        let found = ClientConfig::parse(text, false)?.credentials(registry(image))?;
        Ok(found.map(|found| {
            (found.server, found.username.unwrap_or_default(), found.password.unwrap_or_default())
        }))
    }

    #[test]
    fn registries_in_names() {
        for (image, expected) in [
            ("busybox", HUB),
            ("team/app:1", HUB),
            ("docker.io/team/app", HUB),
            ("index.docker.io/app", HUB),
            ("reg.example/app", "reg.example"),
            ("reg:5000/team/app@sha256:00", "reg:5000"),
            ("localhost/app", "localhost"),
            ("app:1.0", HUB),
        ] {
            assert_eq!(registry(image), expected, "{image}");
        }
    }

    #[test]
    fn every_form_of_an_entry() {
        let user = |server: &str| Some((server.to_owned(), "user".to_owned(), "secret".to_owned()));
        let of = |key: &str, entry: &str, image: &str| {
            chosen(&format!(r#"{{"auths":{{"other.example":{{"auth":"eDp5"}},"{key}":{entry}}}}}"#), image)
        };
        let auth = format!(r#"{{"auth":"{AUTH}"}}"#);
        let plain = r#"{"username":"user","password":"secret"}"#;
        for entry in [&auth, plain] {
            assert_eq!(of(HUB_KEY, entry, "team/app").unwrap(), user(HUB_KEY));
            assert_eq!(of("docker.io", entry, "busybox").unwrap(), user(HUB_KEY));
            assert_eq!(of("reg:5000", entry, "reg:5000/app").unwrap(), user("reg:5000"));
            assert_eq!(of("https://reg:5000/v2/", entry, "reg:5000/app").unwrap(), user("reg:5000"));
            assert_eq!(of("reg:5000", entry, "reg/app").unwrap(), None);
            assert_eq!(of("reg:5000", entry, "busybox").unwrap(), None);
        }
        assert_eq!(of("reg:5000", "{}", "reg:5000/app").unwrap(), None);
        let token = ClientConfig::parse(r#"{"auths":{"r.io":{"identitytoken":"t"}}}"#, false).unwrap();
        let docker = token.credentials("r.io").unwrap().unwrap().for_docker();
        assert_eq!(
            (docker.identitytoken.as_deref(), docker.serveraddress.as_deref()),
            (Some("t"), Some("r.io"))
        );
        let old =
            ClientConfig::parse(&format!(r#"{{"r.io":{{"auth":"{AUTH}","email":"a@b"}}}}"#), true).unwrap();
        assert_eq!(old.credentials("r.io").unwrap().unwrap().password.as_deref(), Some("secret"));
    }

    #[test]
    fn credentials_are_never_printed() {
        for text in [
            r#"{"auths": "hunter2"}"#,
            r#"{"auths": {"r.io": "hunter2"}}"#,
            r#"{"auths": {"r.io": {"auth": "hunter2!"}}}"#,
            r#"{"auths": {"r.io": {"auth": "aHVudGVyMg=="}}}"#,
            "hunter2",
        ] {
            let reason = chosen(text, "r.io/app").unwrap_err();
            assert!(!reason.contains("hunter2") && !reason.contains("aHVu"), "{reason}");
        }
        let secret = Credentials { password: Some("hunter2".into()), ..Credentials::default() };
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in proptest::prop_oneof![
            "(?s).{0,60}",
            "\\{\"auths\": \\{\"[a-z.:/]{0,9}\": \\{\"(auth|username|password)\": \"[A-Za-z0-9+/=]{0,12}\"\\}\\}\\}",
        ], image in "(?s).{0,30}", flat: bool) {
            if let Ok(config) = ClientConfig::parse(&text, flat) {
                if let Ok(Some(found)) = config.credentials(registry(&image)) {
                    proptest::prop_assert!(!found.server.is_empty());
                }
            }
        }
    }

    #[test]
    fn programs_are_not_run() {
        let helper = r#"{"credHelpers":{"r.io":"gcloud"}}"#;
        assert!(chosen(helper, "r.io/app").unwrap_err().contains("not run"));
        assert_eq!(chosen(helper, "other.io/app").unwrap(), None);
        let store = format!(r#"{{"credsStore":"pass","auths":{{"r.io":{{"auth":"{AUTH}"}},"s.io":{{}}}}}}"#);
        assert!(chosen(&store, "r.io/app").unwrap().is_some());
        assert!(chosen(&store, "s.io/app").unwrap_err().contains("credsStore"));
    }

    #[test]
    fn the_first_file_decides() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("sandbox");
        std::fs::create_dir_all(sandbox.join(".docker")).unwrap();
        let entry = |user: &str| format!(r#"{{"r.io":{{"username":"{user}","password":"p"}}}}"#);
        let modern = |user: &str| format!(r#"{{"auths":{}}}"#, entry(user));
        let configured = dir.path().join("config.json");
        let user = |configured: Option<&Path>| find("r.io/app", &sandbox, configured)?.username;
        assert_eq!(user(None), None);
        assert_eq!(user(Some(&configured)), None);
        std::fs::write(&configured, modern("operator")).unwrap();
        assert_eq!(user(Some(&configured)).as_deref(), Some("operator"));
        std::fs::write(sandbox.join(".dockercfg"), entry("old")).unwrap();
        assert_eq!(user(Some(&configured)).as_deref(), Some("old"));
        let own = sandbox.join(".docker/config.json");
        std::fs::write(&own, modern("own")).unwrap();
        assert_eq!(user(Some(&configured)).as_deref(), Some("own"));
        std::fs::write(&own, "nonsense").unwrap();
        assert_eq!(user(Some(&configured)), None);
    }

    #[test]
    fn nothing_outside_the_sandbox_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (sandbox, outside) = (dir.path().join("sandbox"), dir.path().join("outside"));
        std::fs::create_dir_all(&sandbox).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        let text = r#"{"auths":{"r.io":{"username":"u","password":"p"}}}"#;
        std::fs::write(outside.join("config.json"), text).unwrap();
        let found = || find("r.io/app", &sandbox, None);
        symlink(&outside, sandbox.join(".docker")).unwrap();
        assert_eq!(found(), None);
        std::fs::remove_file(sandbox.join(".docker")).unwrap();
        std::fs::create_dir(sandbox.join(".docker")).unwrap();
        let own = sandbox.join(".docker/config.json");
        symlink(outside.join("config.json"), &own).unwrap();
        assert_eq!(found(), None);
        std::fs::remove_file(&own).unwrap();
        nix::unistd::mkfifo(&own, Mode::S_IRWXU).unwrap();
        assert_eq!(found(), None);
        std::fs::remove_file(&own).unwrap();
        std::fs::write(&own, format!("{text}{}", " ".repeat(1 << 20))).unwrap();
        assert_eq!(found(), None);
        std::fs::write(&own, text).unwrap();
        assert!(found().is_some());
    }
}
