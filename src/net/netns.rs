//! Network namespaces: made, bound to a file, entered, emptied, given up.
//!
//! Only a fresh thread ever calls `unshare` or `setns`, and it dies right after: a thread of the
//! runtime that came back in the wrong namespace would work on the wrong host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{setns, unshare, CloneFlags};
use nix::sys::signal::{kill, Signal};
use nix::sys::statfs::fstatfs;
use nix::unistd::Pid;
use rtnetlink::LinkUnspec;

use super::{sysctl, NetError};
use crate::host::processes::pids;

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// The loopback interface is the first one of every namespace.
const LOOPBACK_INDEX: u32 = 1;
/// Bytes; these threads do a handful of system calls.
const STACK: usize = 128 * 1024;

/// An open network namespace. It lives as long as this value, a process in it, or its file.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    inode: u64,
    path: PathBuf,
}

impl Namespace {
    /// Makes a new namespace with `lo` up and binds it to `path`; a stale one there is replaced.
    ///
    /// IPv6 is on or off in it as it is for new interfaces of this host, see [`super::enable_ipv6`].
    /// In a mount namespace of this program's own, `path` is a plain file to everybody else.
    pub async fn create(path: &Path) -> Result<Self, NetError> {
        let failed = |source| NetError::Namespace { action: "make", path: path.into(), source };
        Self::unbind(path)?;
        File::create(path).map_err(failed)?;
        let target = path.to_owned();
        let runtime = tokio::runtime::Handle::current();
        let made = on_thread(move || {
            let ipv6 = ipv6_switches();
            #[expect(clippy::disallowed_methods, reason = "on a thread of its own, which ends with it")]
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            // No task forwards; and addresses need no duplicate detection, they come from the IPAM.
            // Set before any interface exists, which then inherits it.
            let settings = set_defaults(&ipv6);
            let none: Option<&str> = None;
            mount(Some("/proc/thread-self/ns/net"), &target, none, MsFlags::MS_BIND, none)
                .map_err(io::Error::from)?;
            let _reactor = runtime.enter();
            Ok::<_, io::Error>((settings, rtnetlink::new_connection()?))
        })
        .await?;
        let result = match made {
            Ok((settings, (connection, handle, _))) => {
                let serving = tokio::spawn(connection);
                let up = handle.link().set(LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build());
                let up = up.execute().await.map_err(|source| NetError::Link {
                    action: "set up",
                    link: "lo".into(),
                    source: Box::new(source),
                });
                serving.abort();
                settings.and(up).and_then(|()| Self::made(path))
            }
            Err(source) => Err(failed(source)),
        };
        if result.is_err() {
            // The first error is the one to report.
            let _ = Self::unbind(path);
        }
        result
    }

