#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""Takes a host out of Calico, Docker and Consul."""

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_remains
short_description: Takes what a host has of Calico out of the datastore, of Docker, of Consul and of the kernel
description:
  - Refused while tasks with Calico addresses live on the host, or containers have the runtime.
  - The programs of calico-mesos do it, as long as they are there.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: Nothing is changed in check mode.
options:
  look:
    description: Only look, and refuse where tasks live.
    type: bool
    default: false
  admin:
    description: A user of etcd who may remove nodes; empty, that of config.toml.
    type: str
    default: ""
  admin_password:
    description: Its password.
    type: str
    default: ""
  image:
    description: The name of calico/node's image, which is removed besides the one in calico.env.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Take the host out
  calico_remains:
    image: calico/node:v3.32.1
"""

RETURN = r"""
any:
  description: Whether there is anything of Calico.
  type: bool
  returned: always
done:
  description: What was done.
  type: list
  returned: always
"""

import json
import os
import re
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule

PROGRAM = "calico-mesos"
LINKS = ("vxlan.calico", "vxlan-v6.calico", "wireguard.cali")


def run(words, text=None):
    """(exit code, output, errors) of a program; 127 where it is not there."""
    try:
        out = subprocess.run(
            words, input=text.encode() if text is not None else None, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False
        )
    except OSError as error:
        return 127, "", str(error)
    except subprocess.TimeoutExpired:
        return 124, "", "it did not end within 120 s"
    return out.returncode, out.stdout.decode(errors="replace"), out.stderr.decode(errors="replace").strip()


def setting(name, path="/etc/calico/calico.env"):
    """A setting of calico/node."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    return next((line.split("=", 1)[1].strip("\"'") for line in lines if line.startswith(name + "=")), "")


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


def without_calico(rules):
    """What iptables-save printed, without Felix's chains and the rules that lead to them; None where there are none."""
    lines = rules.splitlines()
    kept = [line for line in lines if not re.match(r":cali-|-A cali-", line) and "cali" not in re.findall(r'--comment "?(\w+):', line)]
    kept = [line for line in kept if not re.search(r" -[jg] cali-", line)]
    return None if kept == lines else "\n".join(kept) + "\n"


