//! What stands on the hosts in place of programs that cannot be there: this test program itself, under their names.
//!
//! `mesos-agent` and `mesos-slave` are Mesos agents as `calico-mesos` and the role `calico` see them, with the embedded
//! agent in them; `calico-node` is what calico/node's image runs. [`run`] decides by the name.

mod agent;
mod felix;
mod node;

use std::path::Path;
use std::process::ExitCode;

/// The end of the stand-in that this program was started as; none where it is the test.
pub fn run() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    let name = Path::new(words.first()?).file_name()?.to_str()?.to_owned();
    let begin: fn(&[String]) -> Result<(), String> = match name.as_str() {
        "mesos-agent" | "mesos-slave" => agent::run,
        // As /proc/PID/exe, for its version.
        "exe" => agent::run,
        "calico-node" => node::run,
        _ => return None,
    };
    Some(match begin(&words[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    })
}

/// Runs to its end what needs a runtime.
fn block_on<T>(work: impl std::future::Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(work))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    calico_mesos::error::chain(error)
}
