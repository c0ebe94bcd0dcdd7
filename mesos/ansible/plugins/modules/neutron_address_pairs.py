#!/usr/bin/python
# Copyright: the authors of calico-mesos
# Apache License 2.0 (see LICENSE)
"""Lets the Neutron ports of Calico hosts carry the addresses of tasks.

Neutron drops what leaves a port with a source address that is not the port's own, so tasks with addresses of their own
need an "allowed address pair" on the port of every host. The module reads all ports, decides what is missing
(`pairs_to_write`, without any input or output), and writes only those ports.

A write replaces the whole list of a port. It therefore names the revision that it was computed from, and Neutron refuses
it when another client wrote in between: the port is then read again, and the list computed anew.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: neutron_address_pairs
short_description: Allows networks of tasks on the Neutron ports of their hosts
description:
  - Adds networks to the C(allowed_address_pairs) of Neutron ports, each with the MAC address of its port.
  - Pairs of others stay. A pair that covers the network already, with the MAC address of the port, is enough.
  - Other clients may write to the same ports at the same time; no pair is lost.
  - Ports without port security need no pairs and are left alone.
  - Nothing is written unless every port was found. Run it once for all hosts, where the credentials are.
options:
  networks:
    description: Networks in CIDR notation, IPv4 or IPv6, that tasks have addresses of.
    type: list
    elements: str
    required: true
  ports:
    description: The hosts, each with what its port is found by.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the host in messages and results.
        type: str
      fixed_ip:
        description: A fixed IP address of the port. At least one of O(ports[].fixed_ip) and O(ports[].mac) is needed.
        type: str
      mac:
        description: The MAC address of the port. With O(ports[].fixed_ip) too, the port must have both.
        type: str
  neutron_network:
    description: Name or ID of the Neutron network that the ports are in, where one address is in several networks.
    type: str
  state:
    description:
      - V(present) adds what is missing.
      - V(absent) removes the pairs of exactly these networks with the MAC address of the port, and no other pairs. A host
        that has no port any more is no error.
    type: str
    choices: [present, absent]
    default: present
  cloud:
    description: Name of a cloud in clouds.yaml. Without it, E(OS_CLOUD) or the other C(OS_*) variables decide.
    type: str
  auth:
    description: Credentials of Keystone as in clouds.yaml, for example C(auth_url), C(username), C(password).
    type: dict
  auth_type:
    description: Authentication plugin of keystoneauth, for example V(v3applicationcredential).
    type: str
  region_name:
    description: Region to take Neutron from.
    type: str
  interface:
    description: Which of Neutron's endpoints is used.
    type: str
    choices: [public, internal, admin]
  validate_certs:
    description: Whether the certificates of the API are checked.
    type: bool
  ca_cert:
    description: File with the certificates that sign those of the API.
    type: path
  client_cert:
    description: File with the certificate shown to the API.
    type: path
  client_key:
    description: File with the key of O(client_cert).
    type: path
  api_timeout:
    description: Seconds that one request may take.
    type: int
    default: 60
  attempts:
    description: How often a port is read and written while other clients write to it too.
    type: int
    default: 10
requirements:
  - python >= 3.9
  - openstacksdk >= 1.0.0
attributes:
  check_mode:
    description: Finds and reads the ports, and writes nothing.
    support: full
  diff_mode:
    description: Shows the pairs of each changed port before and after.
    support: full
author: The authors of calico-mesos
"""

