#!/usr/bin/env python3
# Copyright: the authors of calico-mesos
# Apache License 2.0
"""Keeps a service in Consul's agent on this host, and feeds its TTL checks.

    consul-feed FILE             registers the service where it is missing or differs, runs its checks, reports them
    consul-feed FILE --remove    takes it out of Consul

Run by a timer. FILE is JSON, written by Ansible. A Consul that is away is no error: the next run tries again, and
the checks of the other hosts' agents become critical when their time has passed.
"""

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request


class Consul:
    """The agent's HTTP API."""

    def __init__(self, settings):
        self.address = settings["address"].rstrip("/")
        self.token = ""
        if settings.get("token_file"):
            with open(settings["token_file"], encoding="utf-8") as file:
                self.token = file.read().strip()
        self.tls = None
        if self.address.startswith("https://"):
            self.tls = ssl.create_default_context(cafile=settings.get("ca_file") or None)
            if settings.get("cert_file"):
                self.tls.load_cert_chain(settings["cert_file"], settings.get("key_file") or None)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data=data, method=method)
        if self.token:
            request.add_header("X-Consul-Token", self.token)
        with urllib.request.urlopen(request, timeout=3, context=self.tls) as answer:
            return answer.read()

    def service(self, name):
        try:
            return json.loads(self.call("GET", "/v1/agent/service/" + name))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def checks(self):
        return json.loads(self.call("GET", "/v1/agent/checks"))


def differs(service, there, checks):
    """Does Consul's entry differ from the wanted one?"""
    if there is None:
        return True
    same = ("Port", "Address", "Service")
    wanted = {"Port": service["port"], "Address": service["address"], "Service": service["name"]}
    if any(there.get(key) != wanted[key] for key in same) or sorted(there.get("Tags") or []) != sorted(service["tags"]):
        return True
    return any(check_id(service, check) not in checks for check in service["checks"])


def check_id(service, check):
    return "%s:%s" % (service["id"], check["name"])


def registration(service):
    checks = [
        {
            "CheckID": check_id(service, check),
            "Name": check["name"],
            "TTL": service["ttl"],
            "Notes": check.get("notes", ""),
            "Status": "critical",
        }
        for check in service["checks"]
    ]
    return {
        "ID": service["id"],
        "Name": service["name"],
        "Tags": service["tags"],
        "Address": service["address"],
        "Port": service["port"],
        "Checks": checks,
    }


def run(check):
    """The state of a check and its output."""
    try:
        out = subprocess.run(
            check["command"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=check.get("timeout", 5),
            env=dict(os.environ, **check.get("environment", {})),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "critical", str(error)
    text = out.stdout.decode(errors="replace").strip()[-500:]
    return ("passing" if out.returncode == 0 else "critical"), text or "exit code %d" % out.returncode


def feed(service, consul):
    if differs(service, consul.service(service["id"]), consul.checks()):
        consul.call("PUT", "/v1/agent/service/register?replace-existing-checks=true", registration(service))
    for check in service["checks"]:
        status, output = run(check)
        consul.call(
            "PUT", "/v1/agent/check/update/" + check_id(service, check), {"Status": status, "Output": output}
        )


def complain(sentence):
    """A line for the journal, which leaves out what has no such level."""
    print("<4>consul-feed: " + sentence)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        service = json.load(file)
    try:
        consul = Consul(service["consul"])
        if sys.argv[2:] == ["--remove"]:
            consul.call("PUT", "/v1/agent/service/deregister/" + service["id"])
        else:
            feed(service, consul)
    except urllib.error.HTTPError as error:
        why = error.read()[:200].decode(errors="replace")
        complain("Consul at %s refuses: %d %s" % (service["consul"]["address"], error.code, why))
    except OSError as error:
        complain("Consul at %s does not answer: %s" % (service["consul"]["address"], error))


if __name__ == "__main__":
    main()
