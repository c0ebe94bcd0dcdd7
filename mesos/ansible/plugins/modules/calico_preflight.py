#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""What the role calico has to know of a host, and what speaks against a change of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_preflight
short_description: Looks at a host, and at the variables of the role calico, before the role changes anything
description:
  - Only reads. It fails with all problems that it finds, a sentence each, which names the variable, its value and the remedy.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: It never changes anything.
options:
  settings:
    description: The variables of the role calico, without the prefix C(calico_).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Look at the host before anything is changed
  calico_preflight:
    settings: "{{ calico_settings }}"
"""

RETURN = r"""
address:
  description: The address of this node.
  type: str
  returned: always
mode:
  description: V(ipip), V(vxlan) or V(bgp).
  type: str
  returned: always
said:
  description: What the operator should know.
  type: list
  returned: always
"""

import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess

from ansible.module_utils.basic import AnsibleModule

MODES = ("auto", "ipip", "vxlan", "bgp")
STATES = ("present", "absent")
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
OLDEST_KERNEL = (3, 10)
OLDEST_DOCKER = (20, 10)
CALICO_LINKS = re.compile(r"(cali.*|tunl0|vxlan\.calico|vxlan-v6\.calico|wireguard\.cali)$")
MODULES = ["ip_set", "xt_set", "ip_tables", "ip6_tables", "nf_conntrack"]
AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"


def number(text):
    """The whole number that a variable holds; None where it holds something else."""
    if isinstance(text, bool):
        return None
    return int(str(text)) if re.fullmatch(r"[0-9]+", str(text)) else None


def run(words, timeout=10):
    """A program's output; None where it failed or is not there."""
    try:
        out = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.decode(errors="replace") if out.returncode == 0 else None


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


# The variables, which are the same on every host.


def network_problems(name, text, version):
    """Sentences about a pool's network."""
    example = "192.168.0.0/16" if version == 4 else "fd00:10:1::/64"
    try:
        net = ipaddress.ip_network(str(text), strict=True)
    except ValueError as error:
        why = "has bits set after the prefix" if "host bits" in str(error) else "is not a network in CIDR form"
        return ["%s is %r, which %s: set it to a network such as %s" % (name, text, why, example)]
    if "/" not in str(text):
        return ["%s is %r, which is one address: set it to a network such as %s" % (name, text, example)]
    if net.version != version:
        return ["%s is %r, which is not IPv%d: set it to a network such as %s" % (name, text, version, example)]
    longest = 26 if version == 4 else 122
    if net.prefixlen > longest:
        return ["%s is %r, which is smaller than a block of /%d: choose a larger network" % (name, text, longest)]
    return []


def variable_problems(settings):
    """Sentences about variables that make no sense on any host."""
    problems = network_problems("calico_network", settings["network"], 4)
    if settings["network6"]:
        problems += network_problems("calico_network6", settings["network6"], 6)
    port = number(settings["client_port"])
    if port is None or not 0 < port < 65536:
        problems.append(
            "etcd_client_port is %r, which is not a port: set it to a number from 1 to 65535" % settings["client_port"]
        )
    if settings["mode"] not in MODES:
        problems.append("calico_mode is %r: set it to %s" % (settings["mode"], ", ".join(MODES)))
    if not NAME.fullmatch(str(settings["profile"])) or len(str(settings["profile"])) > 253:
        problems.append(
            "calico_profile is %r, which Calico does not take as a name: use lower case letters, digits, dots and dashes"
            % settings["profile"]
        )
    if settings["mode"] == "bgp" and settings["cross_subnet"]:
        problems.append("calico_cross_subnet is true, which has no meaning with calico_mode bgp: set it to false")
    if settings["log_file_size"] and log_bytes(settings["log_file_size"]) is None:
        problems.append(
            "calico_log_file_size is %r, which is not a size: set it to 64KB up to 1GB, such as 1MB" % settings["log_file_size"]
        )
    if settings["log_files"] and not 2 <= (number(settings["log_files"]) or 0) <= 100:
        problems.append("calico_log_files is %r: set it to a number from 2 to 100" % settings["log_files"])
    problems += bgp_problems(settings)
    return problems + image_problems(settings)


