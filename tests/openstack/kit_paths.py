"""Where things lie in this repository."""

import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
COLLECTION = REPOSITORY / "mesos/ansible"
MODULE = COLLECTION / "plugins/modules/neutron_address_pairs.py"
