#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""Units of systemd that run with the files of now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: services_current
short_description: Starts, restarts, stops, enables and disables units of systemd, by the files that they read
description:
  - A unit is restarted when one of the files that it reads is younger than its start. So a play that was interrupted
    between writing a file and restarting its reader is made good by the next one, which a handler would not do.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: Nothing is changed in check mode.
options:
  units:
    description:
      - The units in the order in which they are treated.
      - "Each is a dictionary: C(name); C(state), C(started) (default), C(stopped) or C(current), which restarts it only if
        it runs; C(enabled), left out: as it is; C(masked), V(false) takes a mask away; C(files), what it reads;
        C(missing_ok), no error where systemd has no such unit; C(block), V(false) does not wait until it is up;
        C(restart), V(true): restart it in any case, V(false): only report that it would be; C(reload), V(true): reload where
        others restart; C(ready), a command that succeeds when it is of use, which is repeated until then for C(ready_timeout)
        seconds (60)."
    type: list
    elements: dict
    required: true
  timeout:
    description: How many seconds a unit may take.
    type: int
    default: 330
"""

EXAMPLES = r"""
- name: Run etcd with its present configuration
  services_current:
    units:
      - name: etcd.service
        enabled: true
        files: [/etc/etcd/etcd.conf]
"""

RETURN = r"""
units:
  description: What was done with each unit.
  type: dict
  returned: always
