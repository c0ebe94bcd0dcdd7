"""The module neutron_address_pairs against a cloud: the stand-in, or real Neutron and Keystone with OPENSTACK=real."""

import json
import pathlib
import random
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import cloud  # noqa: E402
from forked import pairs_to_write  # noqa: E402
from kit import CLOUD, NETWORK, REAL, Started, host, results, run, run_as_program  # noqa: E402


class Pairs(unittest.TestCase):
    """Which pairs are written, and which are not."""

    @classmethod
    def setUpClass(cls):
        cls.network = CLOUD.network()
        cls.last = 10

    def port(self, **more):
        """A new port in the network of this class."""
        Pairs.last += 1
        return CLOUD.port(self.network, Pairs.last, **more)

    def own(self, port, *networks):
        """These networks with the port's MAC address."""
        return {(network, port["mac_address"]) for network in networks or (NETWORK,)}

    def test_adds_once_to_every_port(self):
        ports = [self.port(), self.port()]
        hosts = [host(port, "worker%d" % number) for number, port in enumerate(ports)]
        first, second = run(*hosts), run(*hosts)
        self.assertEqual((first["changed"], second["changed"]), (True, False))
        self.assertEqual(results(first), {"worker0": "added", "worker1": "added"})
        self.assertEqual(results(second), {"worker0": "unchanged", "worker1": "unchanged"})
        for port in ports:
            self.assertEqual(CLOUD.pairs(port), self.own(port))

    def test_leaves_an_unchanged_port_at_its_revision(self):
        port = self.port(allowed_address_pairs=[{"ip_address": NETWORK}])
        self.assertFalse(run(host(port))["changed"])
        self.assertEqual(CLOUD.read(port)["revision_number"], port["revision_number"])

    def test_appends_to_pairs_of_others(self):
        others = [{"ip_address": "10.9.9.9", "mac_address": "00:00:5e:00:01:01"}, {"ip_address": "172.16.0.0/12"}]
        port = self.port(allowed_address_pairs=others)
        before = CLOUD.pairs(port)
        self.assertTrue(run(host(port))["changed"])
        self.assertEqual(CLOUD.pairs(port), before | self.own(port))

    def test_several_networks_and_both_families(self):
        port = self.port()
        networks = [NETWORK, "fd00:10::/64", "10.20.0.0/16"]
        self.assertTrue(run(host(port), networks=networks)["changed"])
        self.assertEqual(CLOUD.pairs(port), self.own(port, *networks))
        self.assertFalse(run(host(port), networks=list(reversed(networks)))["changed"])

    def test_a_network_inside_another_needs_no_pair(self):
        port = self.port()
        run(host(port), networks=["192.168.7.0/24", NETWORK, NETWORK])
        self.assertEqual(CLOUD.pairs(port), self.own(port))

    def test_pairs_that_cover_are_enough(self):
        for covering in (
            {"ip_address": "192.0.0.0/8"},
            {"ip_address": "0.0.0.0/0"},
            # Neutron keeps host bits and capitals as they were written.
            {"ip_address": "192.168.3.4/16"},
        ):
            port = self.port()
            CLOUD.update(port, allowed_address_pairs=[{**covering, "mac_address": port["mac_address"].upper()}])
            with self.subTest(covering):
                self.assertEqual(results(run(host(port))), {"worker1": "unchanged"})

    def test_pairs_that_do_not_cover_are_not_enough(self):
        for narrow in (
            {"ip_address": "192.168.0.0/17"},
            {"ip_address": "192.168.0.0"},
            {"ip_address": NETWORK, "mac_address": "00:00:5e:00:01:02"},
            {"ip_address": "::/1"},
        ):
            port = self.port(allowed_address_pairs=[narrow])
            with self.subTest(narrow):
                before = CLOUD.pairs(port)
                self.assertEqual(results(run(host(port))), {"worker1": "added"})
                self.assertEqual(CLOUD.pairs(port), before | self.own(port))

    def test_removes_only_its_own(self):
        port = self.port(allowed_address_pairs=[{"ip_address": "192.0.0.0/8"}])
        others = [
            {"ip_address": "192.0.0.0/8"},
            {"ip_address": "192.168.0.0/24"},
            {"ip_address": "192.168.3.4/16"},
            {"ip_address": NETWORK, "mac_address": "00:00:5e:00:01:03"},
        ]
        CLOUD.update(port, allowed_address_pairs=others)
        before = CLOUD.pairs(port)
        CLOUD.update(port, allowed_address_pairs=others + [{"ip_address": NETWORK}])
        self.assertEqual(results(run(host(port), state="absent")), {"worker1": "removed"})
        self.assertEqual(CLOUD.pairs(port), before)
        self.assertFalse(run(host(port), state="absent")["changed"])

    def test_removal_of_a_host_without_a_port_is_no_error(self):
        port = self.port(allowed_address_pairs=[{"ip_address": NETWORK}])
        gone = {"name": "gone", "fixed_ip": self.network["prefix"] + ".250"}
        result = run(gone, host(port), state="absent")
        self.assertEqual(results(result), {"gone": "no port", "worker1": "removed"})

    def test_a_port_without_port_security_is_left_alone(self):
        port = self.port(port_security_enabled=False, security_groups=[])
        for state in ("present", "absent"):
            result = run(host(port), state=state)
            with self.subTest(state):
                self.assertEqual((result["changed"], CLOUD.pairs(port)), (False, set()))
        self.assertEqual(results(run(host(port))), {"worker1": "no port security"})

    def test_check_mode_shows_the_difference_and_writes_nothing(self):
        port = self.port(allowed_address_pairs=[{"ip_address": "10.9.9.9"}])
        result = run(host(port), _ansible_check_mode=True, _ansible_diff=True)
        own = port["mac_address"]
        self.assertTrue(result["changed"])
        self.assertEqual(result["diff"][0]["before"], "10.9.9.9 %s\n" % own)
        self.assertEqual(result["diff"][0]["after"], "10.9.9.9 %s\n192.168.0.0/16 %s\n" % (own, own))
        self.assertEqual(CLOUD.read(port)["revision_number"], port["revision_number"])

    def test_works_as_the_program_that_ansible_starts(self):
        port = self.port()
        self.assertEqual(results(run_as_program(host(port))), {"worker1": "added"})

    def test_no_hosts_is_no_change(self):
        self.assertFalse(run()["changed"])


