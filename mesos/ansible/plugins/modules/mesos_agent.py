#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""Flags of a Mesos agent, kept the way its host keeps them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mesos_agent
short_description: Sets flags of the Mesos agent where its host keeps them, restarts it if that is safe, and reads them back
description:
  - Knows the folder of files of the Mesosphere packages (C(/etc/mesos-slave/launcher_dir)), the environment file of a unit
    (C(MESOS_LAUNCHER_DIR=...)), and makes a drop-in for a unit that has neither.
  - An agent is restarted only if it runs and what it runs with differs, and never where the unit would kill executors.
    Afterwards the flags are read from C(/proc) of the running process.
  - What was there before is kept in a file of its own, for V(absent).
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: Nothing is changed in check mode.
options:
  phase:
    description: V(look) only reads, and fails where V(apply) would have to.
    type: str
    choices: [look, apply]
    default: apply
  state:
    description: V(absent) gives the flags back what they had before.
    type: str
    choices: [present, absent]
    default: present
  units:
    description: The names that the agent's unit may have.
    type: list
    elements: str
    default: [mesos-slave, mesos-agent]
  keep_in:
    description: Where the flags are kept; V(auto) finds out.
    type: str
    choices: [auto, files, environment, drop-in]
    default: auto
  flags:
    description: The flags with their values; an empty value takes a flag away that was set here.
    type: dict
    default: {}
  attribute:
    description: An attribute that is added to those that the agent has, such as V(calico:true).
    type: str
    default: ""
  executor_environment:
    description: Variables that are added to C(--executor_environment_variables); those without a value are taken out.
    type: dict
    default: {}
  restart:
    description: V(auto), V(never), or V(force), also where that kills executors.
    type: str
    choices: [auto, never, force]
    default: auto
  memory:
    description: The file that keeps what was there before.
    type: path
    default: /var/lib/calico-mesos/agent-flags.json
  timeout:
    description: How many seconds the agent may take to come back.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Launch Docker tasks by our executor
  mesos_agent:
    flags: {launcher_dir: /usr/lib/calico-mesos/launcher}
"""

RETURN = r"""
unit:
  description: The agent's unit; empty where there is none.
  type: str
  returned: always
kept_in:
  description: Where its flags are kept.
  type: str
  returned: always
restarted:
  description: Whether it was restarted, or would be.
  type: bool
  returned: always
