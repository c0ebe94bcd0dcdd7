"""The role's openstack.yml, and the module's two names, as ansible-playbook runs them."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from kit import BIN, CLOUD, ENVIRONMENT, NETWORK  # noqa: E402
from kit_paths import COLLECTION  # noqa: E402

# What `setup` would have found: the hosts of these tests are no hosts of the cloud.
FACTS_MODULE = """
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"facts": {"type": "dict"}}, supports_check_mode=True)
module.exit_json(ansible_facts=module.params["facts"])
"""

PLAY = """
- hosts: all
  gather_facts: false
  vars:
    calico_openstack_action: ACTION
  tasks:
    - facts_of_test:
        facts: "{{ facts }}"
    - ansible.builtin.include_role:
        name: calico
        tasks_from: openstack.yml
    - ansible.builtin.debug:
        msg: the play goes on
"""


class Role(unittest.TestCase):
    """Three hosts in one network of the cloud."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="calico-mesos-openstack-play-")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        (self.folder / "library").mkdir()
        (self.folder / "library/facts_of_test.py").write_text(FACTS_MODULE)
        self.network = CLOUD.network()
        self.ports = [CLOUD.port(self.network, last) for last in (11, 12, 13)]
        self.hosts = {"worker%d" % number: self.vars(port) for number, port in enumerate(self.ports)}

    def vars(self, port):
        """Host variables: an address by default and interfaces, one of which a name with a hyphen."""
        address, mac = port["fixed_ips"][0]["ip_address"], port["mac_address"]
        public = {"macaddress": "fa:16:3e:99:99:99", "ipv4": {"address": "203.0.113.7"}}
        private = {"macaddress": mac, "ipv4": {"address": address}}
        facts = {
            "interfaces": ["lo", "br-public", "br-tasks"],
            "lo": {"ipv4": {"address": "127.0.0.1"}},
            "br_public": public,
            "br_tasks": private,
            "default_ipv4": {"address": "203.0.113.7"},
        }
        return {"facts": facts, "private_ipv4": address}

    def playbook(self, text, *options, code=0, environment=None, **variables):
        """Runs a playbook; returns its output, a piece for each play."""
        auth = CLOUD.credentials()
        names = {"OS_" + name.upper(): value for name, value in auth.items()}
        (self.folder / "play.yml").write_text(text)
        (self.folder / "hosts.yml").write_text(json.dumps({"all": {"hosts": self.hosts}}))
        inventory = ["-i", str(self.folder / "hosts.yml"), "-c", "local"]
        variables = {"calico_network": NETWORK, **variables}
        done = subprocess.run(
            [BIN / "ansible-playbook", *inventory, "-e", json.dumps(variables), *options, self.folder / "play.yml"],
            env={
                **ENVIRONMENT,
                "ANSIBLE_ROLES_PATH": str(COLLECTION / "roles"),
                "ANSIBLE_LIBRARY": str(self.folder / "library"),
                "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
                "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
                "ANSIBLE_PIPELINING": "1",
                **(names if environment is None else environment),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            check=False,
        )
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout.split("PLAY [")[1:]

    def actions(self, *actions, **more):
        """Runs the role's tasks with each action, a play for each."""
        return self.playbook("".join(PLAY.replace("ACTION", action) for action in actions), **more)

    def pairs(self):
        """The networks that each port allows."""
        return [{network for network, _ in CLOUD.pairs(port)} for port in self.ports]

    def test_one_task_for_all_hosts_adds_once_and_removes(self):
        plays = self.actions("check", "present", "check", "present", "absent")
        self.assertEqual([play.count("changed: [") for play in plays[:5]], [0, 1, 0, 0, 1], plays)
        self.assertIn('"result": "added"', self.only_check()[0])
        self.assertEqual(self.pairs(), [set()] * 3)

    def only_check(self):
        """A run with --check and --diff."""
        plays = self.playbook(PLAY.replace("ACTION", "present"), "--check", "--diff", "-v")
        self.assertIn("+%s %s" % (NETWORK, self.ports[2]["mac_address"]), plays[0])
        return plays

    def test_batches_do_their_own_hosts(self):
        play = PLAY.replace("gather_facts", "serial: 2\n  gather_facts").replace("ACTION", "present")
        output = "".join(self.playbook(play))
        self.assertEqual(output.count("changed: [worker"), 2, output)
        self.assertEqual(self.pairs(), [{NETWORK}] * 3)

    def test_ports_without_port_security_are_reported(self):
        CLOUD.update(self.ports[1], port_security_enabled=False, security_groups=[])
        plays = self.actions("present")
        self.assertRegex(plays[0], "Port security is off at the ports of worker1:")
        self.assertEqual(self.pairs(), [{NETWORK}, set(), {NETWORK}])

    def test_without_credentials_the_play_stops_and_names_the_mode(self):
        plays = self.actions("check", environment={}, code=2)
        self.assertIn("calico_mode ipip or vxlan needs no address pairs", plays[0])
        self.assertNotIn("the play goes on", plays[0])

    def test_a_mac_of_another_host_stops_it_unless_it_is_not_compared(self):
        self.hosts["worker0"]["facts"]["br_tasks"]["macaddress"] = "fa:16:3e:aa:aa:aa"
        plays = self.actions("present", code=2)
        self.assertIn("calico_openstack_match_mac: false", plays[0])
        self.assertEqual(self.pairs(), [set()] * 3)
        networks = [NETWORK, "fd00:10::/64"]
        self.actions("present", calico_openstack_match_mac=False, calico_openstack_networks=networks)
        self.assertEqual(self.pairs(), [set(networks)] * 3)

    def test_credentials_are_found_where_the_sdk_looks(self):
        files = [str(COLLECTION / "roles/calico" / part / "main.yml") for part in ("defaults", "vars")]
        show = {"ansible.builtin.debug": {"msg": "found: {{ calico_openstack_credentials }}"}}
        named = {**show, "vars": {"calico_openstack_cloud": "here"}}
        given = {**show, "vars": {"calico_openstack_auth": {"auth_url": CLOUD.keystone}}}
        machine = {"ansible.builtin.debug": {"msg": "machine: {{ calico_machine }}"}}
        facts = {"facts_of_test": {"facts": {"product_name": "KVM", "chassis_asset_tag": "OpenStack Nova"}}}
        tasks = [show, named, given, machine, facts, machine]
        play = {"hosts": "worker0", "gather_facts": False, "vars_files": files, "tasks": tasks}
        here = {"PWD": str(self.folder)}
        for environment, file, expected in (
            (here, False, ["False", "True", "True"]),
            ({**here, "OS_CLOUD": "here"}, False, ["True"] * 3),
            (here, True, ["True"] * 3),
        ):
            if file:
                (self.folder / "clouds.yaml").write_text("{}")
            output = "".join(self.playbook(json.dumps([play]), environment=environment))
            self.assertEqual(re.findall("found: (True|False)", output), expected, output)
            self.assertEqual(re.findall('"machine: (.*)"', output), ["", "KVM OpenStack Nova"], output)

    def test_the_module_of_the_collection(self):
        place = self.folder / "collections/ansible_collections/calico_mesos"
        place.mkdir(parents=True)
        os.symlink(COLLECTION, place / "mesos")
        port = {"fixed_ip": self.hosts["worker0"]["private_ipv4"]}
        options = {"networks": [NETWORK], "ports": [port]}
        task = {"calico_mesos.mesos.neutron_address_pairs": options, "vars": {"ansible_python_interpreter": sys.executable}}
        play = {"hosts": "worker0", "gather_facts": False, "tasks": [task]}
        self.assertIn("changed: [worker0]", self.playbook(json.dumps([play]))[0])


if __name__ == "__main__":
    unittest.main()