EXAMPLES = r"""
- name: Let all workers carry the addresses of tasks
  calico_mesos.mesos.neutron_address_pairs:
    cloud: production
    networks: [192.168.0.0/16]
    ports:
      - {name: worker1, fixed_ip: 10.0.0.11, mac: "fa:16:3e:00:00:11"}
      - {name: worker2, fixed_ip: 10.0.0.12}
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
ports:
  description: One entry a host, in the order of O(ports).
  returned: success, or failure after the ports were found
  type: list
  elements: dict
  contains:
    name:
      description: Name of the host.
      type: str
      returned: always
    id:
      description: ID of the port.
      type: str
      returned: when there is a port
    result:
      description:
        - V(added), V(removed) or V(unchanged).
        - V(no port security) where the port needs no pairs, V(no port) where a host to be removed has none.
        - V(failed) or V(skipped) where an earlier error stopped the work.
      type: str
      returned: always
    pairs:
      description: The pairs that the port has now, or would have after the run in check mode.
      type: list
      elements: dict
      returned: when there is a port
"""

import ipaddress
import random
import re
import time
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

SDK_ERROR = None
try:
    import openstack.config
    from keystoneauth1 import adapter
    from keystoneauth1 import exceptions as keystone
    from openstack import exceptions as sdk
except ImportError:
    SDK_ERROR = traceback.format_exc()

# Ports are looked up in groups: one request for many hosts, in a line that every web server accepts.
GROUP = 40
FIELDS = [
    "id",
    "mac_address",
    "fixed_ips",
    "network_id",
    "project_id",
    "allowed_address_pairs",
    "port_security_enabled",
    "revision_number",
]
HARMLESS = re.compile("auth_url|username|(user|project|default|user_domain|project_domain|domain)_(id|name)|.*_domain")
OTHER_MODES = "calico_mode ipip or vxlan needs no address pairs"
INCOMPLETE = (
    "no complete OpenStack credentials where this runs (%s): give clouds.yaml and OS_CLOUD (calico_openstack_cloud), or"
    " OS_AUTH_URL and the other OS_* variables; " + OTHER_MODES
)


class Problem(Exception):
    """What stops the play, in a sentence for the operator."""


class Moved(Exception):
    """The write was refused because another client wrote, or it is not known whether it was done."""


def canonical_network(text):
    """The network in the form that Neutron returns it in."""
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise Problem(
            "networks: '%s' is not a network: %s; write it as address/length, for example 192.168.0.0/16" % (text, error)
        )
    if network.network_address.is_multicast:
        raise Problem("networks: '%s' is a multicast network, which tasks cannot have addresses of" % text)
    return str(network)


def canonical_mac(text):
    """The MAC address in lower case with colons; raises ValueError."""
    digits = re.sub(r"[:.-]", "", text.strip()).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise ValueError("'%s' is not a MAC address" % text)
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def same_mac(pair, port):
    """Whether the pair lets through what the port sends; a pair without a MAC address has that of its port."""
    own = port["mac_address"].lower()
    return (pair.get("mac_address") or own).lower() == own


def pair_network(pair):
    """The network of a pair, or None where another client's entry is not understood."""
    try:
        return ipaddress.ip_network(pair.get("ip_address", ""), strict=False)
    except ValueError:
        return None


def covers(pair, port, network):
    """Whether the pair already lets the port carry every address of the network."""
    outer = pair_network(pair)
    return (
        outer is not None and outer.version == network.version and network.subnet_of(outer) and same_mac(pair, port)
    )


def needs_no_pairs(port):
    """Port security is off: Neutron checks no addresses, and refuses pairs."""
    return port.get("port_security_enabled") is False


def pairs_to_write(port, networks, state):
    """The whole list that the port must get, or None where it is right as it is."""
    pairs = list(port["allowed_address_pairs"])
    wanted = [ipaddress.ip_network(network) for network in networks]
    if state == "absent":
        # Exactly what this module writes; the same network in another spelling was written by another client.
        own = {str(network) for network in wanted}
        kept = [pair for pair in pairs if pair.get("ip_address") not in own or not same_mac(pair, port)]
        return kept if len(kept) < len(pairs) else None
    if needs_no_pairs(port):
        return None
    # The widest first: a network inside another one needs no pair of its own.
    for network in sorted(wanted, key=lambda network: (network.version, network.prefixlen)):
        if not any(covers(pair, port, network) for pair in pairs):
            pairs.append({"ip_address": str(network), "mac_address": port["mac_address"]})
    return pairs if len(pairs) > len(port["allowed_address_pairs"]) else None


