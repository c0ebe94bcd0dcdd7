#!/bin/bash
# Prints the folder with the programs of Ansible (ansible-playbook, ansible-galaxy, ansible-lint) on standard output; it
# reports what it does on standard error. The folder must be in PATH.
#
# A Python environment with what ansible/requirements.txt pins: see ../venv.sh. Needs Python 3 with venv:
# scripts/setup.sh --cluster.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../venv.sh"
made=$(python_environment ansible "$here/ansible/requirements.txt" "${BASH_SOURCE[0]}")
echo "$made/bin"
