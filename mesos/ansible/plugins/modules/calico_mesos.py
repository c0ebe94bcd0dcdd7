#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""Commands of calico-mesos that change something, as Ansible understands changes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_mesos
short_description: Runs commands of calico-mesos that change something
description:
  - Each command prints by C(-o json) whether it has changed something and what was there before; with C(--dry-run) it
    only looks. So a play shows changes of Calico's datastore as it shows those of files, in check mode too.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: Commands are run with C(--dry-run). Where calico-mesos is not installed yet, all are taken for changes.
options:
  commands:
    description:
      - The commands in their order, each a dictionary with C(argv), the words after C(calico-mesos); and C(json),
        V(false) for those that print sentences and have only C(--dry-run), with exit code 3; and C(gone_ok), V(true) for removals
        of what may be gone already.
    type: list
    elements: dict
    default: []
  pool:
    description:
      - The pool of C(network), made before the commands are run. A dictionary with C(name), C(mode) (V(ipip), V(vxlan), V(bgp)),
        C(cross_subnet), C(nat_outgoing), C(block_size) and C(keep_mode), with which a pool that exists keeps its mode.
      - A pool that exists is never cut anew.
    type: dict
    default: {}
  network:
    description: The CIDR of the only pool of those named C(prefix) that stays enabled; left out, none is disabled.
    type: str
    default: ""
  prefix:
    description: How the names of pools begin that the role made, or calico/node when the role had not made any.
    type: list
    elements: str
    default: []
  peers:
    description: "BGP peers, each a dictionary with C(ip), C(as), and C(state), V(present) or V(absent)."
    type: list
    elements: dict
    default: []
  peers_of:
    description: Whose peers; V(node) means this host's node.
    type: str
    choices: [all, node]
    default: all
  admin:
    description: A user of etcd who may write pools, where executors have one with fewer rights; empty, that of config.toml.
    type: str
    default: ""
  admin_password:
    description: Its password.
    type: str
    default: ""
  timeout:
    description: How many seconds a command may take.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Make a profile
  calico_mesos:
    commands:
      - argv: [profile, add, dev]
"""

RETURN = r"""
results:
  description: What each command printed.
  type: list
  returned: always
mode:
  description: The mode of the pool as it is now; left out without C(pool).
  type: str
  returned: sometimes
disabled:
  description: The pools that were disabled, with their CIDRs.
  type: list
  returned: always