def log_bytes(text):
    """A size such as 1MB in bytes."""
    match = re.fullmatch(r"([0-9]+)(KB|MB|GB)", str(text))
    return int(match.group(1)) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[match.group(2)] if match else None


def bgp_problems(settings):
    problems = []
    asn = settings["as_number"]
    if asn not in (None, "") and not (number(asn) and number(asn) < 1 << 32):
        problems.append("calico_as_number is %r, which is not an AS number: set it to 64512, for example" % asn)
    for variable in ("bgp_peers", "node_bgp_peers"):
        for peer in settings[variable]:
            try:
                ipaddress.ip_address(str(peer["ip"]))
                fine = number(peer.get("as", 0)) is not None and (peer.get("state") == "absent" or number(peer["as"]))
            except (KeyError, TypeError, ValueError):
                fine = False
            if not fine:
                problems.append(
                    "calico_%s has %s, which is not a peer: write {ip: 10.0.0.1, as: 64512}" % (variable, json.dumps(peer))
                )
    if settings["mode"] == "vxlan" and (settings["bgp_peers"] or settings["node_bgp_peers"]):
        problems.append("calico_bgp_peers has peers, but with calico_mode vxlan no BGP runs: choose calico_mode ipip or bgp")
    return problems


def image_problems(settings):
    problems = []
    if not settings["image"]:
        problems.append("calico_image is empty: set it to the image of calico/node, such as calico/node:v3.32.1")
    elif re.search(r"\s", settings["image"]):
        problems.append("calico_image is %r, which is not the name of an image" % settings["image"])
    if not settings["package"]:
        problems.append(
            "calico_mesos_package is empty: set it to the path of calico-mesos_*.deb here, or to the package's name in the "
            "hosts' apt sources"
        )
    return problems


# The host.


def kernel_release():
    return read("/proc/sys/kernel/osrelease").strip()


def version(text, parts=2):
    numbers = re.findall(r"\d+", text or "")[:parts]
    return tuple(int(one) for one in numbers)


def can_make_link(kind, more=()):
    """Can the kernel make a link of this kind? Tried in a network namespace that ends with the trial."""
    words = ["unshare", "--net", "ip", "link", "add", "name", "calicotry", "type", kind] + list(more)
    return run(words) is not None


def has_module(name, release):
    """Loaded, or part of the kernel."""
    if os.path.isdir("/sys/module/" + name):
        return True
    builtin = read("/lib/modules/%s/modules.builtin" % release) or ""
    return re.search(r"/%s\.ko" % re.escape(name).replace("_", "[-_]"), builtin) is not None


def loadable(name, release):
    listed = read("/lib/modules/%s/modules.dep" % release) or ""
    return re.search(r"/%s\.ko[^:]*:" % re.escape(name).replace("_", "[-_]"), listed) is not None


def links():
    """This host's own IPv4 and IPv6 addresses with their prefix length and link."""
    own = {}
    for link in json.loads(run(["ip", "-j", "addr"]) or "[]"):
        for part in link.get("addr_info", []):
            if part.get("scope") == "global" and "local" in part:
                own[part["local"]] = (part["prefixlen"], link["ifname"])
    return own


def default_address(family="-4", probe="192.0.2.1"):
    route = json.loads(run(["ip", family, "-j", "route", "get", probe]) or "[]")
    return next((one["prefsrc"] for one in route if one.get("prefsrc")), None)


def overlaps(network, routes, own):
    """What of this host's routes and addresses lies in a network and is not Calico's."""
    net = ipaddress.ip_network(network)
    found = []
    for route in routes:
        if route.get("dst") in (None, "default") or CALICO_LINKS.match(route.get("dev", "")):
            continue
        if route.get("protocol") in ("bird", "80", 80, "12") or route.get("type") == "blackhole":
            continue
        try:
            other = ipaddress.ip_network(route["dst"], strict=False)
        except ValueError:
            continue
        if other.version == net.version and other.prefixlen and net.overlaps(other):
            found.append("route %s%s" % (route["dst"], " of " + route["dev"] if "dev" in route else ""))
    for address, (_, link) in own.items():
        if not CALICO_LINKS.match(link) and ipaddress.ip_address(address) in net:
            found.append("address %s of %s" % (address, link))
    return sorted(set(found))