def shown(pairs):
    """Pairs as lines, for messages and the diff."""
    return ["%s %s" % (pair.get("ip_address"), pair.get("mac_address") or "") for pair in pairs]


class Host:
    """One entry of `ports`: what a port is looked up by, then the port."""

    def __init__(self, entry):
        self.ip = self.mac = self.port = None
        self.name = entry.get("name") or entry.get("fixed_ip") or entry.get("mac") or "a port without a name"
        try:
            if entry.get("fixed_ip"):
                self.ip = ipaddress.ip_address(entry["fixed_ip"].strip())
            if entry.get("mac"):
                self.mac = canonical_mac(entry["mac"])
        except ValueError as error:
            raise Problem("%s: %s" % (self.name, error))
        if self.ip is None and self.mac is None:
            raise Problem("%s: its port cannot be looked up without a fixed_ip (private_ipv4) or a mac" % self.name)

    def key(self):
        """The query that finds its port; more is compared afterwards."""
        return ("fixed_ips", "ip_address=%s" % self.ip) if self.ip else ("mac_address", self.mac)

    def sought(self):
        """What it is looked up by, in words."""
        parts = ["fixed IP %s" % self.ip if self.ip else "", "MAC %s" % self.mac if self.mac else ""]
        return " and ".join(part for part in parts if part)

    def has_ip(self, port):
        """Whether the fixed IP is one of the port's."""
        return any(ipaddress.ip_address(fixed["ip_address"]) == self.ip for fixed in port["fixed_ips"])

    def choose(self, ports, network_id, project_id):
        """Takes the one port that is the host's."""
        found = [port for port in ports if self.ip is None or self.has_ip(port)]
        if network_id:
            found = [port for port in found if port["network_id"] == network_id]
        with_mac = [port for port in found if self.mac is None or port["mac_address"].lower() == self.mac]
        if found and not with_mac:
            others = ", ".join("%s has %s" % (port["id"], port["mac_address"]) for port in found)
            raise Problem(
                "%s: no port with fixed IP %s has MAC %s (port %s); check private_ipv4, or leave the MAC out"
                " (calico_openstack_match_mac: false)" % (self.name, self.ip, self.mac, others)
            )
        if len(with_mac) > 1 and any(port.get("project_id") == project_id for port in with_mac):
            # Administrators see the ports of every project, and projects may use the same addresses.
            with_mac = [port for port in with_mac if port.get("project_id") == project_id]
        if not with_mac:
            raise Problem(
                "%s: Neutron has no port with %s that these credentials can see; check private_ipv4, the project and the"
                " region" % (self.name, self.sought())
            )
        if len(with_mac) > 1:
            raise Problem(
                "%s: Neutron has %d ports with %s (%s); set calico_openstack_network to the name of the right network"
                % (self.name, len(with_mac), self.sought(), ", ".join(sorted(port["id"] for port in with_mac)))
            )
        self.port = with_mac[0]
        for field, extension in (("allowed_address_pairs", "allowed-address-pairs"), ("revision_number", "revision-if-match")):
            if field not in self.port:
                raise Problem("this Neutron has no extension %s; %s" % (extension, OTHER_MODES))


def error_of(response):
    """Type and message of an error that Neutron, or what stands before it, returned."""
    try:
        body = response.json()
        error = body.get("NeutronError") or body["error"]
        return error.get("type", ""), error["message"].strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", (response.text or response.reason or "").strip()[:300]