"""

import json
import os
import re
import shutil
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

PROGRAMS = ("mesos-slave", "mesos-agent", "lt-mesos-slave", "lt-mesos-agent")
SHOWN = "LoadState,ActiveState,MainPID,KillMode,ExecStart,EnvironmentFiles,ControlGroup"
SAFE = ("process", "none")
POLICY_SINCE = (1, 5)


def show(unit):
    """What systemd knows of a unit; a property that is there several times is a list."""
    out = subprocess.run(["systemctl", "show", "-p", SHOWN, unit], stdout=subprocess.PIPE, check=False).stdout.decode()
    facts = {"EnvironmentFiles": []}
    for line in out.splitlines():
        name, _, value = line.partition("=")
        if name == "EnvironmentFiles":
            facts[name].append(value.split(" (ignore_errors")[0])
        else:
            facts[name] = value
    return facts


def variable(flag):
    return "MESOS_" + flag.upper()


class Folder:
    """A file a flag, as mesos-init-wrapper reads them."""

    kind = "files"

    def __init__(self, place):
        self.place = place

    def read(self, flag):
        return read(os.path.join(self.place, flag), strip=True)

    def text(self, changes):
        """The files that these values make, with what they are to hold; None: no such file."""
        return {os.path.join(self.place, flag): None if value is None else value + "\n" for flag, value in changes.items()}


class Lines:
    """NAME=value in a file that systemd, or a shell, reads."""

    kind = "environment"
    begin = ""

    def __init__(self, place):
        self.place = place

    def line(self, flag, value):
        return "%s=%s" % (variable(flag), quoted(value))

    def match(self, flag):
        return re.compile(r"\s*(?:export\s+)?%s=(.*)" % variable(flag))

    def unquote(self, text):
        text = text.strip()
        if len(text) > 1 and text[0] == text[-1] == "'":
            return text[1:-1].replace("'\\''", "'")
        if len(text) > 1 and text[0] == text[-1] == '"':
            return re.sub(r'\\([\\"`$])', r"\1", text[1:-1])
        return text

    def read(self, flag):
        found = None
        for line in (read(self.place) or "").splitlines():
            match = self.match(flag).fullmatch(line)
            found = self.unquote(match.group(1)) if match else found
        return found

    def text(self, changes):
        lines = (read(self.place) or self.begin).splitlines()
        for flag, value in changes.items():
            kept = [line for line in lines if not self.match(flag).fullmatch(line)]
            at = next((number for number, line in enumerate(lines) if self.match(flag).fullmatch(line)), len(kept))
            lines = kept if value is None else kept[:at] + [self.line(flag, value)] + kept[at:]
        text = "\n".join(lines) + "\n"
        nothing = not "".join(lines).strip() or (self.begin and text.strip() == self.begin.strip())
        return {self.place: None if nothing else text}


class DropIn(Lines):
    """Environment= of a drop-in for the unit."""

    kind = "drop-in"
    begin = "# Written by the role calico.\n[Service]\n"

    def line(self, flag, value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
        return 'Environment="%s=%s"' % (variable(flag), escaped)

    def match(self, flag):
        return re.compile(r'Environment="%s=(.*)"' % variable(flag))

    def unquote(self, text):
        return re.sub(r"\\(.)", r"\1", text).replace("%%", "%")


def quoted(value):
    """A value as both systemd and a shell read it."""
    return value if re.fullmatch(r"[A-Za-z0-9_./:,;=@+-]*", value) else "'%s'" % value.replace("'", "'\\''")


def read(path, strip=False):
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return None
    return text.strip() if strip else text


def place(unit, facts, keep_in):
    """Where the flags of a unit are kept."""
    words = facts.get("ExecStart", "")
    name = unit[: -len(".service")] if unit.endswith(".service") else unit
    files = [path for path in facts["EnvironmentFiles"] if "mesos" in os.path.basename(path)] or facts["EnvironmentFiles"]
    wrapper = "mesos-init-wrapper" in words
    if keep_in == "files" or (keep_in == "auto" and (wrapper or (os.path.isdir("/etc/" + name) and not files))):
        return Folder("/etc/mesos-slave" if wrapper and re.search(r"wrapper slave\b", words) else "/etc/" + name)
    if keep_in == "environment" or (keep_in == "auto" and files):
        return Lines(files[-1] if files else "/etc/default/" + name)
    return DropIn("/etc/systemd/system/%s.service.d/calico-mesos.conf" % name)


class Process:
    """The running agent."""

    def __init__(self, pid):
        self.pid = pid
        self.words = (read_bytes("/proc/%d/cmdline" % pid) or "").split("\0")
        self.variables = (read_bytes("/proc/%d/environ" % pid) or "").split("\0")

    def flag(self, flag):
        """A flag's value; the command line wins, as in Mesos."""
        for begin, texts in (("--%s=" % flag, self.words), (variable(flag) + "=", self.variables)):
            for text in texts:
                if text.startswith(begin):
                    return text[len(begin) :]
        return None

    def on_command_line(self, flag):
        return any(word.startswith("--%s=" % flag) for word in self.words)


