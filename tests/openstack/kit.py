"""What the tests share: the cloud, made once, and how the module is run."""

import atexit
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from kit_paths import MODULE

BIN = pathlib.Path(sys.executable).parent
NETWORK = "192.168.0.0/16"
REAL = os.environ.get("OPENSTACK") == "real"


def _start():
    if REAL:
        import real as kind
    else:
        import fake as kind
    made = kind.start()
    atexit.register(made.stop)
    return made


# An interrupted run takes its servers and folders away too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
CLOUD = _start()
# Nothing that the module or Ansible leaves reaches the home folder, and none of the user's clouds is found.
HOME = tempfile.TemporaryDirectory(prefix="calico-mesos-openstack-home-")
ENVIRONMENT = {"PATH": "%s:%s" % (BIN, os.environ["PATH"]), "HOME": HOME.name, "LC_ALL": "C.UTF-8"}
# The server inherits the environment when it starts, and the SDK notes the home folder when it is imported.
os.environ.clear()
# Python 3.11 preloads from nowhere else, and does not report that it found nothing.
os.environ.update(ENVIRONMENT, PYTHONPATH=str(pathlib.Path(__file__).parent))
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["forked"])


class Started:
    """The module at work, in a process of its own."""

    def __init__(self, environment=None, **options):
        import forked

        options.setdefault("networks", [NETWORK])
        if environment is None:
            options.setdefault("auth", CLOUD.credentials())
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": options})
        self.answer, theirs = FORKS.Pipe(duplex=False)
        environment = {**ENVIRONMENT, **(environment or {})}
        self.process = FORKS.Process(target=forked.main, args=(arguments, environment, theirs))
        self.process.start()
        theirs.close()

    def result(self):
        """What it returns: one JSON document on standard output, and nothing else."""
        try:
            assert self.answer.poll(180), "the module does not end"
            output, code = self.answer.recv()
        finally:
            self.process.join(5)
            self.answer.close()
        result = json.loads(output)
        assert result.get("failed", False) == (code != 0), result
        return result


def run(*ports, **options):
    """Runs the module for these ports (entries of `ports`)."""
    return Started(ports=list(ports), **options).result()


def run_as_program(*ports, **options):
    """Runs the module as Ansible does: its file, with the arguments on standard input."""
    options = {"networks": [NETWORK], "auth": CLOUD.credentials(), "ports": list(ports), **options}
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": options})
    done = subprocess.run([sys.executable, MODULE], input=arguments, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def host(port, name="worker1", mac=True):
    """The entry that means this port."""
    entry = {"name": name, "fixed_ip": port["fixed_ips"][0]["ip_address"]}
    return {**entry, "mac": port["mac_address"]} if mac else entry


def results(result):
    """Host name to what was done."""
    return {port["name"]: port["result"] for port in result["ports"]}