class Decision(unittest.TestCase):
    """The list that a port must get, for ports as they may come."""

    def test_nothing_is_lost_nothing_is_twice_and_the_second_time_nothing_is_to_do(self):
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        networks = ["10.%d.0.0/16" % number for number in range(4)] + ["10.0.0.0/8", "10.1.2.0/24", "fd00::/64", "10.3.0.1/32"]
        spellings = networks + ["10.1.9.9/16", "10.3.0.1", "fd00:0::1/64", "0.0.0.0/0"]
        own = "fa:16:3e:00:00:01"
        for _ in range(3000):
            macs = [own, own.upper(), "00:00:5e:00:01:01"]
            every = [{"ip_address": text, "mac_address": mac} for text in spellings for mac in macs]
            before = chance.sample(every, chance.randrange(6))
            port = {"mac_address": own, "allowed_address_pairs": before, "port_security_enabled": True}
            wanted = chance.sample(networks, chance.randrange(1, 4))
            with self.subTest(seed=seed, before=before, wanted=wanted):
                self.check(port, wanted)

    def check(self, port, wanted):
        """Adds the networks to the port, and takes them away again."""
        before = port["allowed_address_pairs"]
        after = pairs_to_write(port, wanted, "present")
        if after is None:
            after = before
        self.assertEqual(after[: len(before)], before)
        keys = [(pair["ip_address"], pair["mac_address"]) for pair in after]
        self.assertEqual(len(set(keys)), len(keys))
        self.assertIsNone(pairs_to_write({**port, "allowed_address_pairs": after}, wanted, "present"))
        left = pairs_to_write({**port, "allowed_address_pairs": after}, wanted, "absent")
        left = after if left is None else left
        foreign = [pair for pair in before if pair["ip_address"] not in wanted or pair["mac_address"].lower() != port["mac_address"]]
        self.assertEqual(left, foreign)


