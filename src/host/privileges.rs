//! Drops the privileges that the drop-in executor does not need, before its first connection; nothing that it starts
//! can get them back.
//!
//! It keeps what it works with, and what it keeps is still enough to ruin a host: joining network namespaces alone
//! takes CAP_SYS_ADMIN, and Docker's socket means root. What goes is what a fault in it could be used for without
//! that, such as loading modules, setting the clock or making devices.
//!
//! The custom executor keeps everything. A command that runs as root has always had all of it under Mesos, and
//! could not get back what its executor has thrown away.

use std::io;

use nix::errno::Errno;
use nix::sys::prctl;
use rustix::thread::{
    capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    CapabilitySet, CapabilitySets,
};

/// Files of the sandbox's owner and of Docker; namespaces and what lives in them; links, routes, packet filters.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE);

/// Applies to this thread and to all that it starts: call it before there is another.
pub fn give_up() -> io::Result<()> {
    prctl::set_no_new_privs()?;
    let had = capabilities(None)?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            give_up_for_good(CapabilitySet::from_bits_retain(1 << number))?;
        }
        clear_ambient_capability_set()?;
    }
    let left = CapabilitySets {
        effective: had.effective.intersection(KEPT),
        permitted: had.permitted.intersection(KEPT),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, left)?;
    Ok(())
}

fn give_up_for_good(capability: CapabilitySet) -> io::Result<()> {
    if KEPT.contains(capability) {
        return Ok(());
    }
    match remove_capability_from_bounding_set(capability) {
        // A number that this kernel has no capability for.
        Err(error) if error.raw_os_error() == Errno::EINVAL as i32 => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str) -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[test]
    fn only_the_needed_capabilities_are_kept() {
        // Privileges are a thread's own; this one has no successor.
        let seen = std::thread::spawn(|| {
            let before = status("CapEff:");
            give_up().unwrap();
            ["CapBnd:", "CapPrm:", "CapEff:"].map(|name| status(name) & !KEPT.bits()).into_iter().chain([
                status("CapInh:"),
                status("CapAmb:"),
                status("NoNewPrivs:") - 1,
                before & KEPT.bits() ^ status("CapEff:"),
            ])
        });
        let seen: Vec<u64> = seen.join().unwrap().collect();
        assert_eq!(seen[1..], [0; 6], "{seen:x?}");
        assert!(seen[0] == 0 || !nix::unistd::geteuid().is_root(), "{seen:x?}");
    }
}
