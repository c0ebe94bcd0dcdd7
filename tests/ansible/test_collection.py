"""The collection as a whole: its style, its READMEs, both ways to find its roles, and bad input to a play."""

import pathlib
import sys
import tarfile
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from kit import COLLECTION, run  # noqa: E402

PLAY = """
- hosts: all
  gather_facts: false
  roles:
    - etcd
- hosts: role=worker
  gather_facts: false
  roles:
    - calico
"""
# This machine under three names. Nothing is changed on it: every play here is in check mode.
INVENTORY = """
all:
  vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  children:
    role=control: {hosts: {h1: , h2: , h3: }}
    role=worker: {hosts: {h2: , h3: }}
"""


class Collection(unittest.TestCase):
    def test_ansible_lint_has_nothing_to_say(self):
        code, output = run(["ansible-lint", "--offline", "--profile", "production", str(COLLECTION)])
        self.assertEqual(code, 0, output)

    def test_readmes_have_every_variable_as_the_roles_have_it(self):
        code, output = run([sys.executable, str(COLLECTION / "scripts/readme.py"), "--check"])
        self.assertEqual(code, 0, output)

    def test_it_is_built_with_everything_it_needs(self):
        with tempfile.TemporaryDirectory() as folder:
            code, output = run(["ansible-galaxy", "collection", "build", str(COLLECTION), "--output-path", folder])
            self.assertEqual(code, 0, output)
            archive = next(pathlib.Path(folder).glob("*.tar.gz"))
            with tarfile.open(archive) as files:
                # A link out of the collection would lead nowhere on another machine.
                script = files.getmember("roles/etcd/files/etcd-role.sh")
                self.assertTrue(script.isfile())
                links = {one.name: one.linkname for one in files.getmembers() if one.issym()}
            self.assertEqual(links["roles/calico/library"], "../../plugins/modules")
            code, output = run(["ansible-galaxy", "collection", "install", str(archive), "-p", folder + "/c", "--offline"])
            self.assertEqual(code, 0, output)
            inventory = pathlib.Path(folder) / "inventory.yml"
            inventory.write_text(INVENTORY)
            for playbook in ("site", "etcd_ca"):
                words = ["ansible-playbook", "-i", str(inventory), "--syntax-check", "calico_mesos.mesos." + playbook]
                code, output = run(words, ANSIBLE_COLLECTIONS_PATH=folder + "/c")
                self.assertEqual(code, 0, output)

    def play(self, *words):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "inventory.yml").write_text(INVENTORY)
            (pathlib.Path(folder) / "site.yml").write_text(PLAY)
            command = ["ansible-playbook", "-i", "inventory.yml", "site.yml", "--check"] + list(words)
            return run(command, folder, ANSIBLE_ROLES_PATH=str(COLLECTION / "roles"))

    def stops(self, sentence, *words):
        code, output = self.play(*words)
        self.assertNotEqual(code, 0, output)
        self.assertIn(sentence, output)
        self.assertNotIn("changed=1", output)
        self.assertNotIn("changed:", output)

    def test_bad_input_stops_the_play_before_the_first_change(self):
        self.stops("etcd_client_port is 'http', which is not a port", "-e", "etcd_client_port=http")
        self.stops("calico_network is 'big', which is not a network in CIDR form", "--tags", "calico", "-e", "calico_network=big")
        self.stops("calico_mode is 'overlay': set it to auto, ipip, vxlan, bgp", "--tags", "calico", "-e", "calico_mode=overlay")


if __name__ == "__main__":
    unittest.main()
