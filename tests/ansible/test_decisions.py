"""What the modules decide, without a host."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from kit import module  # noqa: E402

ETCD = {
    "client_port": 2379,
    "peer_port": 2380,
    "url_scheme": "http",
    "peer_url_scheme": "http",
    "initial_cluster_state": "auto",
    "quota_backend_bytes": 2147483648,
    "auto_compaction_retention": "1h",
    "conf_dir": "/etc/etcd",
    "script_dir": "/usr/libexec/etcd",
    "data_dir": "/var/lib/etcd",
    "auth": False,
    "group_name": "role=control",
    "allow_even": False,
    "members": {"h1": "h1", "h2": "h2", "h3": "h3"},
    "name": "h1",
}
CALICO = {
    "network": "192.168.0.0/16",
    "network6": "",
    "client_port": 2379,
    "mode": "auto",
    "profile": "dev",
    "cross_subnet": False,
    "as_number": "",
    "bgp_peers": [],
    "node_bgp_peers": [],
    "image": "calico/node:v3.32.1",
    "package": "calico-mesos",
    "log_file_size": "",
    "log_files": "",
    "provider": "",
    "openstack_credentials": False,
}


class Etcd(unittest.TestCase):
    preflight, member = module("etcd_preflight"), module("etcd_member")

    def test_each_bad_variable_is_named_with_its_value_and_a_remedy(self):
        self.assertEqual(self.preflight.variable_problems(ETCD), [])
        for name, value in {
            "client_port": "http",
            "peer_port": 0,
            "url_scheme": "ftp",
            "initial_cluster_state": "old",
            "quota_backend_bytes": "2GB",
            "auto_compaction_retention": "soon",
            "data_dir": "etcd",
        }.items():
            problems = self.preflight.variable_problems(dict(ETCD, **{name: value}))
            self.assertEqual(len(problems), 1, problems)
            self.assertIn("etcd_%s is %r" % (name, value), problems[0])
        self.assertIn("both 2379", self.preflight.variable_problems(dict(ETCD, peer_port="2379"))[0])

    def test_even_many_and_no_members_are_refused(self):
        def problems(count, **more):
            members = {"h%d" % number: "h%d" % number for number in range(count)}
            return self.preflight.group_problems(dict(ETCD, members=members, **more))

        self.assertEqual([bool(problems(count)) for count in range(9)], [True, False, True, False, True, False, True, False, True])
        self.assertEqual(problems(2, allow_even=True), [])
        self.assertIn("etcd_allow_even", problems(4)[0])
        self.assertIn("at most 7", problems(9)[0])

    def test_a_group_that_shrank_is_refused_while_the_cluster_runs_and_while_it_does_not(self):
        cluster = [{"id": "a%d" % number, "name": "h%d" % number, "peers": []} for number in range(1, 5)]
        found = self.preflight.shrunk(ETCD, cluster, {})
        self.assertIn("h4 is a member of the running cluster", found[0])
        self.assertIn("etcdctl member remove a4", found[0])
        self.assertEqual(self.preflight.shrunk(ETCD, cluster[:3], {}), [])
        self.assertIn("h5", self.preflight.shrunk(ETCD, [], {"h1": "x", "h5": "y"})[0])

    def test_a_cluster_is_never_made_anew(self):
        members = {"h1": "http://1:2380", "h2": "http://2:2380", "h3": "http://3:2380"}
        empty = {"data": False, "cluster": [], "booted": {}}
        begun = {"data": True, "cluster": [], "booted": members}
        foreign = {"data": True, "cluster": [], "booted": {}}
        lives = {"data": True, "cluster": [{"name": "h1"}], "booted": members}

        def decide(*hosts, state="auto"):
            return self.member.decide("h3", members, dict(zip(("h1", "h2", "h3"), hosts)), state)

        self.assertEqual(decide(empty, empty, empty), ("new", None))
        self.assertEqual(decide(lives, lives, empty), ("existing", None))
        # A play that was interrupted while the first members started.
        self.assertEqual(decide(begun, empty, empty), ("new", None))
        how, problem = decide(foreign, empty, empty)
        self.assertIsNone(how)
        self.assertIn("(h1) do not answer", problem)

    def test_what_a_member_was_made_with_is_read_back(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "bootstrap.env"
            members = {"h1": "http://10.0.0.1:2380", "h2": "http://10.0.0.2:2380"}
            path.write_text(self.member.settings_text("h2", members, "new", "token"))
            self.assertEqual(self.preflight.read_booted(str(path)), members)
        self.assertEqual(self.preflight.read_booted("/nonexistent"), {})


class Calico(unittest.TestCase):
    preflight, commands, remains = module("calico_preflight"), module("calico_mesos"), module("calico_remains")

    def test_each_bad_variable_is_named_with_its_value_and_a_remedy(self):
        self.assertEqual(self.preflight.variable_problems(CALICO), [])
        for name, value, word in (
            ("network", "192.168.0.0", "one address"),
            ("network", "192.168.0.1/16", "bits set"),
            ("network", "fd00::/64", "not IPv4"),
            ("network", "10.0.0.0/30", "smaller than a block"),
            ("network6", "10.0.0.0/8", "not IPv6"),
            ("mode", "overlay", "auto, ipip, vxlan, bgp"),
            ("profile", "Dev", "lower case"),
            ("as_number", "x", "64512"),
            ("image", "", "calico/node:v3.32.1"),
            ("package", "", "calico-mesos_*.deb"),
            ("log_file_size", "1", "1MB"),
            ("log_files", "1", "2 to 100"),
        ):
            problems = self.preflight.variable_problems(dict(CALICO, **{name: value}))
            self.assertEqual(len(problems), 1, problems)
            self.assertIn(word, problems[0])
        port = self.preflight.variable_problems(dict(CALICO, client_port="http"))
        self.assertIn("etcd_client_port is 'http'", port[0])
        peers = self.preflight.variable_problems(dict(CALICO, bgp_peers=[{"ip": "10.0.0.1", "as": 64512}, {"ip": "x"}]))
        self.assertEqual(len(peers), 1)

    def test_the_mode_follows_cloud_and_kernel(self):
        def mode(has_ipip=True, cloud="", **more):
            chosen, _, problem = self.preflight.choose_mode(dict(CALICO, **more), has_ipip, cloud)
            return problem or chosen

        self.assertEqual(mode(), "ipip")
        self.assertEqual(mode(has_ipip=False), "vxlan")
        self.assertEqual(mode(provider="azure"), "vxlan")
        self.assertEqual(mode(cloud="azure"), "vxlan")
        self.assertEqual(mode(provider="openstack", openstack_credentials=True), "bgp")
        self.assertEqual(mode(cloud="openstack", openstack_credentials=True), "bgp")
        self.assertIn("calico_mode is 'auto'", mode(cloud="openstack"))
        self.assertEqual(mode(cloud="openstack", provider="aws"), "ipip")
        self.assertEqual(mode(cloud="openstack", mode="vxlan"), "vxlan")
        self.assertIn("calico_mode is 'ipip'", mode(mode="ipip", has_ipip=False))

    def test_only_what_is_not_calicos_overlaps_the_pool(self):
        routes = [
            {"dst": "default", "dev": "eth0"},
            {"dst": "192.168.5.0/26", "dev": "vxlan.calico", "protocol": "80"},
            {"dst": "192.168.5.64/26", "type": "blackhole", "protocol": "bird"},
            {"dst": "192.168.5.1", "dev": "cali123"},
            {"dst": "10.0.0.0/8", "dev": "eth0"},
        ]
        own = {"192.168.5.0": (32, "vxlan.calico"), "10.0.0.1": (8, "eth0")}
        self.assertEqual(self.preflight.overlaps("192.168.0.0/16", routes, own), [])
        self.assertEqual(
            self.preflight.overlaps("10.65.0.0/16", routes, own), ["route 10.0.0.0/8 of eth0"]
        )
        self.assertEqual(self.preflight.overlaps("10.0.0.0/16", [], own), ["address 10.0.0.1 of eth0"])

    def test_a_pool_that_exists_is_not_cut_anew(self):
        wish = {"name": "mesos-x", "mode": "ipip", "cross_subnet": True, "nat_outgoing": True, "block_size": 28, "keep_mode": True}
        made = self.commands.pool_words("10.65.0.0/16", wish, None)
        self.assertEqual(made[3:], ["--name", "mesos-x", "--block-size", "28", "--ipip=cross-subnet", "--vxlan=never", "--nat-outgoing=true"])
        there = {"ipip": "Never", "vxlan": "Always"}
        self.assertEqual(self.commands.pool_words("10.65.0.0/16", wish, there)[3:], ["--nat-outgoing=true"])
        self.assertEqual(self.commands.mode_of(there), "vxlan")
        changed = self.commands.pool_words("10.65.0.0/16", dict(wish, keep_mode=False, mode="bgp"), there)
        self.assertEqual(changed[3:], ["--ipip=never", "--vxlan=never", "--nat-outgoing=true"])

    def test_only_pools_of_the_role_are_disabled(self):
        def pool(name, cidr, enabled=True):
            return {"name": name, "cidr": cidr, "enabled": enabled}

        pools = [
            pool("mesos-a", "10.65.0.0/16"),
            pool("mesos-b", "192.168.0.0/16"),
            pool("default-ipv4-ippool", "172.16.0.0/16"),
            pool("web", "10.1.0.0/16"),
            pool("mesos-c", "10.2.0.0/16", False),
            pool("mesos-d", "fd00::/64"),
        ]
        found = self.commands.pools_to_disable(pools, "10.65.0.0/16", ["mesos-", "default-ipv4-ippool"])
        self.assertEqual([one["name"] for one in found], ["mesos-b", "default-ipv4-ippool"])

    def test_the_administrators_password_replaces_that_of_executors(self):
        text = '[consul]\nenabled = true\n\n[etcd]\nendpoints = ["x"]\nusername = "a"\npassword_file = "/a"\n\n[node]\nname = "h"\n'
        changed = self.commands.as_admin(text, "root", "/run/p")
        self.assertEqual(changed.count("username"), 1)
        self.assertIn('[etcd]\nusername = "root"\npassword_file = "/run/p"\nendpoints', changed)
        self.assertIn('[node]\nname = "h"', changed)
        self.assertEqual(self.remains.as_admin(text, "root", "/run/p"), changed)

    def test_felix_rules_are_taken_out_and_others_stay(self):
        rules = "\n".join(
            (
                "*filter",
                ":FORWARD ACCEPT [0:0]",
                ":DOCKER - [0:0]",
                ":cali-FORWARD - [0:0]",
                '-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD',
                "-A FORWARD -j DOCKER",
                "-A cali-FORWARD -j ACCEPT",
                "COMMIT",
            )
        )
        self.assertEqual(
            self.remains.without_calico(rules).split("\n")[:-1],
            ["*filter", ":FORWARD ACCEPT [0:0]", ":DOCKER - [0:0]", "-A FORWARD -j DOCKER", "COMMIT"],
        )
        self.assertIsNone(self.remains.without_calico("*filter\n-A FORWARD -j DOCKER\nCOMMIT\n"))


class Agent(unittest.TestCase):
    agent = module("mesos_agent")
    JSON = '{"DOCKER_HOST": "localhost:2377", "PATH": "/bin:/usr/bin"}'

    def kept(self, place):
        """Writes flags to a place, reads them back, and takes one away."""
        changes = {"executor_environment_variables": self.JSON, "attributes": "rack:2;calico:true", "x": "100%"}
        for path, text in place.text(changes).items():
            pathlib.Path(path).write_text(text)
        for flag, value in changes.items():
            self.assertEqual(place.read(flag), value)
        for path, text in place.text({"x": None}).items():
            pathlib.Path(path).unlink() if text is None else pathlib.Path(path).write_text(text)
        self.assertIsNone(place.read("x"))
        self.assertEqual(place.read("attributes"), "rack:2;calico:true")

    def test_flags_are_kept_as_files_as_lines_and_in_a_drop_in(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "files").mkdir()
            lines = pathlib.Path(folder) / "mesos-agent"
            lines.write_text("# ours\nMESOS_WORK_DIR=/var/lib/mesos\nexport MESOS_ATTRIBUTES='rack:2'\n")
            self.kept(self.agent.Folder(folder + "/files"))
            self.kept(self.agent.Lines(str(lines)))
            self.kept(self.agent.DropIn(folder + "/drop-in.conf"))
            text = lines.read_text()
            self.assertTrue(text.startswith("# ours\nMESOS_WORK_DIR=/var/lib/mesos\nMESOS_ATTRIBUTES='rack:2;calico:true'\n") or
                            "MESOS_ATTRIBUTES=rack:2;calico:true\n" in text, text)
            drop_in = (pathlib.Path(folder) / "drop-in.conf").read_text()
            self.assertIn('Environment="MESOS_ATTRIBUTES=rack:2;calico:true"', drop_in)

    def test_a_place_is_found_by_the_unit(self):
        wrapper = {"ExecStart": "{ path=/usr/bin/mesos-init-wrapper ; argv[]=/usr/bin/mesos-init-wrapper slave ;", "EnvironmentFiles": []}
        lines = {"ExecStart": "/usr/sbin/mesos-agent", "EnvironmentFiles": ["/etc/default/x", "/etc/default/mesos-agent"]}
        neither = {"ExecStart": "/usr/sbin/mesos-agent", "EnvironmentFiles": []}
        self.assertEqual(self.agent.place("mesos-slave.service", wrapper, "auto").place, "/etc/mesos-slave")
        self.assertEqual(self.agent.place("mesos-agent.service", lines, "auto").place, "/etc/default/mesos-agent")
        found = self.agent.place("no-such-agent.service", neither, "auto")
        self.assertEqual(found.place, "/etc/systemd/system/no-such-agent.service.d/calico-mesos.conf")
        self.assertEqual(self.agent.place("mesos-agent.service", lines, "drop-in").kind, "drop-in")

    def test_attributes_and_variables_are_added_to(self):
        self.assertEqual(self.agent.with_attribute("", "calico:true"), "calico:true")
        self.assertEqual(self.agent.with_attribute("rack:2;calico:false", "calico:true"), "rack:2;calico:true")
        ours = {"DOCKER_HOST": "localhost:2377", "PATH": "/bin"}
        text = self.agent.with_variables('{"GLOG_v": "1"}', ours)
        self.assertEqual(text, '{"GLOG_v": "1", "DOCKER_HOST": "localhost:2377", "PATH": "/bin"}')
        self.assertEqual(self.agent.with_variables(text, {"DOCKER_HOST": "", "PATH": ""}), '{"GLOG_v": "1"}')
        self.assertEqual(self.agent.with_variables("", {"DOCKER_HOST": ""}), "")
        self.assertTrue(self.agent.same("executor_environment_variables", '{"a":"1","b":"2"}', '{"b": "2", "a": "1"}'))


class Units(unittest.TestCase):
    services = module("services_current")

    def verbs(self, unit, newer=(), **facts):
        there = {"ActiveState": "active", "UnitFileState": "enabled", "DropInPaths": ""}
        there.update(facts)
        return self.services.plan(unit, there, 1.0, lambda files, since: [path for path in files if path in newer])[0]

    def test_a_unit_is_restarted_only_when_it_has_not_read_a_file(self):
        unit = {"name": "x.service", "enabled": True, "files": ["/a", "/b"]}
        self.assertEqual(self.verbs(unit), [])
        self.assertEqual(self.verbs(unit, newer=["/b"]), ["restart"])
        self.assertEqual(self.verbs(dict(unit, reload=True), newer=["/b"]), ["reload"])
        self.assertEqual(self.verbs(dict(unit, restart=False), newer=["/b"]), [])
        self.assertEqual(self.verbs(unit, ActiveState="inactive", UnitFileState="disabled"), ["enable", "start"])
        self.assertEqual(self.verbs(dict(unit, state="current"), ActiveState="failed"), [])
        self.assertEqual(self.verbs({"name": "x.service", "state": "stopped", "enabled": False}), ["disable", "stop"])
        self.assertEqual(self.verbs(dict(unit, masked=False), UnitFileState="masked", ActiveState="inactive"), ["unmask", "enable", "start"])
        self.assertEqual(self.verbs({"name": "x.service"}, newer=["/etc/x.conf"], DropInPaths="/etc/x.conf"), ["restart"])
        # A socket cannot be restarted under its service.
        self.assertEqual(self.verbs({"name": "x.socket"}, newer=["/lib/x.socket"], FragmentPath="/lib/x.socket"), [])


if __name__ == "__main__":
    unittest.main()
