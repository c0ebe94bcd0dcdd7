//! Processes of this host, read from `/proc`.

use std::fs;
use std::str::FromStr;

/// What the kernel hands over to a program in one piece, its closing NUL included: an argument, or a variable with its
/// name (`MAX_ARG_STRLEN`).
pub const MAX_STRING: usize = 128 << 10;

/// Another one after each boot of this host.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Every process that can be seen from here, by its leader's pid.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The words of its command line; none when it has gone. Of a kernel's thread, one empty word.
pub fn command_line(pid: i32) -> Option<Vec<String>> {
    words(pid, "cmdline")
}

/// Its environment at its start; only root can read that of others.
pub fn environment(pid: i32) -> Option<Vec<String>> {
    words(pid, "environ")
}

fn words(pid: i32, file: &str) -> Option<Vec<String>> {
    let text = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Whether every process of this host can be seen from here: this is the first pid namespace.
pub fn all_are_seen() -> bool {
    // The kernel gives it this number on every host.
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

/// `/proc/<pid>/stat`, what stands behind the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat(String);

impl Stat {
    /// None when it has gone.
    pub fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `pid (name) state parent group session …`, where the name may hold anything, blanks and parentheses too.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(text.rsplit_once(')')?.1.to_owned()))
    }

    /// Dead already, merely not waited for by its parent.
    pub fn is_dead(&self) -> bool {
        self.0.trim_start().starts_with(['Z', 'X'])
    }

    pub fn parent(&self) -> Option<i32> {
        self.number(1)
    }

    pub fn group(&self) -> Option<i32> {
        self.number(2)
    }

    pub fn session(&self) -> Option<i32> {
        self.number(3)
    }

    /// In clock ticks since boot: with the pid, the process' identity.
    pub fn start_time(&self) -> Option<u64> {
        self.number(19)
    }

    fn number<T: FromStr>(&self, index: usize) -> Option<T> {
        self.0.split_whitespace().nth(index)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(pids().any(|pid| pid == own));
        let words = command_line(own).unwrap();
        assert!(words[0].ends_with(std::env::current_exe().unwrap().file_name().unwrap().to_str().unwrap()));
        let stat = Stat::of(own).unwrap();
        assert!(!stat.is_dead() && stat.start_time() > Some(0));
        assert_eq!(stat.parent(), Some(i32::try_from(std::os::unix::process::parent_id()).unwrap()));
        assert_eq!((Stat::of(-1), command_line(-1)), (None, None));
    }

    #[test]
    fn a_process_name_may_contain_any_character() {
        let parent = |text| Stat::parse(text).and_then(|stat| stat.parent());
        assert_eq!(parent("12 (a) b (c) S 7 12 12"), Some(7));
        assert_eq!(parent("12 nonsense"), None);
    }
}