def refusal(response, doing):
    """The sentence for a response that is an error."""
    kind, message = error_of(response)
    status = response.status_code
    text = "%s: Neutron returned %d: %s" % (doing, status, message or response.reason)
    if status == 401:
        text += "; check the credentials of the cloud"
    elif status == 403:
        text += (
            "; the credentials may not set address pairs there (often only the owner of the network may): use others, or"
            " other means: " + OTHER_MODES
        )
    elif kind == "AllowedAddressPairExhausted":
        text += (
            "; remove pairs that are not needed any more, use one wider network, or have max_allowed_address_pair of"
            " Neutron raised"
        )
    elif kind == "OverQuota":
        text += "; have the quota of the project raised"
    elif status >= 500:
        text += "; run the play again once Neutron works"
    return text


class Neutron:
    """The few requests that are needed, with one token."""

    def __init__(self, params):
        self.client = None
        self.timeout = params["api_timeout"]
        try:
            self._connect(params)
        except sdk.ConfigException as error:
            raise Problem("cannot read the OpenStack configuration: %s" % error)
        except (keystone.MissingRequiredOptions, keystone.NoMatchingPlugin, keystone.MissingAuthPlugin) as error:
            raise Problem(INCOMPLETE % error)
        except keystone.Unauthorized as error:
            raise Problem("Keystone refused the credentials: %s; check user, password, project and domains" % error)
        except (keystone.CatalogException, keystone.EndpointNotFound) as error:
            raise Problem("Keystone's catalog has no Neutron: %s; check region_name and interface" % error)
        except (keystone.ClientException, sdk.SDKException) as error:
            raise Problem("cannot reach Keystone: %s" % " ".join(str(error).split()))
        except Exception as error:
            # keystoneauth raises exactly this class where the password is missing.
            if type(error) is not Exception:
                raise
            raise Problem(INCOMPLETE % error)

    def _connect(self, params):
        names = ("cloud", "auth", "auth_type", "region_name", "interface")
        options = {name: params[name] for name in names if params[name] is not None}
        if params["validate_certs"] is not None:
            options["verify"] = params["validate_certs"]
        for option, name in (("cacert", "ca_cert"), ("cert", "client_cert"), ("key", "client_key")):
            if params[name] is not None:
                options[option] = params[name]
        region = openstack.config.get_cloud_region(app_name="calico-mesos", **options)
        interface, name = region.get_interface("network"), region.get_region_name("network")
        # Not the SDK's own proxy, which returns ports from a cache where clouds.yaml asks for one.
        self.client = adapter.Adapter(
            region.get_session(),
            service_type="network",
            interface=interface,
            region_name=name,
            endpoint_override=region.get_endpoint("network"),
            min_version="2",
            max_version="2.latest",
        )
        self.client.get_token()
        if not self.client.get_endpoint():
            raise keystone.EndpointNotFound(
                "there is no endpoint '%s' of the service 'network' in region '%s'" % (interface, name)
            )

    def _request(self, method, path, doing, **more):
        try:
            return self.client.request(
                path, method, raise_exc=False, timeout=self.timeout, connect_retries=3, status_code_retries=3, **more
            )
        except keystone.Unauthorized as error:
            raise Problem("%s: Keystone refused the credentials: %s" % (doing, error))
        except keystone.ClientException as error:
            raise Problem("%s: %s" % (doing, error))

    def _get(self, path, doing, **more):
        response = self._request("GET", path, doing, **more)
        if response.status_code >= 400:
            raise Problem(refusal(response, doing))
        return response.json()

    def project(self):
        """ID of the project that the token is for."""
        return self.client.get_project_id()

    def network_id(self, name):
        """ID of the network with this name or ID."""
        doing = "cannot look up the Neutron network '%s'" % name
        found = set()
        for field in ("name", "id"):
            answer = self._get("/networks", doing, params=[(field, name), ("fields", "id")])
            found.update(network["id"] for network in answer["networks"])
        if len(found) != 1:
            raise Problem("%s: there are %d; set calico_openstack_network to its ID" % (doing, len(found)))
        return found.pop()

    def ports(self, hosts):
        """Every port that one of the hosts may mean."""
        found = {}
        for kind in ("fixed_ips", "mac_address"):
            keys = sorted({host.key() for host in hosts if host.key()[0] == kind})
            for at in range(0, len(keys), GROUP):
                query = keys[at : at + GROUP] + [("fields", field) for field in FIELDS]
                for port in self._pages(query):
                    found[port["id"]] = port
        return list(found.values())

    def _pages(self, query):
        doing = "cannot list the ports"
        answer = self._get("/ports", doing, params=query)
        while True:
            for port in answer["ports"]:
                yield port
            following = [link["href"] for link in answer.get("ports_links", []) if link.get("rel") == "next"]
            if not following:
                return
            answer = self._get(following[0], doing)

    def read(self, port_id):
        """The port as it is now; None when it was deleted."""
        doing = "cannot read port %s" % port_id
        response = self._request("GET", "/ports/" + port_id, doing)
        if response.status_code == 404:
            return None
        if response.status_code >= 400:
            raise Problem(refusal(response, doing))
        return response.json()["port"]

    def write(self, port, pairs):
        """Replaces the pairs, unless another client wrote to the port since it was read. Returns the port."""
        doing = "cannot write the address pairs of port %s" % port["id"]
        headers = {"If-Match": "revision_number=%d" % port["revision_number"]}
        body = {"port": {"allowed_address_pairs": pairs}}
        response = self._request("PUT", "/ports/" + port["id"], doing, json=body, headers=headers)
        status = response.status_code
        # 409 where port security was switched off, 412 or a failed transaction (500) where another client wrote. Whether
        # the write was done, and what is to be done now, the port itself shows.
        if (status in (404, 409, 412) or status >= 500) and error_of(response)[0] != "OverQuota":
            raise Moved(refusal(response, doing))
        if status >= 400:
            raise Problem(refusal(response, doing))
        return response.json()["port"]