class Remains:
    """What is left of Calico on this host."""

    def __init__(self, module):
        self.module = module
        self.done = []

    def refuse_tasks(self):
        if shutil.which(PROGRAM) is None:
            return
        code, out, _ = run([PROGRAM, "task", "list", "-o", "json"])
        tasks = json.loads(out or "[]") if code == 0 else []
        names = [str(task.get("task") or task.get("id") or task.get("task_id") or "a task") for task in tasks]
        if names:
            self.module.fail_json(
                msg="calico_state is absent, and %d Calico tasks live on this host (%s): end them, or drain the agent first"
                % (len(names), ", ".join(names[:10]))
            )
        code, out, errors = run([PROGRAM, "node", "uninstall-runtime", "--dry-run"])
        if code not in (0, 3) and "still use" in errors:
            self.module.fail_json(msg="calico_state is absent: %s" % errors)

    def do(self, what, words):
        """A command that is repeated without harm; what it says when it fails is the play's failure."""
        self.done.append(what)
        if self.module.check_mode:
            return
        code, _, errors = run(words)
        if code != 0:
            self.module.fail_json(msg="cannot run %s: %s" % (" ".join(words), errors), done=self.done)

    def programs(self):
        if shutil.which(PROGRAM) is None:
            return
        if run([PROGRAM, "node", "uninstall", "--dry-run"])[0] == 3:
            self.do("runtime and launcher folder", [PROGRAM, "node", "uninstall", "--reload"])
        if run([PROGRAM, "calicoctl", "uninstall", "--dry-run"])[0] == 3:
            self.do("calicoctl", [PROGRAM, "calicoctl", "uninstall"])
        self.node()

    def node(self):
        """The node's records, as if from another host: no host removes its own, unless it is on its way out."""
        name = setting("NODENAME") or setting("CALICO_NODENAME")
        if not name:
            return
        config = "/etc/calico-mesos/config.toml"
        with open(config, encoding="utf-8") as file:
            text = re.sub(r"(?m)^\s*name\s*=.*$", 'name = "on-its-way-out"', file.read())
        other, password = "/etc/calico-mesos/on-its-way-out.toml", "/etc/calico-mesos/on-its-way-out"
        if self.module.params["admin"] and self.module.params["admin_password"]:
            text = as_admin(text, self.module.params["admin"], password)
            if not self.module.check_mode:
                with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                    file.write(self.module.params["admin_password"] + "\n")
        words = [PROGRAM, "--config", other, "node", "remove", name, "--yes"]
        if not self.module.check_mode:
            with open(other, "w", encoding="utf-8") as file:
                file.write(text)
        try:
            code, out, errors = run(words + ["--dry-run", "-o", "json"]) if not self.module.check_mode else (3, "", "")
            if code == 3:
                self.do("node %s" % name, words)
            elif code != 0 and "no node" not in errors and "no such node" not in errors and "does not know" not in errors:
                self.module.warn("the node %s stays in Calico's datastore: %s" % (name, errors or out))
        finally:
            for path in (other, password):
                if os.path.exists(path):
                    os.unlink(path)

    def consul(self):
        feed = ["/usr/lib/calico-mesos/consul-feed", "/etc/calico-mesos/consul-service.json"]
        if all(os.path.exists(path) for path in feed):
            self.do("service calico in Consul", feed + ["--remove"])

    def docker(self, image):
        if shutil.which("docker") is None:
            return
        if run(["docker", "container", "inspect", "calico-node"])[0] == 0:
            self.do("container calico-node", ["docker", "rm", "-f", "calico-node"])
        good = setting("CALICO_IMAGE", "/etc/calico/calico.env.good")
        for one in {setting("CALICO_IMAGE"), good, image} - {""}:
            if run(["docker", "image", "inspect", one])[0] == 0:
                self.do("image %s" % one, ["docker", "rmi", "-f", one])

    def kernel(self):
        for link in LINKS:
            if os.path.exists("/sys/class/net/" + link):
                self.do("link %s" % link, ["ip", "link", "del", link])
        for family in ("iptables", "ip6tables"):
            for backend in ("nft", "legacy"):
                code, rules, _ = run(["%s-%s-save" % (family, backend)]) if backend == "nft" or self.has_legacy(family) else (1, "", "")
                kept = without_calico(rules) if code == 0 else None
                if kept is not None:
                    self.done.append("rules of %s-%s" % (family, backend))
                    if not self.module.check_mode:
                        run(["%s-%s-restore" % (family, backend)], kept)
        for route in json.loads(run(["ip", "-j", "route"])[1] or "[]"):
            if route.get("protocol") in ("bird", "80") and route.get("dst"):
                self.do("route %s" % route["dst"], ["ip", "route", "del", route["dst"], "proto", str(route["protocol"])])
        code, out, _ = run(["ipset", "list", "-n"])
        for name in [name for name in out.split() if name.startswith("cali")] if code == 0 else []:
            self.do("set %s" % name, ["ipset", "destroy", name])

    @staticmethod
    def has_legacy(family):
        """Looking at the legacy tables would load them."""
        names = {"iptables": "/proc/net/ip_tables_names", "ip6tables": "/proc/net/ip6_tables_names"}[family]
        try:
            with open(names, encoding="utf-8") as file:
                return bool(file.read().strip())
        except OSError:
            return False


def main():
    module = AnsibleModule(
        argument_spec={
            "look": {"type": "bool", "default": False},
            "image": {"type": "str", "default": ""},
            "admin": {"type": "str", "default": ""},
            "admin_password": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    there = shutil.which(PROGRAM) is not None or os.path.exists("/etc/calico/calico.env")
    remains = Remains(module)
    remains.refuse_tasks()
    if not module.params["look"] and there:
        remains.consul()
        remains.docker(module.params["image"])
        remains.programs()
        remains.kernel()
    done = remains.done
    diff = {"before_header": "Calico", "after_header": "Calico", "before": "".join(one + "\n" for one in done), "after": ""}
    module.exit_json(changed=bool(done), any=there, done=done, diff=diff)


if __name__ == "__main__":
    main()
