# The ACL policy of calico-mesos' token (consul.token_file in config.toml):
#
#   consul acl policy create -name calico-mesos -rules @mesos/consul-policy.hcl
#   consul acl token create -description calico-mesos -policy-name calico-mesos
#
# Any app of Marathon becomes a service, so it may write all of them; narrow the prefix where the names of
# your apps have one. Nothing else: no keys, no sessions, no ACLs, no other node's catalogue.
service_prefix "" {
  policy = "write"
}

# The catalogue shows the nodes of services: it shows whether another program registers <app> already.
node_prefix "" {
  policy = "read"
}
