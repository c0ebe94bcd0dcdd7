//! Whether the files and folders that decide over a host are safe from everybody but root.
//!
//! | what | may belong to | must not be |
//! | --- | --- | --- |
//! | config.toml, certificates | root | writable by others |
//! | secrets: passwords, tokens, keys | root | writable by others, readable by everybody |
//! | our own folders | root | writable by others; read by others only after we close them |
//! | every folder above one of those | root | writable by everybody, unless sticky |
//!
//! "Root" includes the user who runs the program: an executor that is not root can lose nothing that its user does not
//! have. A link counts as what it is and as what it leads to. Checked when a configuration is read and before a Calico
//! task is begun; what runs is taken down all the same.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::config::Config;

const STICKY: u32 = 0o1000;
/// Write permission for group and for everybody.
pub const WRITABLE: u32 = 0o022;
const READABLE_BY_ALL: u32 = 0o004;

/// What is wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{weakness}, so that others than root could take this host over; run: {remedy}")]
    Weak { weakness: Weakness, remedy: String },
    #[error("cannot look at {path}")]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Who else can do something with a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    #[error("{} belongs to user {owner}, not to root", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("{} is writable by others than root", path.display())]
    Writable { path: PathBuf },
    #[error("{} can be read by everybody", path.display())]
    Readable { path: PathBuf },
    #[error("{} is not a folder", path.display())]
    NoFolder { path: PathBuf },
}

impl Weakness {
    fn remedy(&self) -> String {
        match self {
            Self::Owner { path, .. } => format!("chown -h root:root {}", quoted(path)),
            Self::Writable { path } => format!("chmod go-w {}", quoted(path)),
            Self::Readable { path } => format!("chmod o= {}", quoted(path)),
            Self::NoFolder { path } => format!("rm {}", quoted(path)),
        }
    }
}

/// The path, quoted for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Checks a file that controls the program, such as config.toml. A missing file is not an error.
pub fn file(path: &Path) -> Result<(), TrustError> {
    path_with(path, WRITABLE)
}

/// Checks a file that only root may read.
pub fn secret(path: &Path) -> Result<(), TrustError> {
    path_with(path, WRITABLE | READABLE_BY_ALL)
}

/// A folder of ours that holds what others must neither see nor plant: what others may read is closed.
pub fn private_folder(path: &Path) -> Result<(), TrustError> {
    closed(path, 0o077, 0o700)
}

/// Gives the folder this mode where others may do one of the `forbidden`.
fn closed(path: &Path, forbidden: u32, mode: u32) -> Result<(), TrustError> {
    shared_folder(path)?;
    let look = |source| TrustError::Look { path: path.into(), source };
    match fs::metadata(path) {
        // A user who is not root may run the program to look, and no more.
        Ok(meta) if meta.mode() & forbidden != 0 && meta.uid() == geteuid().as_raw() => {
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(look)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(look(error)),
        _ => Ok(()),
    }
}

/// The same for `paths.run`, through which others may pass to the proxy's socket, but which they may not list: the rest of
/// it is in private folders. An executor of the release before closes it at each start: where the socket is there, it is
/// opened again.
pub fn passage(config: &Config) -> Result<(), TrustError> {
    let path = &config.paths.run;
    closed(path, 0o066, 0o711)?;
    let socket = config.proxy.socket.as_deref().filter(|socket| socket.parent() == Some(path));
    let meta = fs::metadata(path).ok().filter(|_| socket.is_some_and(Path::exists));
    let is_closed = |meta: &fs::Metadata| meta.mode() & 0o011 != 0o011 && meta.uid() == geteuid().as_raw();
    if meta.is_some_and(|meta| is_closed(&meta)) {
        let opened = fs::set_permissions(path, Permissions::from_mode(0o711));
        opened.map_err(|source| TrustError::Look { path: path.into(), source })?;
        tracing::info!("{} is open again for those who may use the proxy's socket there", path.display());
    }
    Ok(())
}

/// A folder that others may read, such as the one for logs, where Calico's own programs write too.
pub fn shared_folder(path: &Path) -> Result<(), TrustError> {
    path_with(path, WRITABLE)?;
    match fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => Err(weak(Weakness::NoFolder { path: path.into() })),
        _ => Ok(()),
    }
}

/// Everything that a configuration names: called before a Calico task is begun.
pub fn everything(config: &Config) -> Result<(), TrustError> {
    let (etcd, consul, docker) = (&config.etcd, &config.consul, &config.docker);
    let public = [
        &etcd.ca_file,
        &etcd.cert_file,
        &consul.ca_file,
        &consul.cert_file,
        &docker.ca_file,
        &docker.cert_file,
        // What listens there can hold every task up.
        #[cfg(debug_assertions)]
        &config.paths.steps,
    ];
    public.into_iter().flatten().try_for_each(|path| file(path))?;
    config.secrets().try_for_each(secret)?;
    passage(config)?;
    private_folder(&config.paths.state)
}