class Lookup(unittest.TestCase):
    """Which port is a host's."""

    def test_by_address_by_mac_and_by_both(self):
        network = CLOUD.network()
        ports = [CLOUD.port(network, last) for last in (5, 6, 7)]
        mac = ports[1]["mac_address"].upper().replace(":", "-")
        hosts = [host(ports[0], "a", mac=False), {"name": "b", "mac": mac}, host(ports[2], "c")]
        self.assertEqual(results(run(*hosts)), {"a": "added", "b": "added", "c": "added"})

    def test_a_hundred_hosts_in_a_few_requests(self):
        network = CLOUD.network()
        ports = [CLOUD.port(network, last) for last in range(1, 101)]
        hosts = [host(port, port["id"]) for port in ports]
        if not REAL:
            CLOUD.fake.log.clear()
        self.assertEqual(set(results(run(*hosts)).values()), {"added"})
        if not REAL:
            lists = [path for method, path in CLOUD.fake.log if "/ports?" in path]
            self.assertEqual((len(lists), len(CLOUD.fake.log)), (3, 3 + 100 + 3), CLOUD.fake.log)
        self.assertFalse(run(*hosts)["changed"])

    def test_one_address_in_two_networks(self):
        one = CLOUD.network()
        two = CLOUD.network(prefix=one["prefix"])
        ports = [CLOUD.port(network, 5) for network in (one, two)]
        self.assertRegex(run(host(ports[0], mac=False))["msg"], "worker1: .* 2 ports .*calico_openstack_network")
        self.assertTrue(run(host(ports[0]))["changed"])
        self.assertTrue(run(host(ports[1], mac=False), neutron_network=two["name"])["changed"])
        self.assertFalse(run(host(ports[1], mac=False), neutron_network=two["id"])["changed"])
        self.assertRegex(run(host(ports[0]), neutron_network="nosuch")["msg"], "network 'nosuch': there are 0")

    def test_an_administrator_means_the_own_project_first(self):
        own = CLOUD.network(account=cloud.ADMIN)
        theirs = CLOUD.network(account=cloud.OTHER, prefix=own["prefix"])
        port = CLOUD.port(own, 5, account=cloud.ADMIN)
        other = CLOUD.port(theirs, 5, account=cloud.OTHER)
        self.assertTrue(run(host(port, mac=False), auth=CLOUD.credentials(cloud.ADMIN))["changed"])
        self.assertEqual(CLOUD.pairs(other), set())

    def test_every_host_without_a_port_is_named_and_nothing_is_written(self):
        network = CLOUD.network()
        port, moved = CLOUD.port(network, 5), CLOUD.port(network, 6)
        wrong = {**host(moved, "moved"), "mac": "fa:16:3e:ff:ff:ff"}
        gone = {"name": "gone", "fixed_ip": network["prefix"] + ".7"}
        message = run(host(port), gone, wrong)["msg"]
        self.assertIn("gone: Neutron has no port with fixed IP %s.7" % network["prefix"], message)
        self.assertIn("moved: no port with fixed IP %s.6 has MAC fa:16:3e:ff:ff:ff" % network["prefix"], message)
        self.assertEqual(CLOUD.pairs(port), set())

    def test_two_hosts_with_one_port(self):
        port = CLOUD.port(CLOUD.network(), 5)
        message = run(host(port, "a"), host(port, "b"))["msg"]
        self.assertIn("a and b lead to the same port", message)

    def test_a_port_of_another_project_is_not_seen(self):
        port = CLOUD.port(CLOUD.network(account=cloud.OTHER), 5, account=cloud.OTHER)
        self.assertIn("has no port with", run(host(port))["msg"])


