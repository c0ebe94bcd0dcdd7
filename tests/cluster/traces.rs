//! What a host is like: compared before the first play and after everything is taken away, and around `--check`.

use std::collections::BTreeSet;

use crate::checks::Ended;
use crate::lab::Lab;

/// Lines that say everything: one for each file of the disk, with its content's sum below /etc, for links, routes, rules,
/// units, Docker's runtimes, images and containers, and open ports.
pub struct Traces(BTreeSet<String>);

/// Folders whose content says nothing of ours, or is the lab's own.
const NOT_LOOKED_AT: &str = "proc sys dev run tmp var/tmp var/lib/docker var/lib/containerd var/lib/lab-consul var/lib/mesos var/log/journal \
    var/lib/apt var/cache var/lib/systemd srv/repo root/.ansible var/lib/dpkg/info var/lib/dpkg/updates var/lib/dpkg/triggers";
/// Files that the lab and Debian's tools write by themselves.
const CHANGING: &str = "^file (/etc/(passwd|group|g?shadow|sub[ug]id)-? |/etc/(ld.so.cache|resolv.conf|machine-id|.pwd.lock|mtab|docker/key.json) |\
    /etc/rc[0-9S].d|/var/lib/dpkg/|/var/log/(apt|dpkg.log|alternatives.log|wtmp|btmp|lastlog|faillog)|/root/[.])";

impl Traces {
    pub fn of(lab: &Lab, host: &str) -> Result<Self, Ended> {
        let prune: Vec<String> =
            NOT_LOOKED_AT.split_whitespace().map(|path| format!("-path /{path}")).collect();
        let prune = prune.join(" -o ");
        let mut text = format!(
            "find / -xdev \\( {prune} \\) -prune -o -printf 'file %p %y %m %l\\n' 2>/dev/null | grep -vE '{CHANGING}'
             find /etc -type f -print0 | xargs -0 sha1sum | awk '{{print \"file\", $2, $1}}' | grep -vE '{CHANGING}'\n"
        );
        text += "systemctl list-unit-files --no-legend --plain | grep -v '^var-lib-docker' | awk '{print \"unit\", $1, $2}'\n";
        text += "docker info -f '{{range $name, $_ := .Runtimes}}runtime {{$name}}\n{{end}}' | grep -v io.containerd\n";
        text += "ip -o link | awk '{print \"link\", $2}'; ip route | sed 's/^/route /'; ip -6 route | grep -v '^fe80' | sed 's/^/route /'
                for t in iptables ip6tables; do $t-save 2>/dev/null | grep -vE '^([#*]|:[A-Z]+ ACCEPT|COMMIT)' | sed \"s/\\[[0-9:]*\\]//; s/^/$t /\"; done
                ipset list -n | sed 's/^/ipset /'; docker ps -a --format 'container {{.Names}}'
                ss -lntpH | grep -vE '\"(consul|sshd|containerd|mesos-agent|mesos-slave)\"' | awk '{print \"listens\", $4}'\n";
        let text = lab.sh(host, &format!("{text} true"))?;
        Ok(Self(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()))
    }

    /// What the other one has that this one has not, and the other way round.
    pub fn same(&self, later: &Self) -> Result<(), String> {
        let more = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        let less = self.0.difference(&later.0).map(|line| format!("- {line}"));
        let all: Vec<String> = more.chain(less).collect();
        all.is_empty().then_some(()).ok_or_else(|| all.join("\n"))
    }
}
