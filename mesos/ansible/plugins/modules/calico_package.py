#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""The package calico-mesos of a host, with the one before it kept for a way back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: calico_package
short_description: Installs the package calico-mesos, and goes back to the last one that was good
description:
  - What is installed is noted by the hash of its file, so that a build with the same version is told apart. Running tasks
    survive both ways.
author: The authors of calico-mesos
attributes:
  check_mode:
    support: full
    description: Nothing is changed in check mode.
options:
  state:
    description:
      - V(installed), V(good), which keeps it as the one to go back to, V(back) to that one, or V(absent), which purges it.
    type: str
    choices: [installed, good, back, absent]
    default: installed
  package:
    description: The hash of a file in C(folder), or the name of a package in the host's sources, with C(=VERSION) or without.
    type: str
    default: ""
  folder:
    description: The folder of the files.
    type: path
    default: /var/cache/calico-mesos
"""

EXAMPLES = r"""
- name: Install the package
  calico_package:
    package: calico-mesos
"""

RETURN = r"""
package:
  description: What is installed afterwards.
  type: str
  returned: always
"""

import glob
import os
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule

NAME = "calico-mesos"


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def write(path, text):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text + "\n")
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


def installed_version():
    out = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", NAME], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    words = out.stdout.decode().split()
    return words[1] if len(words) == 2 and words[0] == "installed" else ""


class Package:
    """The package on this host."""

    def __init__(self, module):
        self.module = module
        self.folder = module.params["folder"]
        self.version = installed_version()
        self.noted = read(self.path("installed")) if self.version else ""
        self.good = read(self.path("good"))

    def path(self, name):
        return os.path.join(self.folder, name)

    def end(self, changed, package):
        before, after = self.noted or self.version or "none", package
        diff = {"before_header": NAME, "after_header": NAME, "before": before + "\n", "after": after + "\n"}
        self.module.exit_json(changed=changed, package=package, **({"diff": diff} if changed else {}))

    def apt(self, words):
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C")
        options = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold", "-o", "DPkg::Lock::Timeout=120"]
        out = subprocess.run(
            ["apt-get", "-q", "-y", "--no-install-recommends"] + options + words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if out.returncode != 0:
            text = out.stdout.decode(errors="replace").strip()
            self.module.fail_json(msg="cannot run apt-get %s: %s" % (" ".join(words), text[-1500:]))

    def argument(self, package):
        file = self.path(package + ".deb")
        return file if re.fullmatch("[0-9a-f]{40}", package) else package

    def is_there(self, package):
        if re.fullmatch("[0-9a-f]{40}", package):
            return self.noted == package
        name, _, version = package.partition("=")
        return name == NAME and bool(self.version) and version in ("", self.version)

    def install(self, package):
        if self.is_there(package):
            self.end(False, package)
        if not self.module.check_mode:
            os.makedirs(self.folder, exist_ok=True)
            if self.version and not self.noted and not self.good:
                write(self.path("good"), "%s=%s" % (NAME, self.version))
            self.apt(["install", "--allow-downgrades", "--reinstall", self.argument(package)])
            write(self.path("installed"), package)
        self.end(True, package)

    def keep(self):
        """Notes that the package is good; files of others are not needed any more."""
        package = self.noted or ("%s=%s" % (NAME, self.version) if self.version else "")
        stale = [file for file in glob.glob(self.path("*.deb")) if os.path.basename(file) != package + ".deb"]
        if (package == self.good and not stale) or self.module.check_mode:
            self.end(False, package)
        write(self.path("good"), package)
        for file in stale:
            os.unlink(file)
        # That it was found good is no change of the host.
        self.end(False, package)

    def back(self):
        if not self.good or self.is_there(self.good):
            self.end(False, self.noted)
        if not self.module.check_mode:
            self.apt(["install", "--allow-downgrades", "--reinstall", self.argument(self.good)])
            write(self.path("installed"), self.good)
        self.end(True, self.good)

    def purge(self):
        known = subprocess.run(["dpkg-query", "-W", NAME], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        there = known.returncode == 0
        if there and not self.module.check_mode:
            self.apt(["purge", NAME])
        self.end(there, "none")


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["installed", "good", "back", "absent"], "default": "installed"},
            "package": {"type": "str", "default": ""},
            "folder": {"type": "path", "default": "/var/cache/calico-mesos"},
        },
        supports_check_mode=True,
    )
    package = Package(module)
    state = module.params["state"]
    if state == "installed":
        package.install(module.params["package"])
    elif state == "good":
        package.keep()
    elif state == "back":
        package.back()
    else:
        package.purge()


if __name__ == "__main__":
    main()
