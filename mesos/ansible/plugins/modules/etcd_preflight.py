#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""What the role etcd has to know of a host, and what speaks against a change of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_preflight
short_description: Looks at a host, and at the variables of the role etcd, before the role changes anything
description:
  - Only reads. It fails with all problems that it finds, a sentence each, which names the variable, its value and the remedy.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: It never changes anything.
options:
  settings:
    description: The variables of the role etcd, without the prefix C(etcd_).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Look at the host before anything is changed
  etcd_preflight:
    settings: "{{ etcd_settings }}"
"""

RETURN = r"""
address:
  description: The address at which the others reach this host.
  type: str
  returned: always
data:
  description: Whether the data of a member lie here.
  type: bool
  returned: always
cluster:
  description: The members by the running cluster, where this host's member answers.
  type: list
  returned: always
missing:
  description: Whether a program is missing.
  type: bool
  returned: always
booted:
  description: The members with which this host's member was made, by the file that the role left.
  type: dict
  returned: always
"""

import ipaddress
import json
import os
import re
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule

SCHEMES = ("http", "https")
STATES = ("auto", "new", "existing")
DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+")


def number(text):
    """The whole number that a variable holds; None where it holds something else."""
    if isinstance(text, bool):
        return None
    return int(str(text)) if re.fullmatch(r"[0-9]+", str(text)) else None


def port_problems(settings):
    """Sentences about the ports."""
    problems = []
    for name in ("client_port", "peer_port"):
        value = number(settings[name])
        if value is None or not 0 < value < 65536:
            problems.append(
                "etcd_%s is %r, which is not a port: set it to a number from 1 to 65535" % (name, settings[name])
            )
    if not problems and number(settings["client_port"]) == number(settings["peer_port"]):
        problems.append(
            "etcd_client_port and etcd_peer_port are both %s: give etcd_peer_port another port" % settings["client_port"]
        )
    return problems


def user_problems(settings):
    """Sentences about etcd's users. etcdctl reads a password up to the first blank, and files of settings have quotes."""
    if not settings["auth"]:
        return []
    problems = []
    if not settings["has_root_password"]:
        problems.append("etcd_auth is true, and etcd_root_password is empty: set it, from a vault")
    if settings["incomplete_users"]:
        problems.append("etcd_users has users without name or role: write {name: calico-mesos, role: calico-mesos}")
    if settings["odd_passwords"]:
        problems.append(
            "etcd_users (and etcd_root_password) have passwords with a blank, quote, backslash, dollar or backtick (%s): choose "
            "others" % ", ".join(settings["odd_passwords"])
        )
    return problems


def variable_problems(settings):
    """Sentences about variables that make no sense on any host."""
    problems = port_problems(settings) + user_problems(settings)
    for name in ("url_scheme", "peer_url_scheme"):
        if settings[name] not in SCHEMES:
            problems.append("etcd_%s is %r: set it to http or https" % (name, settings[name]))
    if settings["initial_cluster_state"] not in STATES:
        problems.append(
            "etcd_initial_cluster_state is %r: set it to %s" % (settings["initial_cluster_state"], ", ".join(STATES))
        )
    if number(settings["quota_backend_bytes"]) is None:
        problems.append(
            "etcd_quota_backend_bytes is %r, which is not a number of bytes: set it to 2147483648, for example"
            % settings["quota_backend_bytes"]
        )
    retention = str(settings["auto_compaction_retention"])
    if not DURATION.fullmatch(retention):
        problems.append(
            "etcd_auto_compaction_retention is %r, which is not a time: set it to 1h, for example" % retention
        )
    for name in ("conf_dir", "script_dir", "data_dir"):
        if not str(settings[name]).startswith("/") or str(settings[name]).rstrip("/") == "":
            problems.append("etcd_%s is %r, which is not the absolute path of a folder" % (name, settings[name]))
    return problems


