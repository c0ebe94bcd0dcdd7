//! Generates the Mesos messages from `src/mesos/messages.proto`; needs `protoc`.

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=src/mesos/messages.proto");
    prost_build::Config::new()
        // Ordered maps: the same message always gives the same bytes.
        .btree_map(["."])
        .compile_protos(&["src/mesos/messages.proto"], &["src/mesos"])
}
