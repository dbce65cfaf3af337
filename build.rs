//! Compiles every `proto/*.proto` with a compiler written in Rust: no `protoc` is needed.

fn main() {
    println!("cargo:rerun-if-changed=proto");
    let mut schemas: Vec<_> = std::fs::read_dir("proto")
        .expect("the proto folder is part of the source")
        .map(|entry| entry.expect("the proto folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    schemas.sort();
    let descriptors = protox::compile(&schemas, ["proto"]).expect("the schemas are valid");
    prost_build::Config::new().compile_fds(descriptors).expect("the generated code can be written");
}