def read_bytes(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return None


def processes(facts):
    """The pids of a unit's cgroup."""
    for root in ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        text = read(root + facts.get("ControlGroup", "/nowhere") + "/cgroup.procs")
        if text is not None:
            return [int(pid) for pid in text.split()]
    return []


def running(facts):
    """The agent of a unit: the main process, or what a wrapper has started."""
    main = int(facts.get("MainPID") or 0)
    if facts.get("ActiveState") not in ("active", "reloading") or not main:
        return None
    for pid in [main] + processes(facts):
        words = (read_bytes("/proc/%d/cmdline" % pid) or "").split("\0")
        if os.path.basename(words[0]) in PROGRAMS:
            return Process(pid)
    return Process(main)


def executors(facts, agent):
    """Programs that would end with the unit: all of its cgroup but the agent and its wrapper and logger."""
    names = []
    for pid in processes(facts):
        words = [word for word in (read_bytes("/proc/%d/cmdline" % pid) or "").split("\0") if word]
        if pid in (agent.pid, int(facts["MainPID"])) or not words:
            continue
        if any("executor" in os.path.basename(word) for word in words[:2]):
            names.append("%s (pid %d)" % (os.path.basename(words[0]), pid))
    return names


def any_executor():
    """Does an executor of an agent of this host live, in whatever cgroup?"""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        variables = (read_bytes("/proc/%s/environ" % pid) or "").split("\0")
        if any(text.startswith("MESOS_SLAVE_PID=") for text in variables):
            return True
    return False


def mesos_version(agent):
    """(1, 11) of the installed agent; None where it does not tell."""
    program = next((shutil.which(name) for name in PROGRAMS if shutil.which(name)), None)
    if agent and os.path.basename(agent.words[0]) in PROGRAMS:
        program = "/proc/%d/exe" % agent.pid
    if program is None:
        return None
    try:
        out = subprocess.run(
            [program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"mesos (\d+)\.(\d+)", out.stdout.decode(errors="replace"))
    return (int(match.group(1)), int(match.group(2))) if match else None


def with_attribute(attributes, wanted):
    """The agent's attributes with ours among them; one of the same name is replaced."""
    name = wanted.split(":", 1)[0]
    others = [one for one in (attributes or "").split(";") if one and one.split(":", 1)[0] != name]
    return ";".join(others + [wanted])


def with_variables(text, wanted):
    """The JSON of --executor_environment_variables with ours in it; empty where nothing is left."""
    there = json.loads(text) if (text or "").strip() else {}
    there.update({name: str(value) for name, value in wanted.items() if value not in (None, "")})
    for name, value in wanted.items():
        if value in (None, ""):
            there.pop(name, None)
    return json.dumps(there) if there else ""


def same(flag, first, second):
    """Do two values of a flag mean the same?"""
    if flag == "executor_environment_variables" and first and second:
        try:
            return json.loads(first) == json.loads(second)
        except ValueError:
            return False
    return (first or "") == (second or "")


class Agent:
    """One agent's unit and what is wanted of it."""

    def __init__(self, module, unit, facts):
        self.module, self.unit, self.facts = module, unit, facts
        self.asked = module.params
        self.place = place(unit, facts, self.asked["keep_in"])
        self.process = running(facts)
        self.problems = []

    def present(self, flag):
        """A flag's value as it is kept; else as the running agent has it."""
        kept = self.place.read(flag)
        return kept if kept is not None or self.process is None else self.process.flag(flag)

    def wanted(self):
        """Flags to set; None takes one away."""
        flags = {flag: str(value) if value not in (None, "") else None for flag, value in self.asked["flags"].items()}
        if self.asked["executor_environment"]:
            name = "executor_environment_variables"
            try:
                flags[name] = with_variables(self.present(name), self.asked["executor_environment"]) or None
            except ValueError:
                self.problems.append(
                    "--%s of %s is %r, which is not JSON: correct it in %s"
                    % (name, self.unit, self.present(name), self.place.place)
                )
        if self.asked["attribute"]:
            self.add_attribute(flags)
        # A flag that is not to be set, and is not set here, is left to its host.
        memory = self.remembered()
        return {flag: value for flag, value in flags.items() if value is not None or flag in memory}

    def add_attribute(self, flags):
        there, wanted = self.present("attributes") or "", self.asked["attribute"]
        if there.startswith(("/", "file:")):
            if wanted not in (read(there.replace("file://", "")) or ""):
                self.problems.append(
                    "calico_agent_attribute is %r, but the agent reads its attributes from %s: add it there, or set "
                    "calico_agent_attribute to ''" % (wanted, there)
                )
            return
        flags["attributes"] = with_attribute(there, wanted)
        version = mesos_version(self.process)
        if version and version >= POLICY_SINCE:
            if self.present("reconfiguration_policy") not in ("additive", "any"):
                flags["reconfiguration_policy"] = "additive"
        elif version and not same("attributes", there, flags["attributes"]):
            work_dir = self.present("work_dir") or "/tmp/mesos"
            if os.path.exists(os.path.join(work_dir, "meta/slaves/latest")):
                self.problems.append(
                    "calico_agent_attribute is %r, but Mesos %d.%d does not start with another attribute than it ran with: set "
                    "calico_agent_attribute to '', or drain this agent and remove %s/meta/slaves/latest"
                    % ((wanted,) + version + (work_dir,))
                )

    def remembered(self):
        try:
            return json.loads(read(self.asked["memory"]) or "{}").get(self.unit, {})
        except ValueError:
            return {}

    def restart_problem(self, flags):
        """Why the agent may not be restarted, if it has to be."""
        if self.asked["restart"] == "force" or not self.stale(flags):
            return None
        if self.asked["restart"] == "never":
            return None
        # On cgroups that the agent made itself, executors are in mesos_executors.slice and not in the unit's own.
        doomed = [] if self.facts.get("KillMode") in SAFE else executors(self.facts, self.process)
        if doomed:
            return (
                "%s has to be restarted for its flags, and KillMode=%s of its unit would kill its executors %s: set "
                "KillMode=process in the unit and run systemctl daemon-reload, or drain the agent, or set calico_agent_restart "
                "to force" % (self.unit, self.facts.get("KillMode"), ", ".join(doomed))
            )
        return None

    def stale(self, flags):
        """The flags that the running agent does not have as they are wanted."""
        if self.process is None:
            return []
        return [flag for flag, value in flags.items() if not same(flag, self.process.flag(flag), value)]

    def changes(self, flags):
        """The values of this place that have to change."""
        return {flag: value for flag, value in flags.items() if not same(flag, self.place.read(flag), value) or (
            value is None and self.place.read(flag) is not None)}

    def write(self, files):
        for path, text in files.items():
            if text is None:
                if os.path.exists(path):
                    os.unlink(path)
                    folder = os.path.dirname(path)
                    if folder.endswith(".service.d") and not os.listdir(folder):
                        os.rmdir(folder)
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            mode = os.stat(path).st_mode & 0o7777 if os.path.exists(path) else 0o644
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.rename(path + ".new", path)

    def remember(self, changes):
        """Keeps what was there, once."""
        path = self.asked["memory"]
        try:
            all_units = json.loads(read(path) or "{}")
        except ValueError:
            all_units = {}
        kept = all_units.setdefault(self.unit, {})
        for flag in changes:
            kept.setdefault(flag, self.place.read(flag))
        self.write({path: json.dumps(all_units, indent=2, sort_keys=True) + "\n"})

    def forget(self):
        path = self.asked["memory"]
        all_units = json.loads(read(path) or "{}")
        all_units.pop(self.unit, None)
        self.write({path: json.dumps(all_units, indent=2, sort_keys=True) + "\n" if all_units else None})

    def keep_attribute(self, flags):
        """Mesos recovers no agent with fewer attributes than it has run with, so ours stays as long as it has executors."""
        for flag in ("attributes", "reconfiguration_policy"):
            flags.pop(flag, None)
        self.module.warn(
            "%s has executors, and Mesos starts it with no attribute less than before: its attributes stay. Take ours away when "
            "it is drained, and with it %s" % (self.unit, self.checkpoint())
        )

    def checkpoint(self):
        """What an agent recovers from; without it, it registers as a new one."""
        return os.path.join(self.present("work_dir") or "/tmp/mesos", "meta/slaves/latest")

    def restart(self, flags, as_new=False):
        """Restarts it and reads its flags back."""
        subprocess.run(["systemctl", "daemon-reload"], check=False)
        if as_new and os.path.islink(self.checkpoint()):
            subprocess.run(["systemctl", "stop", self.unit], check=False)
            os.unlink(self.checkpoint())
        out = subprocess.run(
            ["systemctl", "restart", self.unit], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if out.returncode != 0:
            self.module.fail_json(msg="cannot restart %s: %s" % (self.unit, out.stdout.decode(errors="replace").strip()))
        end = time.monotonic() + self.asked["timeout"]
        while True:
            self.facts = show(self.unit)
            self.process = running(self.facts)
            left = self.stale(flags) if self.process else list(flags)
            if self.process and not left:
                return
            if time.monotonic() > end or (self.process and time.monotonic() > end - self.asked["timeout"] + 10):
                break
            time.sleep(0.2)
        if self.process is None:
            self.module.fail_json(msg="%s was restarted and does not run: see journalctl -u %s" % (self.unit, self.unit))
        flag = left[0]
        why = "its command line sets it, which wins: take it out of the unit" if self.process.on_command_line(flag) else (
            "the agent does not read %s: set calico_agent_flags_in to the place that it reads" % self.place.place
        )
        self.module.fail_json(
            msg="%s was restarted and runs with --%s=%s instead of %s; %s"
            % (self.unit, flag, self.process.flag(flag), flags[flag], why)
        )


def find(units):
    """The agent's unit of this host with what systemd knows of it; the one that runs where there are two."""
    found = []
    for name in units:
        unit = name if name.endswith(".service") else name + ".service"
        facts = show(unit)
        if facts.get("LoadState") in ("loaded", "masked"):
            found.append((facts.get("ActiveState") == "active", unit, facts))
    found.sort(key=lambda one: not one[0])
    return (found[0][1], found[0][2]) if found else (None, None)


def main():
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "choices": ["look", "apply"], "default": "apply"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "units": {"type": "list", "elements": "str", "default": ["mesos-slave", "mesos-agent"]},
            "keep_in": {"type": "str", "choices": ["auto", "files", "environment", "drop-in"], "default": "auto"},
            "flags": {"type": "dict", "default": {}},
            "attribute": {"type": "str", "default": ""},
            "executor_environment": {"type": "dict", "default": {}},
            "restart": {"type": "str", "choices": ["auto", "never", "force"], "default": "auto"},
            "memory": {"type": "path", "default": "/var/lib/calico-mesos/agent-flags.json"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    unit, facts = find(module.params["units"])
    if unit is None:
        module.exit_json(changed=False, unit="", kept_in="", restarted=False)
    agent = Agent(module, unit, facts)
    flags = agent.remembered() if module.params["state"] == "absent" else agent.wanted()
    loses_attribute = module.params["state"] == "absent" and "attributes" in agent.stale(flags)
    if loses_attribute and any_executor():
        agent.keep_attribute(flags)
        loses_attribute = False
    problem = agent.restart_problem(flags)
    problems = agent.problems + ([problem] if problem else [])
    if problems:
        module.fail_json(msg="; ".join(problems))
    result = {"changed": False, "unit": unit, "kept_in": agent.place.place, "restarted": False, "flags": flags}
    if module.params["phase"] == "look":
        module.exit_json(**result)
    changes = agent.changes(flags)
    files = agent.place.text(changes) if changes else {}
    result["diff"] = [
        {"before_header": path, "after_header": path, "before": read(path) or "", "after": text or ""} for path, text in files.items()
    ]
    stale = agent.stale(flags)
    restart = bool(stale) and module.params["restart"] != "never"
    result.update(changed=bool(changes) or restart, restarted=restart)
    if not module.check_mode:
        if changes:
            if module.params["state"] == "present":
                agent.remember(changes)
            agent.write(files)
        if restart:
            agent.restart(flags, as_new=loses_attribute)
        if module.params["state"] == "absent" and agent.remembered():
            agent.forget()
    if stale and not restart:
        module.warn("%s runs with other flags until it is restarted (calico_agent_restart is never): %s" % (unit, ", ".join(stale)))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
