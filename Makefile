# make demo    two tasks with addresses of their own, on this machine alone, in about a minute
# make test    everything that can be tested, against real etcd, Docker and Consul
# make test TEST=name   the tests whose name contains this, with all that they need; fails where there are none
# make test-peers CALICO_PEERS=<folder>   the same beside Calico's own Felix, calicoctl and IPAM plugin, taken from there
# make soak LIVES=1000 SEED=…   that many task lives with a fault each; prints what was left behind
# make test-upgrade    two releases on one host, in both directions: PREVIOUS=<revision or folder with the three programs>;
#                      by default the newest tag, without tags the commit at which this branch left main
# make test-docker  those that need Docker, on a current engine in place of the installed one (built once, about 10 minutes)
# make test-docker-py  docker-py's own tests at dockerd's socket and through the proxy, compared; 10 minutes
# make test-ansible  the collection in mesos/ansible: what its modules decide, its style, bad input to a play; no host is changed
# make test-openstack  the Ansible module for Neutron's address pairs, against a stand-in; make test-neutron against real ones
# make test-compose    docker compose v2 through the proxy (built once, about 3 minutes)
# make test-package  the Debian package on real systemd hosts of its own: install, upgrade, move over, remove, purge
# make test-cluster  the user's page on three systemd hosts: roles, package, app, reboot, everything taken away; 5 minutes.
#                    make test-cluster-all: upgrades, an interrupted playbook, another pool, a host removed, too
# make test-cluster-calico CALICO_PEERS=<folder>   the page with the real calico/node (folder: see scripts/cluster/node-image.sh)
# make bench   the speed goals, one line each
# make fuzz    every parser against what a fuzzer finds, SECONDS=60 each; needs Rust's nightly and cargo-fuzz
# make lint    clippy and documentation, warnings are errors
# make licences  the licence of every crate, and of every module of the Consul and the Docker engine that are built
# make build   the three programs, optimised, in target/bin/
# make deb     the Debian package, in target/dist/; DEB_PROFILE=debug of unoptimised programs, in seconds
# make dist    what is released, in target/dist/: package, .tar.gz, SHA256SUMS; built twice and compared
# make setup   installs the programs that these need (see scripts/setup.sh)

CARGO ?= cargo
# The tests' own network: what they do to links, routes and rules never reaches the machine's.
PRIVATE := unshare --net -- sh -c 'ip link set lo up && exec "$$@"' private-network
# Offline inside it: there is no way out, and cargo would wait for one.
OFFLINE := CARGO_NET_OFFLINE=true
DOCKER_TESTS := --test docker --test runtime --test end_to_end --test conformance --test examples --test dev --test cli --test proxy_docker

.PHONY: cluster-made demo test soak test-docker test-docker-py test-compose test-ansible test-openstack test-neutron test-peers test-cluster \
	test-cluster-all test-cluster-calico test-upgrade test-package bench fuzz lint licences build deb dist setup

# It sets up and builds by itself: it looks at the machine first, and prints beforehand how long that takes.
demo:
	@CARGO='$(CARGO)' scripts/demo.sh

test: setup
	$(CARGO) test --locked --no-run
	@test -z '$(TEST)' || $(CARGO) test --locked '$(TEST)' -- --list 2> /dev/null | grep ': test$$' > /dev/null || { \
		echo "make test: no test has '$(TEST)' in its name" >&2; exit 1; }
	$(OFFLINE) $(PRIVATE) $(CARGO) test --locked --no-fail-fast $(TEST)

# Without a SEED another one each time; it is printed, and does the same again. LIFE is one life of an earlier run.
soak: setup
	$(CARGO) test --locked --no-run --test soak
	LIVES='$(or $(LIVES),$(if $(LIFE),1,100))' SEED='$(or $(SEED),$(shell date +%s))' LIFE='$(LIFE)' $(OFFLINE) $(PRIVATE) $(CARGO) test --locked --test soak

# Whatever starts a Docker daemon takes it from PATH; the docker CLI stays the installed one.
test-docker:
	@scripts/setup.sh --docker-engine
	$(CARGO) test --locked --no-run $(DOCKER_TESTS)
	PATH="$$(scripts/docker-engine.sh):$$PATH" $(OFFLINE) $(PRIVATE) $(CARGO) test --locked --no-fail-fast $(DOCKER_TESTS)

# An engine in front of PATH is taken here too.
test-docker-py:
	@scripts/setup.sh --docker-py
	$(CARGO) test --locked --no-run --test docker_py
	DOCKER_PY="$$(scripts/docker-py.sh)" $(OFFLINE) $(PRIVATE) $(CARGO) test --locked --test docker_py -- --nocapture

test-ansible:
	@scripts/setup.sh --cluster
	bin="$$(scripts/cluster/ansible.sh)" && "$$bin/python" -m unittest discover --start-directory tests/ansible

OPENSTACK_TESTS := PYTHONDONTWRITEBYTECODE=1 $(PRIVATE) "$$bin/python" -W ignore::DeprecationWarning -m unittest test_module test_mode test_role
test-openstack:
	@scripts/setup.sh --openstack
	bin="$$(scripts/openstack.sh)" && cd tests/openstack && $(OPENSTACK_TESTS)