    /// Opens a bound namespace.
    pub fn open(path: &Path) -> Result<Self, NetError> {
        let failed = |source| NetError::Namespace { action: "open", path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        if !is_network_namespace(&file).map_err(failed)? {
            return Err(NetError::NotANamespace(path.into()));
        }
        Self::of(file, path).map_err(failed)
    }

    /// Opens what has just been bound, and needs no thread to find out what it is.
    fn made(path: &Path) -> Result<Self, NetError> {
        let opened = File::open(path).and_then(|file| Self::of(file, path));
        opened.map_err(|source| NetError::Namespace { action: "open", path: path.into(), source })
    }

    fn of(file: File, path: &Path) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode, path: path.into() })
    }

    /// The number in `net:[…]`, unique among living namespaces.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where it was bound when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every process in it, by pid of its leader.
    pub fn processes(&self) -> Vec<i32> {
        pids().filter(|pid| namespaces_of(*pid).contains(&self.inode)).collect()
    }

    /// Kills until nothing lives in the namespace; the number of processes killed.
    ///
    /// What Docker says about the container does not matter: an init that waited at the gate when
    /// dockerd died is "Created" to Docker for ever.
    pub async fn kill_processes(&self, deadline: Duration) -> Result<usize, NetError> {
        self.kill_some(deadline, |_| true).await
    }

    /// The same for some of them; the others live on.
    pub async fn kill_some(
        &self,
        deadline: Duration,
        chosen: impl Fn(i32) -> bool,
    ) -> Result<usize, NetError> {
        if own_inodes().contains(&self.inode) {
            return Err(NetError::HostNamespace(self.path.clone()));
        }
        let ends = Instant::now() + deadline;
        let mut killed = BTreeSet::new();
        loop {
            let living: Vec<i32> = self.processes().into_iter().filter(|pid| chosen(*pid)).collect();
            if living.is_empty() {
                return Ok(killed.len());
            }
            for pid in &living {
                // It may have died by itself meanwhile; the next look shows it.
                if kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok() {
                    killed.insert(*pid);
                }
            }
            if Instant::now() >= ends {
                return Err(NetError::Survivors(living));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Gives up the file at `path`; `false` when there was none.
    pub fn unbind(path: &Path) -> Result<bool, NetError> {
        let failed = |source| NetError::Namespace { action: "give up", path: path.into(), source };
        // Twice bound (by a crash in between) is unbound twice.
        loop {
            match umount2(path, MntFlags::MNT_DETACH) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

/// The numbers of all network namespaces in which something lives.
pub fn inhabited() -> BTreeSet<u64> {
    pids().flat_map(namespaces_of).collect()
}

/// The same, each with a process that lives there.
pub(super) fn inhabitants() -> BTreeMap<u64, i32> {
    pids().flat_map(|pid| namespaces_of(pid).into_iter().map(move |number| (number, pid))).collect()
}

/// Does the open file belong to the kernel's namespace file system, and is it a network one?
///
/// The kernel shows the kind only by accepting it: a thread that dies right after tries to enter.
pub fn is_network_namespace(file: &File) -> io::Result<bool> {
    // The constant's type differs between C libraries.
    if fstatfs(file)?.filesystem_type().0 as i64 != NSFS_MAGIC {
        return Ok(false);
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).stack_size(STACK);
        #[expect(clippy::disallowed_methods, reason = "on a thread of its own, which ends with it")]
        let entered = thread.spawn_scoped(scope, || setns(file.as_fd(), CloneFlags::CLONE_NEWNET))?;
        match entered.join() {
            Ok(Ok(())) => Ok(true),
            Ok(Err(Errno::EINVAL)) => Ok(false),
            Ok(Err(errno)) => Err(errno.into()),
            Err(_) => Err(io::Error::other("the thread panicked")),
        }
    })
}

/// Inodes of the namespaces that are the host's own: this program's and pid 1's.
pub fn own_inodes() -> Vec<u64> {
    ["/proc/self/ns/net", "/proc/1/ns/net"]
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| meta.ino())
        .collect()
}

/// Runs `work` in the namespace, on a thread of its own.
pub async fn enter<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NetError> {
    let failed = |source| NetError::Namespace { action: "enter", path: namespace.path.clone(), source };
    let file = namespace.file.try_clone().map_err(failed)?;
    let done = on_thread(move || {
        #[expect(clippy::disallowed_methods, reason = "on a thread of its own, which ends with it")]
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok::<_, Errno>(work())
    });
    done.await?.map_err(|errno| failed(errno.into()))
}

/// Replaces this program by `command`, in the namespace; the reason when that is not possible. The thread that enters is
/// the one that becomes the command: the kernel ends all others with it.
pub fn exec(namespace: &Namespace, mut command: Command) -> NetError {
    let program = command.get_program().to_string_lossy().into_owned();
    let entered = |source| NetError::Namespace { action: "enter", path: namespace.path.clone(), source };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).stack_size(STACK);
        let become_it = || {
            #[expect(clippy::disallowed_methods, reason = "on a thread of its own, which ends with it")]
            match setns(namespace.file.as_fd(), CloneFlags::CLONE_NEWNET) {
                Ok(()) => NetError::Program { command: program, source: command.exec() },
                Err(errno) => entered(errno.into()),
            }
        };
        match thread.spawn_scoped(scope, become_it).map(|thread| thread.join()) {
            Ok(Ok(error)) => error,
            Ok(Err(_)) => NetError::Thread(io::Error::other("the thread panicked")),
            Err(error) => NetError::Thread(error),
        }
    })
}

/// The result of `work`, done by a thread that dies with it.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NetError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // The caller was cancelled and no longer waits.
            let _ = sender.send(work());
        })
        .map_err(NetError::Thread)?;
    receiver.await.map_err(|_| NetError::Thread(io::Error::other("the thread panicked")))
}

/// Whether IPv6 is off on this host, for new interfaces and for `lo`. In this order: the first sets the others.
fn ipv6_switches() -> Vec<(&'static str, String)> {
    let keys = [
        "net/ipv6/conf/all/disable_ipv6",
        "net/ipv6/conf/default/disable_ipv6",
        "net/ipv6/conf/lo/disable_ipv6",
    ];
    // A kernel without IPv6 has none of them, here and in the new namespace.
    keys.into_iter().filter_map(|key| Some((key, sysctl::read(key).ok()??))).collect()
}

/// What every interface of the namespace made later inherits. The kernel's own default for IPv6 is on, independent of
/// what this host's administrator has set.
fn set_defaults(ipv6: &[(&'static str, String)]) -> Result<(), NetError> {
    for (key, value) in [
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ] {
        sysctl::write(key, value)?;
    }
    for (key, value) in ipv6 {
        sysctl::write(key, value)?;
    }
    Ok(())
}

/// The numbers of the network namespaces that a process is in: one, but where its leader has ended before its
/// threads, they are asked.
fn namespaces_of(pid: i32) -> Vec<u64> {
    if let Some(number) = namespace_at(Path::new(&format!("/proc/{pid}/ns/net"))) {
        return vec![number];
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| namespace_at(&thread.path().join("ns/net"))).collect()
}

/// The number behind `net:[…]`.
fn namespace_at(link: &Path) -> Option<u64> {
    fs::read_link(link).ok()?.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}