def listener(port, tables=("/proc/net/tcp", "/proc/net/tcp6")):
    """The program that listens at a port: its name and pid; None where the port is free."""
    inodes = set()
    for table in tables:
        for line in (read(table) or "").splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rsplit(":", 1)[1], 16) == port:
                inodes.add("socket:[%s]" % words[9])
    if not inodes:
        return None
    holders = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            held = {os.readlink("/proc/%s/fd/%s" % (pid, one)) for one in os.listdir("/proc/%s/fd" % pid)}
        except OSError:
            continue
        if held & inodes:
            holders.append(((read("/proc/%s/comm" % pid) or "").strip(), int(pid)))
    return sorted(holders, key=lambda one: one[1])[-1] if holders else ("an unknown program", 0)


def iptables_backend():
    """NFT or Legacy, as the host's own iptables, which Docker uses; Auto where there is none."""
    text = run(["iptables", "--version"])
    if text is None:
        return "Auto"
    return "NFT" if "nf_tables" in text else "Legacy"


def iptables_leftovers(backend):
    """Does the other backend hold Docker's chains too?"""
    other = {"NFT": "iptables-legacy-save", "Legacy": "iptables-nft-save"}.get(backend)
    text = run([other, "-t", "filter"]) if other and shutil.which(other) else None
    return "DOCKER" in (text or "")


def cloud(dmi="/sys/class/dmi/id"):
    """The cloud by the machine's own description; empty where it does not tell."""
    field = {name: (read(os.path.join(dmi, name)) or "").strip() for name in ("sys_vendor", "product_name", "chassis_asset_tag")}
    if "openstack" in " ".join(field.values()).lower():
        return "openstack"
    return "azure" if field["chassis_asset_tag"] == AZURE_TAG else ""


def choose_mode(settings, has_ipip, found_cloud):
    """(mode, why, problem) for this host."""
    mode, provider = settings["mode"], settings["provider"]
    if mode == "ipip" and not has_ipip:
        return mode, "", (
            "calico_mode is 'ipip', and this host's kernel %s has no IPIP (module ipip): install the module, or set calico_mode "
            "to vxlan" % kernel_release()
        )
    if mode != "auto":
        return mode, "set by calico_mode", None
    openstack = provider == "openstack" or (not provider and found_cloud == "openstack")
    if openstack and not settings["openstack_credentials"]:
        said = "provider is 'openstack'" if provider else "this host says that it runs on OpenStack"
        return "bgp", "", (
            "calico_mode is 'auto' and %s, where BGP needs allowed address pairs, but there are no credentials for Neutron: set "
            "OS_AUTH_URL and its kind, or clouds.yaml, or set calico_mode to ipip or vxlan" % said
        )
    if openstack:
        return "bgp", "on OpenStack, with allowed address pairs", None
    if provider == "azure" or (not provider and found_cloud == "azure"):
        return "vxlan", "Azure drops IP-in-IP", None
    if has_ipip:
        return "ipip", "works where there is neither L3 peering nor L2 connectivity", None
    return "vxlan", "this host's kernel has no IPIP", None


def docker_facts(settings):
    """(facts, problems) of Docker."""
    facts = {"version": "", "image_id": "", "archive": ""}
    text = run(["docker", "version", "-f", "{{.Server.Version}}"])
    if shutil.which("docker") is None:
        return facts, ["Docker is not installed on this host: install Docker 20.10 or later first"]
    if text is None:
        return facts, ["Docker does not answer on this host: start docker.service first (systemctl start docker)"]
    facts["version"] = text.strip()
    problems = []
    if version(text) < OLDEST_DOCKER:
        problems.append("Docker on this host is %s: install 20.10 or later" % text.strip())
    options = run(["docker", "info", "-f", "{{json .SecurityOptions}}"]) or "[]"
    for word in ("userns", "rootless"):
        if "name=" + word in options:
            problems.append(
                "Docker on this host runs with %s, where Calico tasks cannot run: configure it without" % word
            )
    facts["archive"] = (read("/var/cache/calico-mesos/image") or "").strip()
    facts["image_id"] = (run(["docker", "image", "inspect", "-f", "{{.Id}}", settings["image"]]) or "").strip()
    text = read("/etc/docker/daemon.json")
    if text and text.strip():
        try:
            json.loads(text)
        except ValueError as error:
            problems.append("/etc/docker/daemon.json is not JSON (%s): correct it, Docker would not start with it" % error)
    return facts, problems