# Neutron and Keystone from PyPI, on SQLite in a temporary folder: KEEP=1 keeps it.
test-neutron:
	@scripts/setup.sh --neutron
	bin="$$(scripts/openstack.sh --real)" && cd tests/openstack && OPENSTACK=real $(OPENSTACK_TESTS)

test-compose:
	@scripts/setup.sh --compose
	$(CARGO) test --locked --no-run --test proxy_docker
	DOCKER_COMPOSE="$$(scripts/compose.sh)" $(OFFLINE) $(PRIVATE) $(CARGO) test --locked --test proxy_docker compose -- --ignored --nocapture

test-peers:
	@scripts/setup.sh --peers
	$(CARGO) test --locked --no-run --test calico_peers
	CALICO_PEERS='$(CALICO_PEERS)' $(OFFLINE) $(PRIVATE) $(CARGO) test --locked --test calico_peers
	$(CARGO) bench --locked --bench felix --no-run
	CALICO_PEERS='$(CALICO_PEERS)' $(OFFLINE) $(PRIVATE) $(CARGO) bench --locked --bench felix

# The hosts have networks of their own. Unoptimised programs: what is tested is how they are installed and run.
CLUSTER_DIST := target/cluster/dist
CLUSTER_TEST = CALICO_MESOS_PACKAGE="$$(ls $(CLUSTER_DIST)/*.deb)" $(OFFLINE) $(CARGO) test --locked --test cluster
cluster-made:
	@scripts/setup.sh --cluster
	@scripts/setup.sh --package
	$(CARGO) test --locked --no-run --test cluster
	@rm -rf $(CLUSTER_DIST)
	@CARGO='$(CARGO)' DEB_PROFILE=debug DEB_DIST=$(CLUSTER_DIST) scripts/deb.sh

test-cluster: cluster-made
	$(CLUSTER_TEST)

# The same programs under a later version: an upgrade for dpkg, systemd and the role.
test-cluster-all: test-cluster
	@host=$$(rustc -vV | sed -n 's/^host: //p') && DEB_PROGRAMS="$${CARGO_TARGET_DIR:-target}/$$host/debug" DEB_PROFILE=debug \
		DEB_VERSION=99.0.0 DEB_DIST=$(CLUSTER_DIST)/next scripts/deb.sh
	CALICO_MESOS_NEXT_PACKAGE="$$(ls $(CLUSTER_DIST)/next/*.deb)" $(CLUSTER_TEST) -- later

test-cluster-calico: cluster-made
	@test -n '$(CALICO_PEERS)' || { echo "make test-cluster-calico needs CALICO_PEERS=<folder>: see scripts/cluster/node-image.sh" >&2; exit 1; }
	CALICO_PEERS='$(CALICO_PEERS)' $(CLUSTER_TEST)

# /var/log is covered: programs that run under the other release's configuration write to the usual place.
test-upgrade: setup
	@CARGO='$(CARGO)' scripts/previous.sh $(PREVIOUS) > /dev/null
	$(CARGO) test --locked --no-run --test upgrade
	CALICO_MESOS_PREVIOUS="$$(scripts/previous.sh $(PREVIOUS))" $(OFFLINE) unshare --mount -- sh -c \
		'mount -t tmpfs tmpfs /var/log && exec "$$@"' private-logs $(PRIVATE) $(CARGO) test --locked --test upgrade

test-package:
	@scripts/setup.sh --cluster
	@scripts/setup.sh --package
	$(CARGO) test --locked --no-run --test package
	$(OFFLINE) $(CARGO) test --locked --test package -- --test-threads=1

bench: setup
	$(CARGO) bench --locked --bench launch --bench proxy --bench ipam --no-run
	$(OFFLINE) $(PRIVATE) $(CARGO) bench --locked --no-fail-fast --bench launch --bench proxy --bench ipam

SECONDS ?= 60
fuzz:
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
		echo "make fuzz needs Rust's nightly toolchain and cargo-fuzz:" \
			"rustup toolchain install nightly && cargo install --locked cargo-fuzz" >&2; exit 1; }
	@for target in $$($(CARGO) +nightly fuzz list); do \
		$(CARGO) +nightly fuzz run "$$target" -- -max_total_time=$(SECONDS) -rss_limit_mb=1024 || exit 1; done

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --test calico_peers --test upgrade --test package --test docker_py --test cluster -- -D warnings
	$(CARGO) clippy --locked --release --lib --bins -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet

licences:
	@CARGO='$(CARGO)' scripts/licences.sh

build:
	$(CARGO) build --locked --release
	@mkdir -p target/bin
	@host=$$(rustc -vV | sed -n 's/^host: //p'); for name in calico-executor calico-runc calico-mesos; do \
		install "target/$$host/release/$$name" target/bin/; done

deb:
	@scripts/setup.sh --package
	@CARGO='$(CARGO)' scripts/deb.sh

dist:
	@scripts/setup.sh --package
	@CARGO='$(CARGO)' scripts/dist.sh

setup:
	@scripts/setup.sh
