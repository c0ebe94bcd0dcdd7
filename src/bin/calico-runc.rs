//! The OCI runtime `calico`; see [`calico_mesos::runtime`].

fn main() -> std::process::ExitCode {
    calico_mesos::runtime::main(std::env::args_os().skip(1))
}
