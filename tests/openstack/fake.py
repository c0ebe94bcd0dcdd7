"""A stand-in for Keystone and Neutron on loopback: what the module uses, and what its tests prepare.

Every answer, and every refusal, is one that real Keystone 30 and Neutron 29 were seen to give; `make test-neutron` runs
the same tests against those. Where they differ, this file is wrong.

`fault` makes answers fail that no real service fails on demand.
"""

import http.server
import ipaddress
import itertools
import json
import re
import threading
import urllib.parse
import uuid

import cloud

MOST_PAIRS = 10
MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


class Answer(Exception):
    """What a request gets, good or bad."""

    def __init__(self, status, body, headers=None):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


def refuse(status, kind, message):
    """An error in Neutron's form."""
    return Answer(status, {"NeutronError": {"type": kind, "message": message, "detail": ""}})


def unauthorized():
    """What both services answer without a good token or password."""
    message = "The request you have made requires authentication."
    return Answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": message}})


def not_found(kind, name):
    """What does not exist, and what the project may not see."""
    return refuse(404, kind.title() + "NotFound", "%s %s could not be found." % (kind.title(), name))


def check_pair(pair):
    """Refuses what cannot be an address pair."""
    mac, address = pair.get("mac_address"), pair.get("ip_address")
    if "mac_address" in pair and not MAC.fullmatch(str(mac)):
        raise refuse(400, "HTTPBadRequest", "'%s' is not a valid MAC address" % mac)
    if address is None:
        raise refuse(400, "AllowedAddressPairsMissingIP", "AllowedAddressPair must contain ip_address")
    unknown = set(pair) - {"mac_address", "ip_address"}
    if unknown:
        raise refuse(400, "HTTPBadRequest", "Unrecognized attribute(s) '%s'" % ", ".join(sorted(unknown)))
    try:
        # Neutron accepts a network with host bits, and keeps it as it was written.
        network = ipaddress.ip_network(address, strict=False)
    except ValueError:
        kind = "subnet" if "/" in address else "address"
        raise refuse(400, "HTTPBadRequest", "'%s' is not a valid IP %s" % (address, kind)) from None
    multicast = ipaddress.ip_network("224.0.0.0/4" if network.version == 4 else "ff00::/8")
    # Only IPv4 may have "every address": ::/0 is refused.
    if network.overlaps(multicast) and str(network) != "0.0.0.0/0":
        message = "Subnet %s overlaps with multicast range %s, which is not supported." % (address, multicast)
        raise refuse(400, "HTTPBadRequest", message)


def duplicate(mac, address):
    """A list with a pair twice."""
    message = "Request contains duplicate address pair: mac_address %s ip_address %s." % (mac, address)
    return refuse(400, "DuplicateAddressPairInRequest", message)


def checked_pairs(pairs, own_mac):
    """The pairs as the port keeps them."""
    if not isinstance(pairs, list):
        raise refuse(400, "HTTPBadRequest", "Allowed address pairs must be a list.")
    if len(pairs) > MOST_PAIRS:
        message = "The number of allowed address pair exceeds the maximum %d." % MOST_PAIRS
        raise refuse(400, "AllowedAddressPairExhausted", message)
    kept = []
    for pair in pairs:
        check_pair(pair)
        full = {"mac_address": pair.get("mac_address", own_mac), "ip_address": pair["ip_address"]}
        if full in kept:
            raise duplicate(full["mac_address"], full["ip_address"])
        kept.append(full)
    return kept