class Failures(unittest.TestCase):
    """What stops the play, in a sentence that says what to do."""

    def fails(self, pattern, *ports, **options):
        """Runs it, and wants this message without a traceback or a password."""
        result = run(*(ports or [{"name": "worker1", "fixed_ip": "10.0.0.1"}]), **options)
        self.assertTrue(result.get("failed"), result)
        self.assertRegex(result["msg"], pattern)
        self.assertNotIn("exception", result)
        self.assertNotIn("\n", result["msg"])
        self.assertNotIn("-password", json.dumps(result))

    def test_bad_values(self):
        for text in ("192.168.0.0/33", "192.168.0.1/16", "tasks", ""):
            self.fails("networks: '%s' is not a network.*for example" % text, networks=[text])
        self.fails("multicast", networks=["224.0.0.0/4"])
        self.fails("worker1: 'x' does not appear to be", {"name": "worker1", "fixed_ip": "x"})
        self.fails("a: 'zz' is not a MAC.*; b: its port cannot be looked up", {"name": "a", "mac": "zz"}, {"name": "b"})

    def test_no_credentials(self):
        self.fails("no complete OpenStack credentials.*OS_AUTH_URL.*calico_mode", environment={})
        self.fails("no complete OpenStack credentials", environment={"OS_AUTH_URL": CLOUD.keystone})
        self.fails("cannot read the OpenStack configuration: Cloud nosuch", environment={}, cloud="nosuch")

    def test_wrong_password(self):
        self.fails("Keystone refused the credentials.*check user", auth=CLOUD.credentials(password="no-password"))
        self.fails("Keystone refused the credentials", auth=CLOUD.credentials(project_name="admin"))

    def test_unreachable_keystone(self):
        auth = CLOUD.credentials(auth_url="http://127.0.0.1:1/v3")
        self.fails("cannot reach Keystone: .*127.0.0.1:1", auth=auth)

    def test_no_neutron_in_the_catalog(self):
        self.fails("catalog has no Neutron: public .*Nowhere", region_name="Nowhere")
        self.fails("catalog has no Neutron", interface="internal")

    def test_the_limit_of_pairs(self):
        port = CLOUD.port(CLOUD.network(), 5)
        CLOUD.update(port, allowed_address_pairs=[{"ip_address": "10.9.9.%d" % last} for last in range(1, 11)])
        before = CLOUD.pairs(port)
        self.fails("400: .*exceeds the maximum 10.*max_allowed_address_pair", host(port))
        self.assertEqual(CLOUD.pairs(port), before)

    def test_a_network_of_others(self):
        network = CLOUD.network(account=cloud.ADMIN, shared=True)
        body = {"port": {"network_id": network["id"]}}
        port = CLOUD.network_api("POST", "/ports", body, cloud.CLUSTER)["port"]
        self.fails("403: .*disallowed by policy.*owner of the network.*calico_mode", host(port))
        self.assertEqual(results(run(host(port), auth=CLOUD.credentials(cloud.ADMIN))), {"worker1": "added"})


class Credentials(unittest.TestCase):
    """Where they may come from."""

    def test_variables(self):
        port = CLOUD.port(CLOUD.network(), 5)
        auth = CLOUD.credentials()
        names = {"OS_" + name.upper(): value for name, value in auth.items()}
        self.assertTrue(run(host(port), environment=names)["changed"])

    def test_clouds_yaml_even_with_a_cache(self):
        port = CLOUD.port(CLOUD.network(), 5)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "clouds.yaml")
            clouds = {"here": {"auth": CLOUD.credentials(), "region_name": cloud.REGION}}
            cache = {"class": "dogpile.cache.dbm", "expiration_time": 3600, "arguments": {"filename": folder + "/cache"}}
            file.write_text(json.dumps({"clouds": clouds, "cache": cache}))
            place = {"OS_CLIENT_CONFIG_FILE": str(file)}
            self.assertTrue(run(host(port), environment=place, cloud="here")["changed"])
            self.assertFalse(run(host(port), environment={**place, "OS_CLOUD": "here"})["changed"])
            CLOUD.update(port, allowed_address_pairs=[])
            self.assertTrue(run(host(port), environment=place, cloud="here")["changed"])


class Writers(unittest.TestCase):
    """Other clients write to the same ports at the same time."""

    def test_runs_that_meet_lose_nothing(self):
        ports = [CLOUD.port(CLOUD.network(), 5)]
        ports += [CLOUD.port(CLOUD.network(), 5)]
        hosts = [host(port, port["id"]) for port in ports]
        networks = ["10.%d.0.0/16" % number for number in range(200, 206)]
        started = [Started(ports=hosts, networks=[network], attempts=30) for network in networks]
        found = []
        threads = [threading.Thread(target=lambda run: found.append(run.result()), args=[run]) for run in started]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([result["msg"] for result in found if "msg" in result], [])
        for port in ports:
            self.assertEqual({network for network, _ in CLOUD.pairs(port)}, set(networks))

    def test_any_mix_of_writers_leaves_what_each_wanted(self):
        """Adds and removals of the module beside a client that writes with revisions; the seed is printed."""
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        port = CLOUD.port(CLOUD.network(), 5)
        for round_ in range(3 if REAL else 6):
            there = ["10.%d.0.0/16" % (10 + number) for number in range(3)]
            CLOUD.update(port, allowed_address_pairs=[{"ip_address": network} for network in there])
            removed = chance.sample(there, chance.randrange(3))
            added = ["10.%d.0.0/16" % (20 + number) for number in range(chance.randrange(1, 4))]
            foreign = ["172.16.%d.0/24" % number for number in range(3)]
            started = [Started(ports=[host(port)], networks=[network], attempts=30) for network in added]
            started += [Started(ports=[host(port)], networks=[one], state="absent", attempts=30) for one in removed]
            threads = [threading.Thread(target=self.assert_done, args=[run]) for run in started]
            threads.append(threading.Thread(target=self.write_foreign, args=[port, foreign]))
            chance.shuffle(threads)
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            expected = set(there) - set(removed) | set(added) | set(foreign)
            found = {network for network, _ in CLOUD.pairs(port)}
            self.assertEqual(found, expected, "seed %d, round %d" % (seed, round_))

    def assert_done(self, started):
        """A run that must succeed; what it must have done is compared at the end."""
        started.result()

    def write_foreign(self, port, networks):
        """Another careful client: reads, appends, writes at that revision, until it is in."""
        for network in networks:
            while True:
                now = CLOUD.read(port)
                pairs = now["allowed_address_pairs"] + [{"ip_address": network}]
                try:
                    CLOUD.update(port, revision=now["revision_number"], allowed_address_pairs=pairs)
                    break
                except cloud.Refused as refused:
                    # 500: SQLite refuses a second writer with "database is locked".
                    if refused.status not in (409, 412, 500):
                        raise


