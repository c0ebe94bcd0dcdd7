"""What the tests of the collection share: its folders, its modules as Python modules, and ansible-playbook."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "mesos/ansible"
BIN = pathlib.Path(sys.executable).parent


def module(name):
    """A module of the collection, for its pure functions."""
    spec = importlib.util.spec_from_file_location(name, COLLECTION / "plugins/modules" / (name + ".py"))
    loaded = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(loaded)
    return loaded


def run(words, folder=None, **environment):
    """(exit code, output) of a program of Ansible, with nothing of this machine's configuration of it."""
    with tempfile.TemporaryDirectory() as home:
        settings = {
            "PATH": "%s:%s" % (BIN, os.environ["PATH"]),
            "HOME": home,
            "ANSIBLE_CONFIG": home + "/ansible.cfg",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
            "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        settings.update(environment)
        pathlib.Path(settings["ANSIBLE_CONFIG"]).write_text("")
        out = subprocess.run(words, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return out.returncode, out.stdout.decode(errors="replace")
