#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""A host becomes a member of the etcd cluster, once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_member
short_description: Makes a host a member of a new or of an existing etcd cluster
description:
  - A host that has a member's data is left alone. In a new cluster it gets the list of all members. In an existing one it
    is added, replacing a member of its name whose data are lost, and started; so call it for one host at a time. C(etcdctl) finds
    the cluster by the task's environment.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: Nothing is changed in check mode.
options:
  name:
    description: The member's name.
    type: str
    required: true
  members:
    description: The URLs of all members for one another, by their names.
    type: dict
    required: true
  hosts:
    description: What etcd_preflight returned on the members' hosts, by their names.
    type: dict
    required: true
  state:
    description: V(auto), or what to write into ETCD_INITIAL_CLUSTER_STATE in any case.
    type: str
    default: auto
  token:
    description: ETCD_INITIAL_CLUSTER_TOKEN.
    type: str
    required: true
  data_dir:
    description: The folder of the member's data.
    type: path
    required: true
  file:
    description: The file of settings that are read when a member is made.
    type: path
    required: true
  timeout:
    description: How many seconds a member may take to join an existing cluster.
    type: int
    default: 90
"""

EXAMPLES = r"""
- name: Make this host a member
  etcd_member:
    name: h1
    members: {h1: "http://10.0.0.1:2380"}
    hosts: {h1: {data: false, cluster: [], booted: {}}}
    token: etcd-mesos
    data_dir: /var/lib/etcd
    file: /etc/etcd/bootstrap.env
"""

RETURN = r"""
how:
  description: What was done; V(kept), V(new) or V(existing).
  type: str
  returned: always
"""

import json
import os
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule


def decide(name, members, hosts, state):
    """How this host becomes a member: new or existing; or an error's sentence."""
    living = [one for one in hosts.values() if one.get("cluster")]
    if state != "auto":
        return state, None
    if living:
        return "existing", None
    others = sorted(other for other, facts in hosts.items() if facts.get("data") and other != name)
    # Members that were made with this very list and never became a cluster: the play was interrupted.
    if all(hosts[other].get("booted") == members for other in others):
        return "new", None
    return None, (
        "%s has no data, and the members that have (%s) do not answer: start etcd there, then run the play again; a cluster "
        "is never made anew over existing data" % (name, ", ".join(others))
    )


def settings_text(name, members, state, token):
    """The content of the file that etcd reads when a member is made."""
    pairs = ",".join("%s=%s" % pair for pair in sorted(members.items()))
    return (
        "# Written by the role etcd when this member was made; etcd ignores it once there are data.\n"
        "ETCD_INITIAL_ADVERTISE_PEER_URLS=%s\nETCD_INITIAL_CLUSTER=%s\nETCD_INITIAL_CLUSTER_STATE=%s\n"
        "ETCD_INITIAL_CLUSTER_TOKEN=%s\n" % (members[name], pairs, state, token)
    )


def is_member(data_dir):
    return os.path.isdir(os.path.join(data_dir, "member", "wal"))


class Join:
    """A host's way into a running cluster."""

    def __init__(self, module, endpoints):
        self.module = module
        self.env = {**os.environ, "ETCDCTL_API": "3"}
        self.env["ETCDCTL_ENDPOINTS"] = ",".join(endpoints)

    def run(self, *words):
        return subprocess.run(
            ["etcdctl", "--dial-timeout=3s", "--command-timeout=10s", "-w", "json"] + list(words),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )

    def etcdctl(self, *words):
        out = self.run(*words)
        if out.returncode != 0:
            why = out.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            self.module.fail_json(msg="cannot run etcdctl %s: %s" % (" ".join(words), why[-1]))
        return json.loads(out.stdout.decode())

    def members(self):
        return self.etcdctl("member", "list")["members"]

    def add(self, name, url):
        """Adds the member, instead of one whose data are lost; returns the members to begin with."""
        for one in self.members():
            if url in one.get("peerURLs", []) and one.get("name"):
                # Its data are gone: it may not come back under the same identity.
                self.etcdctl("member", "remove", "%x" % one["ID"])
        left = self.members()
        self.env["ETCDCTL_ENDPOINTS"] = ",".join(client for one in left for client in one.get("clientURLs", []))
        if not any(url in one.get("peerURLs", []) for one in left):
            # Refused as long as the cluster would be without a majority.
            self.until(
                lambda: self.run("member", "add", name, "--peer-urls=%s" % url).returncode == 0,
                "the cluster to take another member",
            )
        return {one.get("name") or name: one["peerURLs"][0] for one in self.members()}

    def until(self, done, what):
        end = time.monotonic() + self.module.params["timeout"]
        while not done():
            if time.monotonic() > end:
                self.module.fail_json(msg="waited %d s in vain for %s" % (self.module.params["timeout"], what))
            time.sleep(0.5)

    def started(self, url):
        return any(url in one.get("peerURLs", []) and one.get("name") and one.get("clientURLs") for one in self.members())


def write(path, text):
    """A file for the user etcd to read by systemd, as a whole or not at all."""
    new = path + ".new"
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    os.rename(new, path)


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "members": {"type": "dict", "required": True},
            "hosts": {"type": "dict", "required": True},
            "state": {"type": "str", "default": "auto"},
            "token": {"type": "str", "required": True, "no_log": False},
            "data_dir": {"type": "path", "required": True},
            "file": {"type": "path", "required": True},
            "timeout": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    asked = module.params
    name, members = asked["name"], asked["members"]
    if is_member(asked["data_dir"]):
        module.exit_json(changed=False, how="kept")
    how, problem = decide(name, members, asked["hosts"], asked["state"])
    if problem:
        module.fail_json(msg=problem)
    text = settings_text(name, members, how, asked["token"])
    before = ""
    if os.path.exists(asked["file"]):
        with open(asked["file"], encoding="utf-8") as file:
            before = file.read()
    result = {"changed": before != text, "how": how}
    result["diff"] = {"before_header": asked["file"], "after_header": asked["file"], "before": before, "after": text}
    if module.check_mode:
        module.exit_json(**result)
    if how == "new":
        write(asked["file"], text)
        module.exit_json(**result)
    endpoints = [url for facts in asked["hosts"].values() for one in facts.get("cluster", []) for url in one["clients"]]
    join = Join(module, sorted(set(endpoints)))
    begin = join.add(name, members[name])
    write(asked["file"], settings_text(name, begin, how, asked["token"]))
    subprocess.run(["systemctl", "daemon-reload"], check=False)
    subprocess.run(["systemctl", "restart", "--no-block", "etcd.service"], check=False)
    join.until(lambda: join.started(members[name]), "the member %s to join; see journalctl -u etcd on its host" % name)
    result["changed"] = True
    module.exit_json(**result)


if __name__ == "__main__":
    main()
