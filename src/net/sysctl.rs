//! Kernel settings under `/proc/sys`, named with slashes, e.g. `net/ipv4/conf/eth0/forwarding`
//! (an interface's name may hold a dot, so dots are no separators here).
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens the file.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::NetError;

/// The value without its newline; `None` where the kernel has no such setting.
pub fn read(key: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes only when the value differs: some writes have side effects, and `/proc` may be read-only
/// where everything is right already. Returns what was there before when it wrote.
///
/// A missing IPv6 setting is fine, the kernel may have been started without IPv6.
pub fn write(key: &str, value: &str) -> Result<Option<String>, NetError> {
    let failed = |source| NetError::Sysctl { key: key.to_owned(), value: value.to_owned(), source };
    match read(key).map_err(failed)? {
        None if key.starts_with("net/ipv6/") => Ok(None),
        None => Err(failed(io::ErrorKind::NotFound.into())),
        Some(old) if old == value => Ok(None),
        Some(old) => {
            fs::write(path(key), value).map_err(failed)?;
            Ok(Some(old))
        }
    }
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}