def group_problems(settings):
    """Sentences about the members."""
    group, members = settings["group_name"], settings["members"]
    named = "etcd_group_name is %r, a group of %d hosts (%s)" % (group, len(members), ", ".join(members))
    if not members:
        return ["etcd_group_name is %r, a group without hosts: put one, three or five hosts into it" % group]
    if len(members) > 7:
        return [named + ": etcd has at most 7 members; take hosts out of the group"]
    if len(members) % 2 == 0 and not settings["allow_even"]:
        return [
            named + ": an even number of members bears no more failures than one less; take a host out of the group, "
            "put one in, or set etcd_allow_even to true"
        ]
    return []


def shrunk(settings, cluster, booted):
    """The sentence about members that are not in the group any more."""
    known = [member["name"] for member in cluster if member["name"]] or sorted(booted)
    gone = sorted(set(known) - set(settings["members"].values()))
    if not gone:
        return []
    remove = ", ".join(
        "etcdctl member remove %s" % member["id"] for member in cluster if member["name"] in gone
    ) or "etcdctl member remove, when the cluster runs again"
    return [
        "etcd_group_name is %r and has %s, but %s a member of the running cluster and not in it: put it back into the group, "
        "or remove it first (%s)"
        % (
            settings["group_name"],
            ", ".join(settings["members"]),
            " and ".join(gone) + (" is" if len(gone) == 1 else " are each"),
            remove,
        )
    ]


def moved(settings, cluster, address):
    """The sentence about a member of this name at another place."""
    wanted = "%s://%s:%s" % (settings["peer_url_scheme"], host_of(address), settings["peer_port"])
    for member in cluster:
        if member["name"] == settings["name"] and member["peers"] and wanted not in member["peers"]:
            if settings.get("initial_advertise_peer_urls") in (None, "", wanted):
                return [
                    "etcd_peer_port is %s and the address %s, but the cluster reaches the member %s at %s: change it there "
                    "first (etcdctl member update %s --peer-urls=%s)"
                    % (settings["peer_port"], address, member["name"], ", ".join(member["peers"]), member["id"], wanted)
                ]
    return []


def file_problems(settings, exists=os.path.exists):
    """Sentences about files that have to be here, or come with the play, and do not."""
    problems = []
    wanted = []
    if settings["url_scheme"] == "https":
        wanted += ["ca_file", "client_cert_file", "client_key_file"]
        wanted += ["cert_file", "key_file"] if settings["is_member"] else []
    if settings["peer_url_scheme"] == "https" and settings["is_member"]:
        wanted += ["peer_ca_file", "peer_cert_file", "peer_key_file"]
    missing = ["%s (etcd_%s)" % (settings[name], name) for name in wanted if not exists(settings[name])]
    if missing and not settings["pki_dir"]:
        problems.append(
            "etcd_url_scheme is %s, and this host does not have %s: put these files there, or set etcd_pki_dir to a folder of the "
            "playbook etcd_ca" % (settings["url_scheme"], ", ".join(missing))
        )
    return problems


def host_of(address):
    """An address as it stands in a URL."""
    return "[%s]" % address if ":" in str(address) else str(address)


def run(words, timeout=8, env=None):
    """A program's output; None where it failed or is not there."""
    try:
        out = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout, env=env, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.decode(errors="replace") if out.returncode == 0 else None


def addresses():
    """This host's own addresses, and the one of its default route."""
    own = []
    for link in json.loads(run(["ip", "-j", "addr"]) or "[]"):
        own += [part["local"] for part in link.get("addr_info", []) if part.get("scope") == "global" and "local" in part]
    default = None
    for family, probe in (("-4", "192.0.2.1"), ("-6", "2001:db8::1")):
        route = json.loads(run(["ip", family, "-j", "route", "get", probe]) or "[]")
        default = default or next((one["prefsrc"] for one in route if one.get("prefsrc")), None)
    return own, default


def etcdctl(settings, address, words):
    """What etcdctl prints about this host's member."""
    env = dict(os.environ, ETCDCTL_API="3")
    env["ETCDCTL_ENDPOINTS"] = "%s://%s:%s" % (settings["url_scheme"], host_of(address), settings["client_port"])
    if settings["url_scheme"] == "https":
        env.update(
            ETCDCTL_CACERT=settings["ca_file"],
            ETCDCTL_CERT=settings["client_cert_file"],
            ETCDCTL_KEY=settings["client_key_file"],
        )
    return run(["etcdctl", "--dial-timeout=2s", "--command-timeout=4s"] + words, env=env)


