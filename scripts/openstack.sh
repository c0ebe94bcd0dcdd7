#!/bin/bash
# Prints the bin folder of a Python environment for the tests in tests/openstack on standard output; it reports what it
# does on standard error.
#
#   scripts/openstack.sh [--light]   with ansible-core and openstacksdk: `make test-openstack` (about 15 s, once; 110 MB)
#   scripts/openstack.sh --real      with Neutron and Keystone too: `make test-neutron` (1 to 4 minutes, once; 410 MB)
#
# Made from the versions in scripts/openstack/: see venv.sh. Needs Python 3 with venv: scripts/setup.sh --openstack.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/venv.sh"
name=openstack requirements=$here/openstack/requirements.txt
if [ "${1:-}" = --real ]; then name=neutron requirements=$here/openstack/requirements-real.txt; fi
made=$(python_environment "$name" "$requirements" "${BASH_SOURCE[0]}" --no-deps)
echo "$made/bin"