/// The path, what it leads to if it is a link, and all folders above both.
fn path_with(path: &Path, forbidden: u32) -> Result<(), TrustError> {
    let look = |source| TrustError::Look { path: path.into(), source };
    let path = std::path::absolute(path).map_err(look)?;
    let real = match path.canonicalize() {
        Ok(real) => Some(real),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(look(source)),
    };
    let own = geteuid().as_raw();
    for end in [Some(path), real].into_iter().flatten() {
        for (depth, path) in end.ancestors().enumerate() {
            let forbidden = if depth == 0 { forbidden } else { 0 };
            match weakness(path, forbidden, own) {
                Ok(None) => {}
                Ok(Some(weakness)) => return Err(weak(weakness)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(look(source)),
            }
        }
    }
    Ok(())
}

fn weak(weakness: Weakness) -> TrustError {
    let remedy = weakness.remedy();
    TrustError::Weak { weakness, remedy }
}

/// The user besides root and `own` who can change what lies there. Besides `forbidden`, no folder may be writable by
/// everybody, unless it is sticky: there only root can rename or remove what is root's. Debian's /usr/local and
/// Ubuntu's /var/log belong to groups of administrators, which is their operator's choice.
pub fn weakness(path: &Path, forbidden: u32, own: u32) -> io::Result<Option<Weakness>> {
    let meta = fs::symlink_metadata(path)?;
    let path = || path.to_owned();
    if meta.uid() != 0 && meta.uid() != own {
        return Ok(Some(Weakness::Owner { path: path(), owner: meta.uid() }));
    }
    let bits = bits(&meta, forbidden);
    Ok(match bits {
        0 => None,
        bits if bits & WRITABLE != 0 => Some(Weakness::Writable { path: path() }),
        _ => Some(Weakness::Readable { path: path() }),
    })
}

fn bits(meta: &Metadata, forbidden: u32) -> u32 {
    match (meta.is_dir(), meta.mode() & STICKY != 0) {
        // A link's own mode means nothing.
        _ if meta.file_type().is_symlink() => 0,
        (true, false) => meta.mode() & (forbidden | 0o002),
        _ => meta.mode() & forbidden,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn told(result: Result<(), TrustError>) -> String {
        crate::error::chain(&result.unwrap_err())
    }

    #[test]
    fn modes_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(file(&path).is_ok() && secret(&path).is_ok(), "a missing file is another check's error");
        fs::write(&path, "").unwrap();
        for (bits, as_file, as_secret) in [
            (0o600, true, true),
            (0o640, true, true),
            (0o644, true, false),
            (0o620, false, false),
            (0o602, false, false),
        ] {
            mode(&path, bits);
            assert_eq!((file(&path).is_ok(), secret(&path).is_ok()), (as_file, as_secret), "{bits:o}");
        }
        mode(&path, 0o646);
        let text = told(file(&path));
        assert!(
            text.contains("writable by others") && text.ends_with(&format!("chmod go-w {}", path.display()))
        );
        mode(&path, 0o644);
        assert!(told(secret(&path)).ends_with(&format!("run: chmod o= {}", path.display())));
    }

    #[test]
    fn owners_folders_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("file");
        fs::write(&path, "").unwrap();
        mode(&folder, 0o777);
        assert!(
            told(file(&path)).contains("folder is writable"),
            "a user who may write there can replace the file"
        );
        mode(&folder, 0o1777);
        assert!(file(&path).is_ok(), "sticky");
        mode(&folder, 0o775);
        assert!(file(&path).is_ok(), "an administrators' group");
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        mode(&path, 0o666);
        assert!(told(file(&link)).contains("folder/file is writable"), "what a link leads to counts");
        mode(&path, 0o600);
        assert!(file(&link).is_ok());
        if geteuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(1234), None).unwrap();
            assert!(told(file(&link)).contains("chown -h root:root"), "planted by another user");
            chown(&path, Some(1234), None).unwrap();
            assert!(told(file(&path)).contains("belongs to user 1234"));
        }
    }

    #[test]
    fn our_own_folders_are_closed_and_never_shared() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        assert!(private_folder(&folder).is_ok());
        fs::create_dir(&folder).unwrap();
        mode(&folder, 0o755);
        private_folder(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        mode(&folder, 0o770);
        assert!(told(private_folder(&folder)).contains("writable by others"));
        mode(&folder, 0o755);
        shared_folder(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o755);
        let no_folder = dir.path().join("file");
        fs::write(&no_folder, "").unwrap();
        assert!(told(private_folder(&no_folder)).contains("is not a folder"));
    }

    #[test]
    fn the_passage_to_the_proxys_socket_shows_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let mut config = Config::default();
        config.paths.run.clone_from(&folder);
        config.proxy.socket = Some(folder.join("docker.sock"));
        assert!(passage(&config).is_ok());
        fs::create_dir(&folder).unwrap();
        let passes = |before: u32| {
            mode(&folder, before);
            passage(&config).unwrap();
            fs::metadata(&folder).unwrap().mode() & 0o777
        };
        assert_eq!([0o755, 0o711, 0o700].map(passes), [0o711, 0o711, 0o700]);
        // An executor of the release before makes it 0700.
        fs::write(folder.join("docker.sock"), "").unwrap();
        assert_eq!([0o755, 0o711, 0o700].map(passes), [0o711; 3]);
        mode(&folder, 0o773);
        assert!(told(passage(&config)).contains("writable by others"));
        config.proxy.socket = Some(dir.path().join("elsewhere.sock"));
        fs::write(dir.path().join("elsewhere.sock"), "").unwrap();
        mode(&folder, 0o700);
        passage(&config).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_pasted_command_does_what_it_says() {
        assert_eq!(quoted(Path::new("/a-b/c.d")), "/a-b/c.d");
        assert_eq!(quoted(Path::new("/a b;'c")), r"'/a b;'\''c'");
    }
}
