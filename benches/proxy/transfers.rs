//! Large files through the docker command.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use calico_mesos::rig::daemons::Stack;

use super::figures::{Figure, Goal};
use super::program::Program;

const ROUNDS: usize = 3;
/// Of the file, where `TRANSFER_MB` does not name another one.
const MEGABYTES: usize = 1024;
/// 0.8 of the speed.
const TIMES: f64 = 1.25;

#[derive(Default)]
struct Ways {
    direct: Figure,
    proxy: Figure,
}

#[derive(Default)]
pub struct Transfers {
    into: Ways,
    out: Ways,
    save: Ways,
    load: Ways,
    megabytes: usize,
    /// How far the proxy's resident memory rose above what it had before.
    growth: Figure,
}

/// Both sides of one round's transfers, in a folder with the file.
struct Side<'a> {
    docker: String,
    folder: &'a Path,
}

pub async fn measure(stack: &Stack, proxy: &Program) -> Transfers {
    let megabytes = std::env::var("TRANSFER_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(MEGABYTES);
    let folder = stack.dir.join("transfers");
    std::fs::create_dir(&folder).expect("the stack's own folder");
    fill(&folder.join("large"), megabytes);
    let side = |socket: &Path| Side { docker: format!("unix://{}", socket.display()), folder: &folder };
    let (direct, through) = (side(&stack.docker.socket), side(&proxy.socket));
    direct.docker(&["run", "-d", "--name", "files", "busybox", "sleep", "100000"]);
    let mut transfers = Transfers { megabytes, ..Transfers::default() };
    // The image of load and save; and the page cache has the file.
    direct.docker(&["cp", &folder.join("large").display().to_string(), "files:/large"]);
    direct.docker(&["commit", "files", "large"]);
    direct.save(&folder.join("image"));
    let before = proxy.memory();
    for round in 0..ROUNDS {
        // Each goes first by turns: what the kernel writes late falls to the next one.
        let mut sides = [(&direct, false), (&through, true)];
        sides.rotate_left(round % 2);
        for (side, through) in sides {
            proxy.forget_peak();
            let ways = [&mut transfers.into, &mut transfers.out, &mut transfers.save, &mut transfers.load];
            let figures = ways.map(|way| if through { &mut way.proxy } else { &mut way.direct });
            let took = [side.cp_into(), side.cp_out(), side.save(Path::new("/dev/null")), side.load()];
            figures.into_iter().zip(took).for_each(|(figure, took)| figure.add(took));
            if through {
                transfers.growth.push(proxy.peak() - before);
            }
        }
    }
    direct.docker(&["rm", "-f", "files"]);
    direct.docker(&["rmi", "large"]);
    std::fs::remove_dir_all(&folder).expect("the stack's own folder");
    transfers
}

/// Bytes that nothing can make smaller.
fn fill(path: &Path, megabytes: usize) {
    let mut file = File::create(path).expect("a file of ours");
    let mut block = vec![0; 1 << 20];
    for _ in 0..megabytes {
        fastrand::fill(&mut block);
        file.write_all(&block).expect("room for the file");
    }
}

impl Side<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(&self.docker).args(arguments).env("DOCKER_CONFIG", self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn run(mut command: Command) -> Duration {
        let begin = Instant::now();
        let status = command.status().expect("the docker command");
        assert!(status.success(), "{command:?}");
        begin.elapsed()
    }

    fn docker(&self, arguments: &[&str]) -> Duration {
        Self::run(self.command(arguments))
    }

    fn cp_into(&self) -> Duration {
        self.docker(&["cp", &self.folder.join("large").display().to_string(), "files:/tmp/large"])
    }

    fn cp_out(&self) -> Duration {
        // A tar archive at its output.
        self.docker(&["cp", "files:/large", "-"])
    }

    fn save(&self, to: &Path) -> Duration {
        let mut command = self.command(&["save", "large"]);
        command.stdout(File::create(to).expect("a file of ours"));
        Self::run(command)
    }

    /// With nothing of the image there.
    fn load(&self) -> Duration {
        self.docker(&["rmi", "large"]);
        let mut command = self.command(&["load"]);
        command.stdin(File::open(self.folder.join("image")).expect("a file of ours"));
        Self::run(command)
    }
}

impl Ways {
    fn print(&self, name: &str) {
        println!("{}", self.direct.row(&format!("{name}, at Docker's socket"), "ms"));
        println!("{}", self.proxy.row("  through the proxy", "ms"));
    }

    fn ratio(&self) -> f64 {
        self.proxy.median() / self.direct.median()
    }
}

impl Transfers {
    pub fn print(&self) {
        let size = self.megabytes;
        self.into.print(&format!("docker cp of {size} MB into a container"));
        self.out.print(&format!("docker cp of {size} MB out of a container"));
        self.save.print(&format!("docker save of {size} MB"));
        self.load.print(&format!("docker load of {size} MB"));
        println!("{}", self.growth.row("  the proxy's resident memory grows meanwhile by", "MB"));
    }

    pub fn goals(&self) -> Vec<Goal> {
        vec![
            Goal::new("proxy-cp-into-time-ratio", self.into.ratio(), TIMES),
            Goal::new("proxy-cp-out-time-ratio", self.out.ratio(), TIMES),
            Goal::new("proxy-save-time-ratio", self.save.ratio(), TIMES),
            Goal::new("proxy-load-time-ratio", self.load.ratio(), TIMES),
            Goal::new("proxy-transfer-memory-mb", self.growth.highest(), 4.0),
        ]
    }
}
