//! `calico-mesos`, the operator's program: one file a verb. Called as `calicoctl` it is that.
//!
//! Exit codes: 0 done, 1 failed, 3 a dry run found something to do, 64 the command line cannot be parsed, 69 Calico's
//! own calicoctl is needed and not there. An error is one line on standard error, `calico-mesos: message: cause`, a
//! warning is `calico-mesos: warning: message`; both begin with `calicoctl` where the program is called so. A reader that
//! closes our output (`| head`) is no error.

mod bgp;
mod calicoctl;
mod change;
mod complete;
mod config;
mod diags;
mod endpoint;
mod explain;
mod follow;
mod gc;
mod interrupt;
mod ipam;
mod node;
mod output;
mod policy;
mod pool;
mod profile;
mod programs;
mod proxy;
mod run;
pub mod runtime;
mod session;
mod status;
mod task;
mod usage;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::DEFAULT_PATH;
use crate::logging::{self, Component};

use output::Out;
use session::Session;
use usage::{complaint, usage};

/// Project Calico networking for tasks of Apache Mesos and Marathon.
#[derive(Debug, Parser)]
#[command(name = "calico-mesos", version, subcommand_required = true, arg_required_else_help = false)]
struct Cli {
    /// The configuration of this agent host; default: /etc/calico-mesos/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show how this host does, part by part; exit code 0 fine, 1 warnings only, 2 a problem.
    Status(status::StatusArguments),
    /// Write what explains this host's state into an archive, without secrets.
    Diags(diags::DiagsArguments),
    /// List the Calico tasks of this host, show one, run a tool in its network, print its output.
    #[command(subcommand)]
    Task(task::TaskVerb),
    /// Show, make and remove profiles, and change their rules and tags.
    Profile(profile::ProfileArguments),
    /// Show the endpoints of tasks, and change their profiles.
    Endpoint(endpoint::EndpointArguments),
    /// Show, make, change and remove IP pools.
    #[command(subcommand)]
    Pool(pool::PoolVerb),
    /// Show, check and release the addresses of tasks.
    #[command(subcommand)]
    Ipam(ipam::IpamVerb),
    /// Show tiers and policies; calicoctl writes them.
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// Prepare this host, and list, make and remove nodes of Calico.
    #[command(subcommand)]
    Node(node::Verb),
    /// Show, add and remove BGP peers of all nodes.
    #[command(subcommand)]
    Bgppeer(bgp::PeerVerb),
    /// Show or change whether all nodes peer with each other.
    BgpNodeMesh(bgp::MeshArguments),
    /// Show or change the AS number of nodes that name none.
    DefaultNodeAs(bgp::AsArguments),
    /// Show this host's configuration, or all mistakes in it.
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Remove what dead executors left behind.
    Gc(gc::GcArguments),
    /// Print what a failure code such as CM-IP-TAKEN means, whose fault it is and what to do; without a code, list all.
    Explain(explain::ExplainArguments),
    /// Launch a Marathon app definition on this machine, as a Mesos agent would.
    Run(run::RunArguments),
    /// Run the Docker API proxy, which gives containers Calico addresses, in the foreground.
    Proxy,
    /// Make this program the front end `calicoctl`.
    #[command(subcommand)]
    Calicoctl(calicoctl::LinkVerb),
    /// Print the script with which a shell completes this program's command lines.
    Completion(complete::CompletionArguments),
    /// Write manual pages.
    Man(complete::ManArguments),
}

/// How a verb can fail; every variant carries its own cause.
type Failed = Box<dyn std::error::Error>;

/// Runs the program and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match complete::answer(Cli::command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return usage(&error, Cli::command(), &[]),
    }
    let arguments = match calicoctl::dispatch(arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let command = || Cli::command().name(calicoctl::program());
    let parsed =
        command().try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let misuse = |error: &clap::Error| usage(error, command(), arguments.get(1..).unwrap_or_default());
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return misuse(&error),
    };
    match cli.verb {
        // A service: its steps are of interest.
        Verb::Proxy => logging::service(Component::Proxy, host(cli.config.as_deref())),
        _ => logging::cli(calicoctl::program()),
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let out = Out::stdout();
    let file = cli.config.as_deref();
    // What belongs to this host's executors goes by their file alone, as they do.
    let host = host(file);
    let session = || Session::open(file, &out);
    let result: Result<ExitCode, Failed> = runtime.block_on(async {
        match cli.verb {
            Verb::Run(arguments) => run::run(arguments, host, &out).await,
            Verb::Gc(arguments) => gc::gc(arguments, host, &out).await,
            Verb::Proxy => proxy::proxy(host).await,
            Verb::Explain(arguments) => Ok(explain::explain(&arguments, &out)),
            Verb::Diags(arguments) => diags::diags(&arguments, file, &out).await,
            Verb::Status(arguments) => status::status(arguments, &session()?).await,
            Verb::Completion(arguments) => complete::completion(&arguments, &command(), &out),
            Verb::Man(arguments) => complete::man(&arguments, command(), &out),
            Verb::Config(verb) => config::config(&verb, file, &out),
            Verb::Task(verb) => task::task(verb, &Session::of_host(host, &out)?).await,
            Verb::Node(verb) => node::node(verb, file, &out).await,
            Verb::Calicoctl(verb) => calicoctl::calicoctl(&verb, &session()?),
            Verb::Bgppeer(verb) => bgp::global_peers(&verb, &session()?).await,
            Verb::BgpNodeMesh(arguments) => bgp::mesh(&arguments, &session()?).await,
            Verb::DefaultNodeAs(arguments) => bgp::default_as(&arguments, &session()?).await,
            Verb::Pool(verb) => pool::pool(&verb, &session()?).await,
            Verb::Ipam(verb) => ipam::ipam(&verb, &session()?).await,
            Verb::Profile(verb) => profile::profile(&verb, &session()?).await,
            Verb::Endpoint(verb) => endpoint::endpoint(&verb, &session()?).await,
            Verb::Policy(verb) => policy::policy(&verb, &session()?).await,
        }
    });
    // A thread may still wait for an answer on standard input.
    runtime.shutdown_background();
    if let Some(source) = out.lost() {
        eprintln!("{}: cannot write the output: {source}", calicoctl::program());
        return ExitCode::FAILURE;
    }
    result.unwrap_or_else(|error| match error.downcast_ref::<clap::Error>() {
        Some(error) => misuse(error),
        None => failed(error.as_ref()),
    })
}

/// The file of this host's executors.
fn host(file: Option<&Path>) -> &Path {
    file.unwrap_or(Path::new(DEFAULT_PATH))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("{}", complaint(error));
    ExitCode::FAILURE
}

/// A mistake in the command line that only the verb finds.
fn misused(message: String) -> Failed {
    Box::new(clap::Error::raw(ErrorKind::ValueValidation, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
