//! What this host's kernel can do.

use std::fs;
use std::path::Path;

/// Whether packets can be wrapped in IP-in-IP here: the kernel has the module, loaded, built in or to be loaded.
pub fn has_ipip() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = Path::new("/lib/modules").join(release.trim());
    let listed =
        |list: &str| fs::read_to_string(modules.join(list)).is_ok_and(|text| names_module(&text, "ipip"));
    // The interface is there in every network namespace as soon as the module is.
    let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    Path::new("/sys/module/ipip").exists()
        || links.lines().any(|line| line.trim_start().starts_with("tunl0:"))
        || listed("modules.builtin")
        || listed("modules.dep")
}

/// Whether a list of the kernel's modules, by their files, has one of this name. Files may be compressed.
fn names_module(list: &str, name: &str) -> bool {
    let file =
        |line: &str| line.split(':').next().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    list.lines().filter_map(file).any(|file| file.split('.').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_by_its_file() {
        let dep =
            "kernel/net/ipv4/ip_tunnel.ko:\nkernel/net/ipv4/ipip.ko.xz: kernel/net/ipv4/tunnel4.ko.xz\n";
        assert!(names_module(dep, "ipip") && names_module("kernel/net/ipv4/ipip.ko\n", "ipip"));
        assert!(!names_module(dep, "tunnel4") && !names_module("kernel/net/ipv6/ip6_ipip.ko:\n", "ipip"));
    }
}
