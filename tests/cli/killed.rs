//! A run that was killed with SIGKILL: the next one sweeps what it has left, the host's settings included.

use crate::machine::{App, Machine, PROGRAM};

/// In a network namespace of its own, which does not forward. `$1`: an app with an address and a host port, `$2`: one
/// with neither.
const SCRIPT: &str = r#"
set -eu
ip link set lo up
echo 0 > /proc/sys/net/ipv4/ip_forward
"$ROOT/scripts/snapshot.sh" "$DIR/unchanged"
HOOK='touch "$DIR/runs"; while kill -0 $PPID 2> /dev/null; do sleep 0.1; done'
"$PROGRAM" run "$1" --dev --then "$HOOK" > "$DIR/killed" 2>&1 & run=$!
until [ -e "$DIR/runs" ]; do kill -0 $run || { cat "$DIR/killed"; exit 5; }; sleep 0.1; done
grep -qx 1 /proc/sys/net/ipv4/ip_forward
nft list ruleset > "$DIR/rules"
kill -9 $run
wait $run || true
grep -qx 1 /proc/sys/net/ipv4/ip_forward
"$PROGRAM" run "$2" --dev
grep -q calico-mesos-ports "$DIR/rules"
"$ROOT/scripts/snapshot.sh" "$DIR/restored"
"$ROOT/scripts/snapshot.sh" --compare "$DIR/unchanged" "$DIR/restored"
"#;

#[test]
fn the_next_run_restores_the_hosts_settings() {
    let docker = r#""container": {"type": "DOCKER", "docker": {"image": "busybox"}}"#;
    let text = |id: &str, cmd: &str, env: &str| {
        App::new(&format!(
            r#"{{"id": "{id}", "cpus": 0.1, "mem": 32, "cmd": "{cmd}", "env": {env}, {docker}}}"#
        ))
    };
    let killed = text("killed", "sleep 1000", r#"{"CALICO_IP": "auto"}"#);
    let next = text("next", "true", "{}");
    let script = format!(
        "PROGRAM={PROGRAM} exec unshare --net bash -c '{}' bash \"$@\"",
        SCRIPT.replace('\'', r"'\''")
    );
    let outcome = Machine::start_with(&["bash", "-c", &script, "bash", &killed.path, &next.path]).finish();
    outcome.expect(0);
    assert!(!outcome.stderr.contains("calico-mesos: "), "{outcome:#?}");
    outcome.says("left behind: nothing");
}