"""

import glob
import os
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

SWITCHES = ("enabled", "masked", "missing_ok", "block", "restart", "reload")
PROPERTIES = "LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,ActiveEnterTimestampMonotonic,FragmentPath,DropInPaths"


def show(name):
    """What systemd knows of a unit."""
    out = subprocess.run(["systemctl", "show", "-p", PROPERTIES, name], stdout=subprocess.PIPE, check=False)
    pairs = (line.split("=", 1) for line in out.stdout.decode().splitlines() if "=" in line)
    return dict(pairs)


def started_at(facts, monotonic=None, wall=None):
    """When the unit became active, in seconds since the epoch; None where it is not active."""
    stamp = int(facts.get("ActiveEnterTimestampMonotonic") or 0)
    if not stamp:
        return None
    now = time.clock_gettime(time.CLOCK_MONOTONIC) if monotonic is None else monotonic
    return (time.time() if wall is None else wall) - now + stamp / 1e6


def true(value):
    """A switch, which older releases of Ansible hand over as text."""
    return value if not isinstance(value, str) else value.lower() in ("true", "yes", "1", "on")


def loaded_at():
    """When systemd read its units, in seconds since the epoch."""
    out = subprocess.run(
        ["systemctl", "show", "-p", "UnitsLoadTimestampMonotonic", "--value"], stdout=subprocess.PIPE, check=False
    )
    stamp = int(out.stdout.decode().strip() or 0)
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + stamp / 1e6


def unread(units, since):
    """Files of units that systemd has not read yet: it does not see drop-ins in a folder that is new."""
    found = []
    for unit in units:
        for folder in ("/etc/systemd/system", "/lib/systemd/system"):
            path = os.path.join(folder, unit["name"])
            found += [path, path + ".d"] + glob.glob(path + ".d/*")
    return newer(found, since, changed=True)


def newer(files, since, changed=False):
    """Those of the files that were written after a moment."""
    found = []
    for path in files:
        try:
            status = os.stat(path)
        except OSError:
            continue
        # A change of mode or owner alone is no reason: the content counts.
        if (max(status.st_mtime, status.st_ctime) if changed else status.st_mtime) > since:
            found.append(path)
    return found


def plan(unit, facts, since, is_newer=newer):
    """The verbs of systemctl for a unit, and why."""
    verbs, why = [], []
    enabled = facts.get("UnitFileState", "")
    if unit.get("masked") is False and enabled in ("masked", "masked-runtime"):
        verbs.append("unmask")
    wanted = unit.get("enabled")
    if wanted is True and enabled not in ("enabled", "enabled-runtime", "static", "alias", "generated", "indirect"):
        verbs.append("enable")
    if wanted is False and enabled in ("enabled", "enabled-runtime"):
        verbs.append("disable")
    active = facts.get("ActiveState")
    runs = active in ("active", "activating", "reloading")
    state = unit.get("state", "started")
    if state == "stopped":
        if runs:
            verbs.append("stop")
        return verbs, why
    if not runs:
        if state == "started":
            verbs.append("start")
        return verbs, why
    if unit.get("restart"):
        why.append("asked for")
    elif active == "active" and since is not None:
        read = list(unit.get("files", []))
        # A socket whose service runs cannot be restarted; its new file counts at the next boot.
        if not unit["name"].endswith(".socket"):
            read += [path for path in [facts.get("FragmentPath")] + facts.get("DropInPaths", "").split() if path]
        why += ["%s is younger than its start" % path for path in is_newer(read, since)]
    elif active == "activating" and unit.get("files"):
        # It has not come up: what it read is not known.
        why.append("it has not come up yet")
    if why and unit.get("restart") is not False:
        verbs.append("reload" if unit.get("reload") else "restart")
    return verbs, why


class Units:
    """The units of one call."""

    def __init__(self, module):
        self.module = module

    def run(self, verb, unit):
        words = ["systemctl", verb]
        if verb in ("start", "restart") and unit.get("block") is False:
            words.append("--no-block")
        words += ["--", unit["name"]]
        try:
            out = subprocess.run(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=self.module.params["timeout"], check=False
            )
        except subprocess.TimeoutExpired:
            self.fail(unit, verb, "it did not end within %d s" % self.module.params["timeout"])
            return
        if out.returncode != 0:
            self.fail(unit, verb, " ".join(out.stdout.decode(errors="replace").split()))

    def fail(self, unit, verb, why):
        name = unit["name"]
        log = subprocess.run(
            ["journalctl", "--no-pager", "-o", "cat", "-n", "6", "-u", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.module.fail_json(
            msg="cannot %s %s: %s; its last lines in the journal: %s"
            % (verb, name, why, log.stdout.decode(errors="replace").strip()),
            unit=name,
        )

    def wait(self, unit):
        """Waits until a unit is of use."""
        end = time.monotonic() + int(unit.get("ready_timeout", 60))
        while True:
            try:
                out = subprocess.run(unit["ready"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, check=False)
                if out.returncode == 0:
                    return
                why = " ".join(out.stdout.decode(errors="replace").split())[-300:]
            except (OSError, subprocess.TimeoutExpired) as error:
                why = str(error)
            if time.monotonic() > end:
                self.fail(unit, "wait for", "%s did not succeed: %s" % (" ".join(unit["ready"]), why))
            time.sleep(0.5)

    def current(self, unit):
        """Brings one unit to what is wanted; returns what was done."""
        facts = show(unit["name"])
        if facts.get("LoadState") == "not-found":
            if unit.get("missing_ok") or unit.get("state") == "stopped" or self.module.check_mode:
                # In check mode the file of the unit may not be written yet.
                wanted = unit.get("state", "started") == "started" and not unit.get("missing_ok")
                verbs = ["start"] if wanted else []
                return {"verbs": verbs, "why": ["systemd has no such unit yet"],
                    "stale": False, "active": False}
            self.module.fail_json(msg="systemd has no unit %s: install it first" % unit["name"], unit=unit["name"])
        verbs, why = plan(unit, facts, started_at(facts))
        if not self.module.check_mode:
            for verb in verbs:
                self.run(verb, unit)
        return {"verbs": verbs, "why": why, "stale": bool(why), "active": facts.get("ActiveState") == "active"}


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True},
            "timeout": {"type": "int", "default": 330},
        },
        supports_check_mode=True,
    )
    units = Units(module)
    for unit in module.params["units"]:
        unit.update({key: true(unit[key]) for key in SWITCHES if unit.get(key) is not None})
    if not module.check_mode and (
        unread(module.params["units"], loaded_at())
        or any(show(unit["name"]).get("NeedDaemonReload") == "yes" for unit in module.params["units"])
    ):
        subprocess.run(["systemctl", "daemon-reload"], check=False)
    done = {unit["name"]: units.current(unit) for unit in module.params["units"]}
    for unit in module.params["units"]:
        if unit.get("ready") and not module.check_mode:
            units.wait(unit)
    changed = any(one["verbs"] for one in done.values())
    result = {"changed": changed, "units": done}
    if module._diff and changed:  # pylint: disable=protected-access
        lines = ["systemctl %s %s\n" % (verb, name) for name, one in done.items() for verb in one["verbs"]]
        result["diff"] = {"before_header": "units", "after_header": "units", "before": "", "after": "".join(lines)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