def answers(endpoint):
    """Does something listen at a URL?"""
    match = re.fullmatch(r"https?://\[?([^\]/]+?)\]?:(\d+)/?", endpoint)
    if not match:
        return False
    try:
        socket.create_connection((match.group(1), int(match.group(2))), timeout=2).close()
    except OSError:
        return False
    return True


def endpoints_of(path="/etc/etcd/etcdctl.env"):
    """The endpoints that the role etcd left on this host."""
    for line in (read(path) or "").splitlines():
        if line.startswith("ETCDCTL_ENDPOINTS="):
            return line.split("=", 1)[1].split(",")
    return []


def package_facts():
    """The version of the package, and what the role noted when it installed it."""
    out = run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "calico-mesos"]) or ""
    words = out.split()
    installed = words[1] if len(words) == 2 and words[0] == "installed" else ""
    noted = (read("/var/cache/calico-mesos/installed") or "").strip() if installed else ""
    good = (read("/var/cache/calico-mesos/good") or "").strip()
    return {"version": installed, "noted": noted, "good": good}


class Preflight:
    """One look at this host."""

    def __init__(self, settings, check_mode):
        self.settings, self.check_mode = settings, check_mode
        self.problems = variable_problems(settings)
        self.warnings = []
        self.facts = {}

    def skips(self, check):
        return check in self.settings["skip_checks"]

    def all(self):
        self.kernel()
        self.address()
        if not self.problems:
            self.network()
            self.datastore()
        self.docker()
        self.proxy()
        self.facts["package"] = package_facts()
        by_hand = "/usr/local/bin/calico-mesos"
        self.facts["by_hand"] = os.path.isfile(by_hand) and not os.path.islink(by_hand)

    def kernel(self):
        release = kernel_release()
        if version(release) < OLDEST_KERNEL:
            self.problems.append("the kernel of this host is %s: Calico needs 3.10 or later" % release)
        has_ipip, has_vxlan = can_make_link("ipip", ("local", "192.0.2.1", "remote", "192.0.2.2")), can_make_link(
            "vxlan", ("id", "1", "dstport", "4789")
        )
        found_cloud = cloud(self.settings["dmi"])
        mode, why, problem = choose_mode(self.settings, has_ipip, found_cloud)
        on_openstack = self.settings["provider"] == "openstack" or (not self.settings["provider"] and found_cloud == "openstack")
        if problem:
            self.problems.append(problem)
        if mode == "vxlan" and not has_vxlan and not self.skips("kernel"):
            self.problems.append(
                "calico_mode is %r, and this host's kernel %s has no VXLAN (module vxlan): install the module, or set calico_mode "
                "to ipip or bgp" % (self.settings["mode"], release)
            )
        if on_openstack and self.settings["mode"] == "bgp" and not self.settings["openstack_credentials"]:
            self.warnings.append(
                "calico_mode is 'bgp' on OpenStack, and there are no credentials for Neutron: it drops what tasks send unless "
                "the address pairs of this host's port allow calico_network, or its port security is off"
            )
        if self.settings["mode"] == "auto" and "no IPIP" in why:
            self.warnings.append("the kernel of this host has no IPIP: calico_mode auto chooses vxlan")
        wanted = MODULES + {"ipip": ["ipip"], "vxlan": ["vxlan"], "bgp": []}[mode if mode in MODES else "bgp"]
        missing = [name for name in wanted if not has_module(name, release)]
        self.facts.update(
            mode=mode,
            mode_why=why,
            ipip=has_ipip,
            # Where packets leave a host with a task's own address.
            openstack=on_openstack and self.settings["openstack_credentials"] and (mode == "bgp" or self.settings["cross_subnet"]),
            modules=wanted,
            modules_to_load=[name for name in missing if loadable(name, release)],
            sysctl_differs={
                name: str(value)
                for name, value in self.settings["sysctl"].items()
                if (read("/proc/sys/" + name.replace(".", "/")) or "").split() != str(value).split()
            },
            iptables_backend=self.backend(),
            log_bytes=log_bytes(self.settings["log_file_size"]),
        )

    def backend(self):
        backend = self.settings["iptables_backend"]
        if backend not in ("auto", "NFT", "Legacy"):
            self.problems.append("calico_iptables_backend is %r: set it to auto, NFT or Legacy" % backend)
        found = iptables_backend()
        if backend == "auto":
            backend = found
        elif found not in ("Auto", backend):
            self.warnings.append(
                "calico_iptables_backend is %s, and Docker's rules are in the other backend (iptables here is %s)" % (backend, found)
            )
        if iptables_leftovers(backend):
            self.warnings.append("both backends of iptables hold Docker's chains: flush those of the one that is not in use")
        return backend

    def address(self):
        own = links()
        wanted = self.settings["address"]
        address = wanted or default_address()
        remedy = "set private_ipv4 to one of this host's addresses (%s)" % (", ".join(sorted(own)) or "there is none")
        if not address:
            self.problems.append("private_ipv4 is not set, and this host has no default route to choose by: " + remedy)
        elif not re.fullmatch(r"[0-9.]+", str(address)) or str(address) not in own:
            self.problems.append(
                "calico_address (private_ipv4) is %r, which this host does not have: %s" % (address, remedy)
            )
        if self.settings["address6"] and self.settings["address6"] not in own:
            self.problems.append(
                "calico_address6 is %r, which this host does not have: %s" % (self.settings["address6"], remedy)
            )
        name = str(self.settings["nodename"] or socket.gethostname()).lower()
        there = (read("/var/lib/calico/nodename") or "").strip()
        if there and there != name:
            self.problems.append(
                "calico_nodename is %r, but this host is the node %s already: set calico_nodename to %s, or remove that node and "
                "/var/lib/calico/nodename first" % (name, there, there)
            )
        self.facts.update(address=str(address), nodename=name, own=sorted(own))

    def network(self):
        own = links()
        routes = json.loads(run(["ip", "-j", "route"]) or "[]") + json.loads(run(["ip", "-6", "-j", "route"]) or "[]")
        for name in ("network", "network6"):
            network = self.settings[name]
            found = overlaps(network, routes, own) if network and not self.skips("overlap") else []
            if found:
                self.problems.append(
                    "calico_%s is %s, which overlaps what this host uses otherwise (%s): choose another network"
                    % (name, network, ", ".join(found))
                )

    def datastore(self):
        endpoints = self.settings["etcd_endpoints"] or endpoints_of()
        if not endpoints:
            (self.warnings if self.check_mode else self.problems).append(
                "calico_etcd_endpoints is empty, there is no group %s, and the role etcd has not run on this host: run it first, or "
                "set calico_etcd_endpoints" % self.settings["etcd_group_name"]
            )
        elif not any(answers(endpoint) for endpoint in endpoints):
            (self.warnings if self.check_mode else self.problems).append(
                "calico_etcd_endpoints is %s, and none of them answers: run the role etcd first, or correct calico_etcd_endpoints "
                "and etcd_client_port" % ", ".join(endpoints)
            )
        self.facts["etcd_endpoints"] = endpoints

    def docker(self):
        facts, problems = docker_facts(self.settings)
        self.facts["docker"] = facts
        self.problems += problems

    def proxy(self):
        port = number(self.settings["proxy_port"])
        holder = listener(port) if self.settings["proxy"] and port else None
        if holder and holder[0] not in ("calico-mesos", "systemd", "init"):
            self.problems.append(
                "calico_proxy is true, and port %d of this host is held by %s (pid %d): end that program, or set calico_proxy to "
                "false" % ((port,) + holder)
            )


def main():
    module = AnsibleModule(argument_spec={"settings": {"type": "dict", "required": True}}, supports_check_mode=True)
    look = Preflight(module.params["settings"], module.check_mode)
    look.all()
    if look.problems:
        module.fail_json(msg="; ".join(look.problems))
    for sentence in look.warnings:
        module.warn(sentence)
    module.exit_json(changed=False, said=look.warnings, **look.facts)


if __name__ == "__main__":
    main()