@unittest.skipIf(REAL, "real Neutron does not fail on demand")
class Faults(unittest.TestCase):
    """Answers that only the stand-in gives when a test wants them."""

    def setUp(self):
        self.port = CLOUD.port(CLOUD.network(), 5)
        CLOUD.fake.faults.clear()
        self.addCleanup(CLOUD.fake.faults.clear)

    def fault(self, method, status, kind="Fault", times=1, part="/ports"):
        """The next such requests fail."""
        error = {"NeutronError": {"type": kind, "message": "made to fail", "detail": ""}}
        CLOUD.fake.fault(method, part, status, error, times)

    def test_conflicts_are_tried_again(self):
        for status in (409, 412, 500):
            self.fault("PUT", status, times=2)
        self.assertEqual(results(run(host(self.port))), {"worker1": "added"})

    def test_conflicts_without_end_are_an_error(self):
        self.fault("PUT", 412, times=3)
        result = run(host(self.port), attempts=3)
        self.assertRegex(result["msg"], "worker1: .*412: made to fail; tried 3 times")
        self.assertEqual(results(result), {"worker1": "failed"})

    def test_an_exhausted_quota_is_not_tried_again(self):
        self.fault("PUT", 409, "OverQuota")
        self.assertRegex(run(host(self.port))["msg"], "409: made to fail; have the quota of the project raised")

    def test_port_security_switched_off_meanwhile(self):
        state = CLOUD.fake
        original = state.update

        def switch(name, *rest):
            state.ports[name] = {**state.ports[name], "port_security_enabled": False}
            state.update = original
            original(name, *rest)

        state.update = switch
        self.assertEqual(results(run(host(self.port))), {"worker1": "no port security"})

    def test_an_overloaded_service_is_tried_again(self):
        self.fault("GET", 503, times=2)
        self.fault("PUT", 503)
        self.assertTrue(run(host(self.port))["changed"])

    def test_an_error_of_the_service_names_the_port_and_skips_the_rest(self):
        second = CLOUD.port(CLOUD.network(), 5)
        self.fault("PUT", 500, times=2)
        result = run(host(self.port, "a"), host(second, "b"), attempts=2)
        self.assertRegex(result["msg"], "pairs of port %s: Neutron returned 500: made to fail" % self.port["id"])
        self.assertEqual(results(result), {"a": "failed", "b": "skipped"})

    def test_an_expired_token_is_renewed(self):
        CLOUD.fake.fault("GET", "/ports", 401, {"error": {"code": 401, "message": "expired"}})
        self.assertTrue(run(host(self.port))["changed"])
        CLOUD.fake.fault("GET", "/ports", 401, {"error": {"code": 401, "message": "expired"}}, times=2)
        self.assertRegex(run(host(self.port))["msg"], "cannot list the ports: Neutron returned 401: expired; check")

    def test_a_page_a_request(self):
        network = CLOUD.network()
        hosts = [host(CLOUD.port(network, last), str(last)) for last in range(5, 12)]
        CLOUD.fake.page = 2
        self.addCleanup(setattr, CLOUD.fake, "page", None)
        self.assertEqual(set(results(run(*hosts)).values()), {"added"})

    def test_a_neutron_without_the_extension(self):
        for field, extension in (("revision_number", "revision-if-match"), ("allowed_address_pairs", "allowed-address-pairs")):
            del CLOUD.fake.ports[self.port["id"]][field]
            self.assertRegex(run(host(self.port))["msg"], "no extension %s; calico_mode" % extension)


if __name__ == "__main__":
    unittest.main()