class Run:
    """All hosts of one call: find every port, then change those that need it."""

    def __init__(self, params, check_mode):
        self.networks = [canonical_network(text) for text in params["networks"]]
        self.state = params["state"]
        self.attempts = max(1, params["attempts"])
        self.check_mode = check_mode
        self.hosts = gathered(Host, params["ports"])
        self.results = {}
        self.diff = []
        self.neutron = Neutron(params)
        self.neutron_network = params["neutron_network"]

    def find(self):
        """Gives every host its port, and reports all that have none together."""
        if not self.hosts:
            return
        network_id = self.neutron.network_id(self.neutron_network) if self.neutron_network else None
        ports = self.neutron.ports(self.hosts)
        project = self.neutron.project()
        by_key = {}
        for port in ports:
            for fixed in port["fixed_ips"]:
                by_key.setdefault(str(ipaddress.ip_address(fixed["ip_address"])), []).append(port)
            by_key.setdefault(port["mac_address"].lower(), []).append(port)

        def choose(host):
            try:
                host.choose(by_key.get(str(host.ip or host.mac), []), network_id, project)
            except Problem:
                if self.state == "present" or by_key.get(str(host.ip or host.mac)):
                    raise
                self.results[host.name] = {"result": "no port"}

        gathered(choose, self.hosts)
        owners = {}
        for host in self.hosts:
            if host.port and owners.setdefault(host.port["id"], host) is not host:
                raise Problem(
                    "%s and %s lead to the same port %s; check private_ipv4 of both"
                    % (owners[host.port["id"]].name, host.name, host.port["id"])
                )

    def change(self):
        """Brings every port to where it must be; an error ends the work at that host."""
        hosts = [host for host in self.hosts if host.port]
        for at, host in enumerate(hosts):
            try:
                self._change(host)
            except Problem:
                for later in hosts[at:]:
                    self.results[later.name] = {"id": later.port["id"], "result": "skipped"}
                self.results[host.name]["result"] = "failed"
                raise

    def _change(self, host):
        port, reason = host.port, ""
        for attempt in range(self.attempts):
            if attempt:
                # Writers that met once must not meet again in step.
                time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))
                port = self.neutron.read(port["id"])
                if port is None:
                    return self._deleted(host)
            pairs = pairs_to_write(port, self.networks, self.state)
            if pairs is None:
                idle = "no port security" if needs_no_pairs(port) else "unchanged"
                return self._record(host, idle, port["allowed_address_pairs"])
            try:
                if not self.check_mode:
                    written = self.neutron.write(port, pairs)
                    if pairs_to_write(written, self.networks, self.state) is not None:
                        raise Problem(
                            "%s: Neutron accepted the address pairs of port %s and did not keep them; it has: %s"
                            % (host.name, port["id"], ", ".join(shown(written["allowed_address_pairs"])) or "none")
                        )
                    pairs = written["allowed_address_pairs"]
                self.diff.append(difference(host, port, port["allowed_address_pairs"], pairs))
                return self._record(host, "removed" if self.state == "absent" else "added", pairs)
            except Moved as moved:
                reason = str(moved)
        raise Problem("%s: %s; tried %d times" % (host.name, reason, self.attempts))

    def _deleted(self, host):
        if self.state == "present":
            raise Problem("%s: port %s was deleted during the run" % (host.name, host.port["id"]))
        self.results[host.name] = {"result": "no port"}

    def _record(self, host, result, pairs):
        self.results[host.name] = {"id": host.port["id"], "result": result, "pairs": pairs}

    def report(self):
        """What the module returns."""
        ports = [dict(self.results.get(host.name, {"result": "skipped"}), name=host.name) for host in self.hosts]
        result = {"changed": any(port["result"] in ("added", "removed") for port in ports), "ports": ports}
        if self.diff:
            result["diff"] = self.diff
        return result


