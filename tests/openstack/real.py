"""Real Keystone and Neutron on loopback, with SQLite files in a temporary folder.

Both must be installed where this runs (scripts/openstack.sh --real). Neutron has no agents and no message bus: ports are
records only, which is what its API is about.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import cloud

BIN = pathlib.Path(sys.executable).parent
HERE = pathlib.Path(__file__).parent

KEYSTONE_CONF = """
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.db
[fernet_tokens]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
"""

NEUTRON_CONF = """
[DEFAULT]
auth_strategy = keystone
core_plugin = ml2
service_plugins =
transport_url = fake:///
rpc_workers = 0
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
state_path = {folder}/state
api_paste_config = {prefix}/etc/neutron/api-paste.ini
log_file = {folder}/neutron.log
[database]
connection = sqlite:///{folder}/neutron.db
[oslo_concurrency]
lock_path = {folder}/locks
[quotas]
quota_driver = neutron.db.quota.driver_null.DbQuotaDriverNull
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
username = neutron
password = neutron-password
project_name = service
user_domain_id = default
project_domain_id = default
"""

ML2_INI = """
[ml2]
type_drivers = local,flat,vxlan
tenant_network_types = vxlan
mechanism_drivers =
extension_drivers = port_security
[ml2_type_vxlan]
vni_ranges = 1:1000
"""

# Migrations do not run on SQLite; the tables are made from the models.
NEUTRON_TABLES = """
import neutron.db.migration.models.head, sqlalchemy, sys
from neutron_lib.db import model_base
model_base.BASEV2.metadata.create_all(sqlalchemy.create_engine(sys.argv[1]))
"""


def listener():
    """A listening socket on a free port of loopback; early clients wait in its queue."""
    made = socket.create_server(("127.0.0.1", 0), backlog=128)
    return made, made.getsockname()[1]


class Processes:
    """The two servers and their folder."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="calico-mesos-openstack-"))
        self.environment = {
            "PATH": "%s:%s" % (BIN, os.environ["PATH"]),
            "HOME": str(self.folder),
            "OS_KEYSTONE_CONFIG_FILES": str(self.folder / "keystone.conf"),
            "OS_NEUTRON_CONFIG_FILES": "%s;%s" % (self.folder / "neutron.conf", self.folder / "ml2.ini"),
        }
        self.kept = bool(os.environ.get("KEEP"))
        self.running = []

    def run(self, *command):
        """Runs a command to its end; its output is shown when it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError("%s: %s%s" % (" ".join(map(str, command)), done.stdout[-2000:], done.stderr[-4000:]))

    def serve(self, module, socket_):
        """Starts a server on an open socket."""
        with open(self.folder / (module + ".out"), "wb") as output:
            self.running.append(
                subprocess.Popen(
                    [sys.executable, str(HERE / "serve.py"), module, str(socket_.fileno())],
                    env=self.environment,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[socket_.fileno()],
                )
            )
        socket_.close()

    def stop(self):
        """Ends the servers and removes the folder, which stays for a look with KEEP=1."""
        for process in self.running:
            process.terminate()
            process.stdin.close()
        for process in self.running:
            process.wait()
        if self.kept:
            print("kept: %s" % self.folder, file=sys.stderr)
        else:
            shutil.rmtree(self.folder)


def identities(made, keystone):
    """The service's user, and the tests' projects and users, in Keystone."""
    headers = {"X-Auth-Token": made.token(cloud.ADMIN)}

    def post(path, kind, **fields):
        return cloud.request("POST", keystone + path, {kind: fields}, headers)[1][kind]["id"]

    _, answer = cloud.request("GET", keystone + "/roles", headers=headers)
    roles = {role["name"]: role["id"] for role in answer["roles"]}
    accounts = [("neutron", "neutron-password", "service"), cloud.CLUSTER, cloud.OTHER]
    for user, password, project in accounts:
        project_id = post("/projects", "project", name=project, domain_id="default")
        user_id = post("/users", "user", name=user, password=password, domain_id="default")
        role = roles["admin" if project == "service" else "member"]
        path = "/projects/%s/users/%s/roles/%s" % (project_id, user_id, role)
        cloud.request("PUT", keystone + path, headers=headers)
    return post


def start():
    """Sets both up and starts them; returns the cloud."""
    at = time.monotonic()
    processes = Processes()
    folder = processes.folder
    try:
        keystone_socket, keystone_port = listener()
        neutron_socket, neutron_port = listener()
        keystone = "http://127.0.0.1:%d/v3" % keystone_port
        neutron = "http://127.0.0.1:%d" % neutron_port
        values = {"folder": folder, "prefix": sys.prefix, "keystone": keystone}
        for name, text in (("keystone.conf", KEYSTONE_CONF), ("neutron.conf", NEUTRON_CONF), ("ml2.ini", ML2_INI)):
            (folder / name).write_text(text.format(**values))
        manage = (BIN / "keystone-manage", "--config-file", folder / "keystone.conf")
        processes.run(*manage, "db_sync")
        for setup in ("fernet_setup", "credential_setup"):
            processes.run(*manage, setup, "--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid()))
        urls = [word for kind in ("admin", "internal", "public") for word in ("--bootstrap-%s-url" % kind, keystone)]
        password = ["--bootstrap-password", cloud.ADMIN[1], "--bootstrap-region-id", cloud.REGION]
        processes.run(*manage, "bootstrap", *password, *urls)
        processes.run(sys.executable, "-c", NEUTRON_TABLES, "sqlite:///%s/neutron.db" % folder)
        processes.serve("keystone.wsgi.api", keystone_socket)
        made = cloud.Cloud(keystone, neutron, processes.stop)
        post = identities(made, keystone)
        service = post("/services", "service", name="neutron", type="network")
        post("/endpoints", "endpoint", service_id=service, interface="public", url=neutron, region_id=cloud.REGION)
        # Tokens made before an endpoint exists do not list it in their catalog.
        made.tokens.clear()
        processes.serve("neutron.wsgi.api", neutron_socket)
        made.network_api("GET", "/ports")
    except BaseException:
        processes.stop()
        raise
    print("real Keystone and Neutron are up after %.0f s" % (time.monotonic() - at), file=sys.stderr)
    return made
