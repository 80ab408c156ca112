//! Compiles every file under `proto/` with protox, so that no `protoc` has to be installed.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use tonic_prost_build::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    // The order of files is the order of the generated code; keep it the same on every machine.
    files.sort();
    let mut descriptors = protox::compile(files, [root])?;
    let link = descriptors.file.extract_if(.., |file| file.name().ends_with("/link.proto"));
    let link = FileDescriptorSet { file: link.collect() };
    check_batches(&link)?;
    builder().compile_fds(descriptors)?;
    let out = Path::new(&env::var("OUT_DIR")?).join("link");
    fs::create_dir_all(&out)?;
    builder()
        .out_dir(out)
        .codec_path("crate::codec::LinkCodec")
        .extern_path(".tangelo.v1.ToOwner", "crate::codec::BatchToOwner")
        .extern_path(".tangelo.v1.ToConnector", "crate::codec::BatchToConnector")
        .compile_fds(link)?;
    Ok(())
}

/// Batches have a codec of their own, `src/codec.rs`, which is to know all of their fields.
fn check_batches(link: &FileDescriptorSet) -> Result<(), String> {
    let messages = link.file.iter().flat_map(|file| &file.message_type);
    for batch in messages.filter(|it| ["ToOwner", "ToConnector"].contains(&it.name())) {
        let fields = batch.field.iter().map(|field| (field.name(), field.number()));
        if !fields.eq([("hello", 1), ("frames", 2)]) {
            return Err(format!("{} has other fields than src/codec.rs knows", batch.name()));
        }
    }
    Ok(())
}

fn builder() -> tonic_prost_build::Builder {
    // Payloads are slices of the received buffer, not copies.
    tonic_prost_build::configure().bytes(".")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