def parse_members(text):
    """The members from etcdctl's JSON."""
    try:
        listed = json.loads(text or "")["members"]
    except (ValueError, KeyError):
        return []
    return [
        {
            "id": "%x" % one["ID"],
            "name": one.get("name", ""),
            "peers": one.get("peerURLs", []),
            "clients": one.get("clientURLs", []),
        }
        for one in listed
    ]


def read_booted(path):
    """ETCD_INITIAL_CLUSTER of the file that a member was made with, as a dictionary."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in lines:
        if line.startswith("ETCD_INITIAL_CLUSTER="):
            pairs = line.split("=", 1)[1].strip("\"'").split(",")
            return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {}


def strangers(settings):
    """How many keys an etcd of this host has whose data lie elsewhere; 0 where there is none."""
    pid = (run(["systemctl", "show", "-p", "MainPID", "--value", "etcd.service"]) or "0").strip()
    try:
        with open("/proc/%s/environ" % int(pid), "rb") as file:
            environment = file.read().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return 0, ""
    folder = next((pair.split("=", 1)[1] for pair in environment if pair.startswith("ETCD_DATA_DIR=")), "")
    if not folder or os.path.realpath(folder) == os.path.realpath(settings["data_dir"]):
        return 0, ""
    url = next((pair.split("=", 1)[1] for pair in environment if pair.startswith("ETCD_ADVERTISE_CLIENT_URLS=")), "")
    env = dict(os.environ, ETCDCTL_API="3", ETCDCTL_ENDPOINTS=url.strip("\"'") or "http://localhost:2379")
    out = run(
        ["etcdctl", "--dial-timeout=2s", "--command-timeout=4s", "get", "", "--from-key", "--limit=1", "--keys-only"], env=env
    )
    return (1 if (out or "").strip() else 0), folder


def look(settings):
    """Facts and problems of this host."""
    problems = variable_problems(settings) + group_problems(settings)
    own, default = addresses()
    address = settings["address"] or default or ""
    if not address:
        problems.append(
            "etcd_address is empty, and this host has no default route: set private_ipv4 to the address at which the other "
            "hosts reach it"
        )
    elif settings["is_member"] and settings["address"]:
        try:
            ipaddress.ip_address(address)
            if address not in own:
                problems.append(
                    "etcd_address (private_ipv4) is %s, which this host does not have (it has %s): set private_ipv4 to one of "
                    "them" % (address, ", ".join(own) or "none")
                )
        except ValueError:
            pass  # A name, which only the resolver knows.
    data = os.path.isdir(os.path.join(settings["data_dir"], "member", "wal"))
    programs = ["etcd", "etcdctl"] if settings["is_member"] else ["etcdctl"]
    missing = any(shutil.which(name) is None for name in programs)
    facts = {"address": address, "data": data, "cluster": [], "booted": {}, "missing": missing}
    if settings["is_member"] and not problems:
        facts["booted"] = read_booted(os.path.join(settings["conf_dir"], "bootstrap.env")) if data else {}
        if data:
            facts["cluster"] = parse_members(etcdctl(settings, address, ["-w", "json", "member", "list"]))
        problems += shrunk(settings, facts["cluster"], facts["booted"])
        problems += moved(settings, facts["cluster"], address)
        problems += file_problems(settings)
        keys, folder = (0, "") if data else strangers(settings)
        if keys:
            problems.append(
                "etcd_data_dir is %s, but etcd.service of this host runs with data in %s, which are in use: set etcd_data_dir "
                "to that folder to take the member over, or stop it" % (settings["data_dir"], folder)
            )
    elif not problems:
        problems += file_problems(settings)
    return facts, problems


def main():
    module = AnsibleModule(argument_spec={"settings": {"type": "dict", "required": True}}, supports_check_mode=True)
    facts, problems = look(module.params["settings"])
    if problems:
        module.fail_json(msg="; ".join(problems))
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
