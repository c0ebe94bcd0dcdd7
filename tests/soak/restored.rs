//! etcd restored from a backup: a copy of its data taken at an earlier step of the same life.

use std::path::PathBuf;

use calico_mesos::rig::daemons::Etcd;

use crate::kit::faults::Freeze;
use crate::machine::Machine;
use crate::world::sh;

fn etcd(machine: &mut Machine) -> &mut Etcd {
    machine.world.stack.etcd.as_mut().unwrap()
}

fn folders(etcd: &Etcd) -> (PathBuf, PathBuf) {
    (etcd.dir.join("data"), etcd.dir.join("backup"))
}

/// Copies the data while etcd stands still: what a crash would leave at this moment.
pub fn back_up(machine: &mut Machine) {
    let etcd = etcd(machine);
    let (data, backup) = folders(etcd);
    etcd.freeze();
    sh(&format!("rm -rf {1} && cp -a {0} {1}", data.display(), backup.display()));
    etcd.thaw();
    assert!(backup.join("member").exists(), "no copy was made in {}", backup.display());
}

/// Ends etcd, and starts it again with the copy. Its clients lose their connections, as in any restore.
pub async fn restore(machine: &mut Machine) {
    let etcd = etcd(machine);
    let (data, backup) = folders(etcd);
    etcd.kill();
    sh(&format!("rm -rf {0} && mv {1} {0}", data.display(), backup.display()));
    etcd.restart().await.unwrap();
    machine.proxy.cut();
}
