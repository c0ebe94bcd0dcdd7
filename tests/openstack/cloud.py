"""A cloud for the tests: what it holds when it starts, and a client of its two APIs.

The client speaks HTTP itself, so that the module under test and its tests share no library. The fake (`fake.py`) and real
Keystone and Neutron (`real.py`) are both driven through it; everything else in this folder does not know which one runs.
"""

import itertools
import json
import threading
import urllib.error
import urllib.request

REGION = "RegionOne"
ADMIN = ("admin", "admin-password", "admin")
# Members of a project of their own; both projects are in the default domain.
CLUSTER = ("cluster", "cluster-password", "cluster")
OTHER = ("other", "other-password", "other")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, method, url, status, body):
        super().__init__("%s %s: %d %s" % (method, url, status, body))
        self.status = status
        self.body = body


def request(method, url, body=None, headers=None):
    """One request with JSON in both directions; returns the headers and the body."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            text = answer.read()
            return answer.headers, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(method, url, error.code, error.read().decode(errors="replace")) from None


def password_login(account):
    """Body of a request for a token of the account's project."""
    user, password, project = account
    domain = {"id": "default"}
    return {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": user, "password": password, "domain": domain}},
            },
            "scope": {"project": {"name": project, "domain": domain}},
        }
    }


class Cloud:
    """A running cloud. `stop` ends it and removes its files."""

    subnets = itertools.count()
    lock = threading.Lock()

    def __init__(self, keystone, neutron, stop):
        self.keystone, self.neutron, self.stop = keystone, neutron, stop
        self.tokens = {}

    def token(self, account):
        """A token of the account, made once."""
        if account not in self.tokens:
            headers, _ = request("POST", self.keystone + "/auth/tokens", password_login(account))
            self.tokens[account] = headers["X-Subject-Token"]
        return self.tokens[account]

    def network_api(self, method, path, body=None, account=ADMIN, headers=None):
        """One request to Neutron; returns the body."""
        headers = {"X-Auth-Token": self.token(account), **(headers or {})}
        return request(method, "%s/v2.0%s" % (self.neutron, path), body, headers)[1]

    def network(self, account=CLUSTER, shared=False, prefix=None):
        """A network with one subnet that no other test uses, or with the given one."""
        with self.lock:
            number = next(self.subnets)
        prefix = prefix or "10.%d.%d" % (100 + number // 250, number % 250)
        name = "network-%d" % number
        body = {"network": {"name": name, "shared": shared}}
        network = self.network_api("POST", "/networks", body, account)["network"]
        subnet = {
            "network_id": network["id"],
            "ip_version": 4,
            "cidr": prefix + ".0/24",
            "enable_dhcp": False,
            "gateway_ip": None,
        }
        self.network_api("POST", "/subnets", {"subnet": subnet}, account)
        return {"id": network["id"], "name": name, "prefix": prefix}

    def port(self, network, last, account=CLUSTER, **more):
        """A port with the address whose last byte is given."""
        address = "%s.%d" % (network["prefix"], last)
        body = {"network_id": network["id"], "fixed_ips": [{"ip_address": address}], **more}
        return self.network_api("POST", "/ports", {"port": body}, account)["port"]

    def read(self, port):
        """The port as it is now."""
        return self.network_api("GET", "/ports/" + port["id"])["port"]

    def pairs(self, port):
        """The port's address pairs as a set of (address, MAC)."""
        pairs = self.read(port)["allowed_address_pairs"]
        result = {(pair["ip_address"], pair["mac_address"]) for pair in pairs}
        assert len(result) == len(pairs), pairs
        return result

    def update(self, port, revision=None, account=CLUSTER, **fields):
        """Changes fields of a port, at any revision or only at the given one."""
        headers = {} if revision is None else {"If-Match": "revision_number=%d" % revision}
        return self.network_api("PUT", "/ports/" + port["id"], {"port": fields}, account, headers)["port"]

    def credentials(self, account=CLUSTER, **more):
        """What `auth` of the module and of clouds.yaml takes."""
        user, password, project = account
        return {
            "auth_url": self.keystone,
            "username": user,
            "password": password,
            "project_name": project,
            "user_domain_id": "default",
            "project_domain_id": "default",
            **more,
        }