def gathered(work, items):
    """The results for all items; the problems of all items, together."""
    done, problems = [], []
    for item in items:
        try:
            done.append(work(item))
        except Problem as problem:
            if str(problem) not in problems:
                problems.append(str(problem))
    if problems:
        raise Problem("; ".join(problems))
    return done


def difference(host, port, before, after):
    """An entry of the diff: the pairs as sorted lines, for Neutron keeps no order."""
    header = "address pairs of %s (port %s)" % (host.name, port["id"])
    return {
        "before_header": header,
        "after_header": header,
        "before": "".join(line + "\n" for line in sorted(shown(before))),
        "after": "".join(line + "\n" for line in sorted(shown(after))),
    }


def show_harmless(module):
    """Lets messages name URL, user and project of `auth`; only the rest of it is hidden."""
    auth = module.params["auth"] or {}
    secrets = {str(value) for name, value in auth.items() if not HARMLESS.fullmatch(name)}
    module.no_log_values = module.no_log_values - {str(value) for value in auth.values()} | secrets


def main():
    """Reads the parameters, works, and ends with the result."""
    text = {"type": "str"}
    port = {"name": text, "fixed_ip": text, "mac": text}
    module = AnsibleModule(
        argument_spec={
            "networks": {"type": "list", "elements": "str", "required": True},
            "ports": {"type": "list", "elements": "dict", "required": True, "options": port},
            "neutron_network": text,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "cloud": text,
            "auth": {"type": "dict", "no_log": True},
            "auth_type": text,
            "region_name": text,
            "interface": {"type": "str", "choices": ["public", "internal", "admin"]},
            "validate_certs": {"type": "bool"},
            "ca_cert": {"type": "path"},
            "client_cert": {"type": "path"},
            "client_key": {"type": "path", "no_log": False},
            "api_timeout": {"type": "int", "default": 60},
            "attempts": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    show_harmless(module)
    if SDK_ERROR:
        module.fail_json(msg=missing_required_lib("openstacksdk"), exception=SDK_ERROR)
    run = None
    try:
        run = Run(module.params, module.check_mode)
        run.find()
        run.change()
    except Problem as problem:
        module.fail_json(msg=str(problem), **(run.report() if run and run.results else {}))
    module.exit_json(**run.report())


if __name__ == "__main__":
    main()