class State:
    """What both services hold."""

    def __init__(self):
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.accounts = {account[:2]: account[2] for account in (cloud.ADMIN, cloud.CLUSTER, cloud.OTHER)}
        self.projects = {project: uuid.uuid4().hex for project in self.accounts.values()}
        self.tokens = {}
        self.networks, self.subnets, self.ports = {}, {}, {}
        self.faults = []
        self.log = []
        self.page = None

    def fault(self, method, part, status, body=None, times=1):
        """Makes the next requests with this method, and this in their path, fail."""
        error = {"NeutronError": {"type": "Fault", "message": "made to fail", "detail": ""}}
        self.faults += [(method, part, status, error if body is None else body)] * times

    # Keystone

    def login(self, body, catalog):
        """A token for a name, a password and a project."""
        try:
            user = body["auth"]["identity"]["password"]["user"]
            project = body["auth"]["scope"]["project"]["name"]
            found = self.accounts.get((user["name"], user["password"]))
        except KeyError:
            raise unauthorized() from None
        if found is None or found != project:
            raise unauthorized()
        token = uuid.uuid4().hex
        self.tokens[token] = project
        domain = {"id": "default", "name": "Default"}
        content = {
            "methods": ["password"],
            "user": {"domain": domain, "id": uuid.uuid4().hex, "name": user["name"], "password_expires_at": None},
            "audit_ids": ["fake"],
            "expires_at": "2199-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "project": {"domain": domain, "id": self.projects[project], "name": project},
            "is_domain": False,
            "roles": [{"id": "1", "name": "admin" if project == "admin" else "member"}],
            "catalog": catalog,
        }
        raise Answer(201, {"token": content}, {"X-Subject-Token": token})

    # Neutron

    def create(self, kind, fields, project):
        """A network, a subnet or a port."""
        made = {"id": str(uuid.uuid4()), "project_id": self.projects[project], **fields}
        if kind == "port":
            made = self.new_port(made, fields, project)
        getattr(self, kind + "s")[made["id"]] = made
        raise Answer(201, {kind: made})

    def new_port(self, made, fields, project):
        """A port with an address, a MAC address and no pairs."""
        network = self.networks[fields["network_id"]]
        subnet = next(found for found in self.subnets.values() if found["network_id"] == network["id"])
        owner = project == "admin" or network["project_id"] == self.projects[project]
        if "fixed_ips" in fields and not owner:
            raise refuse(403, "PolicyNotAuthorized", "rule:create_port:fixed_ips is disallowed by policy")
        hosts = ipaddress.ip_network(subnet["cidr"]).hosts()
        taken = {fixed["ip_address"] for port in self.ports.values() for fixed in port["fixed_ips"]}
        free = next(str(host) for host in hosts if str(host) not in taken)
        addresses = [fixed.get("ip_address", free) for fixed in fields.get("fixed_ips", [{}])]
        number = next(self.numbers)
        made = {
            "name": "",
            "mac_address": "fa:16:3e:00:%02x:%02x" % (number // 256, number % 256),
            "port_security_enabled": True,
            "security_groups": ["default"],
            "allowed_address_pairs": [],
            "revision_number": 1,
            **made,
        }
        made["fixed_ips"] = [{"subnet_id": subnet["id"], "ip_address": address} for address in addresses]
        made["allowed_address_pairs"] = checked_pairs(made["allowed_address_pairs"], made["mac_address"])
        return made

    def visible(self, kind, project):
        """What of this kind the project may see."""
        for thing in getattr(self, kind).values():
            if project == "admin" or thing["project_id"] == self.projects[project] or thing.get("shared"):
                yield thing

    def one(self, kind, name, project):
        """The thing with this ID."""
        for thing in self.visible(kind + "s", project):
            if thing["id"] == name:
                return thing
        raise not_found(kind, name)

    def listed(self, kind, query, project, base):
        """A list, filtered: several values of one field are alternatives."""
        wanted = {}
        fields = [value for name, value in query if name == "fields"]
        for name, value in query:
            if name not in ("fields", "limit", "marker"):
                wanted.setdefault(name, set()).add(value.lower())
        found = [thing for thing in self.visible(kind, project) if matches(thing, wanted)]
        answer = {}
        options = dict(query)
        limit = int(options.get("limit", self.page or 0))
        if "marker" in options:
            found = found[1 + [thing["id"] for thing in found].index(options["marker"]) :]
        if limit and len(found) >= limit:
            found = found[:limit]
            rest = [(name, value) for name, value in query if name not in ("marker", "limit")]
            more = urllib.parse.urlencode(rest + [("limit", limit), ("marker", found[-1]["id"])])
            answer[kind + "_links"] = [{"rel": "next", "href": "%s/v2.0/%s?%s" % (base, kind, more)}]
        picked = [{name: thing[name] for name in thing if not fields or name in fields} for thing in found]
        raise Answer(200, {kind: picked, **answer})

    def update(self, name, fields, project, if_match):
        """Changes a port. The order of the refusals is Neutron's."""
        port = self.one("port", name, project)
        owner = project == "admin" or self.networks[port["network_id"]]["project_id"] == self.projects[project]
        pairs = fields.get("allowed_address_pairs")
        if pairs is not None:
            pairs = checked_pairs(pairs, port["mac_address"])
            if not owner:
                rule = "rule:update_port:allowed_address_pairs:ip_address"
                raise refuse(403, "PolicyNotAuthorized", "(%s) is disallowed by policy" % rule)
        guard = re.fullmatch(r"revision_number=(\d+)", if_match or "")
        if guard and int(guard[1]) != port["revision_number"]:
            message = "Constrained to %s, but current revision is %d" % (guard[1], port["revision_number"])
            raise refuse(412, "RevisionNumberConstraintFailed", message)
        changed = {**port, **fields}
        if pairs is not None:
            changed["allowed_address_pairs"] = pairs
        if changed["allowed_address_pairs"] and not changed["port_security_enabled"]:
            message = "Port Security must be enabled in order to have allowed address pairs on a port."
            raise refuse(409, "AddressPairAndPortSecurityRequired", message)
        # The same list again is a change as well.
        if pairs or changed != port:
            changed["revision_number"] += 1
        self.ports[name] = changed
        raise Answer(200, {"port": changed})


def matches(thing, wanted):
    """Whether a thing has one of the values of every field."""
    for name, values in wanted.items():
        if name == "fixed_ips":
            have = {"ip_address=" + fixed["ip_address"] for fixed in thing["fixed_ips"]}
        else:
            have = {str(thing[name]).lower()}
        if not have & values:
            return False
    return True


class Handler(http.server.BaseHTTPRequestHandler):
    """Leads a request to the state, one at a time."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def respond(self):
        """Any method."""
        url = urllib.parse.urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state = self.server.state
        with state.lock:
            state.log.append((self.command, self.path))
            try:
                self.fail_if_wanted(state)
                self.route(state, url.path.rstrip("/"), urllib.parse.parse_qsl(url.query), json.loads(text or "{}"))
                answer = Answer(404, {"message": "The resource could not be found."})
            except Answer as given:
                answer = given
            body = b"" if answer.status == 204 else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = respond

    def fail_if_wanted(self, state):
        """The oldest fault that fits."""
        for fault in state.faults:
            method, part, status, body = fault
            if method == self.command and part in self.path:
                state.faults.remove(fault)
                raise Answer(status, body)

    def route(self, state, path, query, body):
        """Finds what the path means; always raises an answer, or returns when it means nothing."""
        keystone, neutron = self.server.base + "/identity/v3", self.server.base + "/networking"
        if path == "/identity/v3" and self.command == "GET":
            raise Answer(200, {"version": version("v3.14", "stable", keystone + "/")})
        if path == "/identity/v3/auth/tokens" and self.command == "POST":
            state.login(body, [endpoints("identity", "keystone", keystone), endpoints("network", "neutron", neutron)])
        if path == "/networking":
            raise Answer(200, {"versions": [version("v2.0", "CURRENT", neutron + "/v2.0/")]})
        if not path.startswith("/networking/v2.0"):
            return
        project = state.tokens.get(self.headers.get("X-Auth-Token"))
        if project is None:
            raise unauthorized()
        parts = path.split("/")[3:]
        if not parts or parts[0] not in ("networks", "subnets", "ports"):
            return
        kind = parts[0][:-1]
        if len(parts) == 1 and self.command == "POST":
            state.create(kind, body[kind], project)
        elif len(parts) == 1:
            state.listed(parts[0], query, project, neutron)
        thing = state.one(kind, parts[1], project)
        if self.command == "PUT" and kind == "port":
            state.update(parts[1], body["port"], project, self.headers.get("If-Match"))
        elif self.command == "DELETE":
            del getattr(state, parts[0])[parts[1]]
            raise Answer(204, None)
        raise Answer(200, {kind: thing})


def version(name, status, url):
    """A version document."""
    return {"id": name, "status": status, "links": [{"rel": "self", "href": url}]}


def endpoints(kind, name, url):
    """An entry of the catalog."""
    public = {"id": kind, "interface": "public", "region_id": cloud.REGION, "region": cloud.REGION, "url": url}
    return {"id": kind, "type": kind, "name": name, "endpoints": [public]}


class Server(http.server.ThreadingHTTPServer):
    """Both services on one port."""

    daemon_threads = True
    request_queue_size = 128


def start():
    """Starts the stand-in in a thread; returns the cloud, with `fake` as its state."""
    server = Server(("127.0.0.1", 0), Handler)
    server.state = State()
    server.base = "http://127.0.0.1:%d" % server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def stop():
        server.shutdown()
        server.server_close()
        thread.join()

    made = cloud.Cloud(server.base + "/identity/v3", server.base + "/networking", stop)
    made.fake = server.state
    return made
