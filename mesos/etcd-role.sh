#!/bin/sh
# Makes the etcd role that calico-mesos needs, with nothing in it that it could do without.
#
#   mesos/etcd-role.sh [--local] [ROLE]
#
# It calls etcdctl, which reads from its own variables where etcd is and who you are (the user root):
#
#   export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=https://etcd-1:2379 ETCDCTL_USER=root
#   export ETCDCTL_CACERT=... ETCDCTL_CERT=... ETCDCTL_KEY=...
#
# Afterwards, for config.toml's etcd.username and etcd.password_file:
#
#   etcdctl user add calico-mesos
#   etcdctl user grant-role calico-mesos calico-mesos
#
# --local: hosts with node.dataplane = "local" may also make what calico/node would have made.
# Repeating it changes nothing. The permissions are held against a whole life of tasks by the tests.
set -eu

local=false
if [ "${1:-}" = --local ]; then
    local=true
    shift
fi
role=${1:-calico-mesos}
resources=/calico/resources/v3/projectcalico.org
ipam=/calico/ipam/v2

key() { etcdctl role grant-permission "$role" "$1" "$2"; }
prefix() { etcdctl role grant-permission --prefix=true "$role" "$1" "$2"; }

etcdctl role get "$role" >/dev/null 2>&1 || etcdctl role add "$role"

# What decides which addresses a host may give out: an operator's, only read.
key read $resources/clusterinformations/default
prefix read $resources/nodes/
prefix read $resources/ippools/
prefix read $resources/ipreservations/
key read $ipam/config
# Whether Felix of a node that is to be decommissioned still reports.
prefix read /calico/felix/v2/

# A profile that does not exist yet is made.
prefix readwrite $resources/profiles/
# The tasks' endpoints.
prefix readwrite $resources/workloadendpoints/default/
# Blocks of addresses, whose host they belong to, and the tasks' own handles. Blocks are shared with
# everybody who gives out addresses, and one may hold an address for a task on another host.
prefix readwrite $ipam/assignment/
prefix readwrite $ipam/host/
prefix read $ipam/handle/
prefix readwrite $ipam/handle/mesos.

if $local; then
    key readwrite $resources/clusterinformations/default
    prefix readwrite $resources/nodes/
    prefix readwrite $resources/ippools/
fi