"""

import atexit
import json
import os
import re
import shutil
import subprocess
import tempfile

from ansible.module_utils.basic import AnsibleModule

# Of the package: one that was installed by hand may come first in PATH.
PACKAGED = "/usr/bin/calico-mesos"
PROGRAM = PACKAGED if os.path.exists(PACKAGED) else "calico-mesos"
CONFIG = "/etc/calico-mesos/config.toml"
FOUND = 3


def pools_to_disable(pools, network, prefixes):
    """Pools of ours that give out addresses beside the wanted one. Pools of other origin are left alone."""
    is_v6 = ":" in network
    return [
        pool
        for pool in pools
        if pool["cidr"] != network
        and (":" in pool["cidr"]) == is_v6
        and pool.get("enabled")
        and any(pool["name"].startswith(prefix) for prefix in prefixes)
    ]


def mode_of(pool):
    """The mode of a pool as it stands in the datastore."""
    if pool.get("ipip", "Never") != "Never":
        return "ipip"
    return "vxlan" if pool.get("vxlan", "Never") != "Never" else "bgp"


def pool_words(network, wish, there):
    """The command that makes a pool, or changes what may change in one that is there."""
    words = ["pool", "add", network]
    if there is None:
        words += ["--name", wish["name"]] + (["--block-size", str(wish["block_size"])] if wish["block_size"] else [])
    if there is None or not wish["keep_mode"]:
        how = "cross-subnet" if wish["cross_subnet"] else "always"
        words += ["--ipip=" + (how if wish["mode"] == "ipip" else "never")]
        words += ["--vxlan=" + (how if wish["mode"] == "vxlan" else "never")]
    words += ["--nat-outgoing=" + ("true" if wish["nat_outgoing"] else "false")]
    return words


def as_admin(text, username, password_file):
    """config.toml with another user of etcd."""
    lines, section = [], ""
    for line in text.splitlines():
        match = re.match(r"\s*\[(.*)\]", line)
        section = match.group(1) if match else section
        if section == "etcd" and re.match(r"\s*(username|password_file)\s*=", line):
            continue
        lines.append(line)
        if match and section == "etcd":
            lines += ["username = %s" % json.dumps(username), "password_file = %s" % json.dumps(password_file)]
    return "\n".join(lines) + "\n"


def peer_command(peer, peers_of):
    """The command for one BGP peer; one that is to be removed may be gone already."""
    begin = (["node"] if peers_of == "node" else []) + ["bgppeer"]
    if peer.get("state", "present") == "absent":
        return {"argv": begin + ["remove", peer["ip"]], "gone_ok": True}
    return {"argv": begin + ["add", peer["ip"], "as", peer["as"]]}


class Commands:
    """The commands of one call."""

    def __init__(self, module):
        self.module = module
        self.changed = False
        self.results = []
        self.diff = []
        self.begin = [PROGRAM]
        self.folder = None
        if module.params["admin"] and module.params["admin_password"] and os.path.exists(CONFIG):
            self.folder = tempfile.mkdtemp(prefix="calico-mesos-", dir="/run")
            atexit.register(shutil.rmtree, self.folder, True)
            config, password = os.path.join(self.folder, "config.toml"), os.path.join(self.folder, "password")
            with open(CONFIG, encoding="utf-8") as file:
                text = as_admin(file.read(), module.params["admin"], password)
            for path, content in ((config, text), (password, module.params["admin_password"] + "\n")):
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                    file.write(content)
            self.begin += ["--config", config]

    def run(self, words, gone_ok=False):
        words = self.begin + [str(word) for word in words]
        try:
            out = subprocess.run(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=self.module.params["timeout"], check=False
            )
        except subprocess.TimeoutExpired:
            self.module.fail_json(msg="%s did not end within %d s" % (" ".join(words), self.module.params["timeout"]))
        if out.returncode not in (0, FOUND):
            if gone_ok:
                return None
            why = out.stderr.decode(errors="replace").strip() or out.stdout.decode(errors="replace").strip()
            self.module.fail_json(msg="cannot run %s: %s" % (" ".join(words), why), rc=out.returncode)
        return out

    def change(self, command):
        """Runs one command; only to look, in check mode."""
        argv, check = command["argv"], self.module.check_mode
        if command.get("json", True):
            out = self.run(argv + ["-o", "json"] + (["--dry-run"] if check else []), command.get("gone_ok", False))
            if out is None:
                return None
            document = json.loads(out.stdout.decode())
            self.results.append(document)
            self.changed = self.changed or document["changed"]
            for one in document["objects"]:
                if one["changed"]:
                    self.show(one["object"], one["before"], one["after"])
            return document
        looked = self.run(argv + ["--dry-run"])
        found = looked.returncode == FOUND
        out = self.run(argv) if found and not check else looked
        text = out.stdout.decode(errors="replace")
        self.results.append({"changed": found, "text": text})
        self.changed = self.changed or found
        if found:
            self.diff.append({"before_header": " ".join(argv), "after_header": " ".join(argv), "before": "", "after": text})
        return None

    def pool(self, network, wish):
        """Makes the pool; returns the mode that it has then."""
        pools = json.loads(self.run(["pool", "show", "-o", "json"]).stdout.decode())
        there = next((pool for pool in pools if pool["cidr"] == network), None)
        if there and wish["block_size"] and int(there["blockSize"]) != int(wish["block_size"]):
            self.module.fail_json(
                msg="calico_block_size is %s, but the pool %s (%s) has blocks of /%s, which cannot be changed: set calico_block_size "
                "to that, or choose another calico_network"
                % (wish["block_size"], there["name"], network, there["blockSize"])
            )
        if there and not there.get("enabled"):
            self.change({"argv": ["pool", "enable", there["name"]]})
        self.change({"argv": pool_words(network, wish, there)})
        return mode_of(there) if there and wish["keep_mode"] else wish["mode"]

    def show(self, name, before, after):
        text = [json.dumps(one, indent=2, sort_keys=True) + "\n" if one is not None else "" for one in (before, after)]
        self.diff.append({"before_header": name, "after_header": name, "before": text[0], "after": text[1]})

    def disable(self, network, prefixes):
        """Disables the pools that were the cluster's before; they keep the addresses that are in use."""
        pools = json.loads(self.run(["pool", "show", "-o", "json"]).stdout.decode())
        found = pools_to_disable(pools, network, prefixes)
        for pool in found:
            self.change({"argv": ["pool", "disable", pool["name"]]})
        return ["%s (%s, %s addresses in use)" % (pool["name"], pool["cidr"], pool.get("inUse", 0)) for pool in found]


def main():
    module = AnsibleModule(
        argument_spec={
            "commands": {"type": "list", "elements": "dict", "default": []},
            "pool": {"type": "dict", "default": {}},
            "network": {"type": "str", "default": ""},
            "prefix": {"type": "list", "elements": "str", "default": []},
            "peers": {"type": "list", "elements": "dict", "default": []},
            "peers_of": {"type": "str", "choices": ["all", "node"], "default": "all"},
            "admin": {"type": "str", "default": ""},
            "admin_password": {"type": "str", "default": "", "no_log": True},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    asked = module.params
    asked["commands"] += [peer_command(peer, asked["peers_of"]) for peer in asked["peers"]]
    if module.check_mode and shutil.which(PROGRAM) is None:
        words = ["%s %s\n" % (PROGRAM, " ".join(str(word) for word in one["argv"])) for one in asked["commands"]]
        diff = {"before_header": "commands", "after_header": "commands", "before": "", "after": "".join(words)}
        mode = {"mode": asked["pool"]["mode"]} if asked["pool"] else {}
        module.exit_json(changed=True, results=[], disabled=[], diff=diff, **mode)
    commands = Commands(module)
    mode = {"mode": commands.pool(asked["network"], asked["pool"])} if asked["pool"] else {}
    for command in asked["commands"]:
        commands.change(command)
    disabled = commands.disable(asked["network"], asked["prefix"]) if asked["network"] and asked["prefix"] else []
    result = dict(mode)
    result.update({"changed": commands.changed, "results": commands.results, "disabled": disabled})
    if module._diff:  # pylint: disable=protected-access
        result["diff"] = commands.diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
