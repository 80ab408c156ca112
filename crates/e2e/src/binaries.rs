//! Where the binaries of this workspace are.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, bail};
use model::Role;

/// Names the folder of binaries built before, so that nothing is built here.
const BIN_DIR: &str = "TANGELO_BIN_DIR";

/// The binary of a role, built if this test run has not built it yet.
///
/// # Errors
///
/// If it cannot be built or is not there.
pub(crate) fn binary(role: Role) -> anyhow::Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")));
    let folder = folder.as_ref().map_err(|text| anyhow::anyhow!("{text}"))?;
    let file = folder.join(format!("tangelo-{}{}", role.name(), env::consts::EXE_SUFFIX));
    if !file.is_file() {
        bail!("{} is not there", file.display());
    }
    Ok(file)
}

fn find_or_build() -> anyhow::Result<PathBuf> {
    if let Some(folder) = env::var_os(BIN_DIR) {
        return Ok(folder.into());
    }
    let folder = output_folder()?;
    build(&folder)?;
    Ok(folder)
}

/// The folder into which cargo puts binaries of the profile that this test was built with: two
/// above `<target>/<profile>/deps/<test>`.
pub(crate) fn output_folder() -> anyhow::Result<PathBuf> {
    let test = env::current_exe().context("where is this test?")?;
    let parent = test.parent().context("a test is in a folder")?;
    let folder = if parent.ends_with("deps") || parent.ends_with("examples") {
        parent.parent().context("deps is in a folder")?
    } else {
        parent
    };
    Ok(folder.to_owned())
}

/// Lets cargo build the three roles into the same folder. Cargo knows what is fresh; several test
/// executables may ask at once.
fn build(folder: &Path) -> anyhow::Result<()> {
    let profile = folder.file_name().and_then(|name| name.to_str());
    let profile = match profile.context("the profile's folder has a name")? {
        "debug" => "dev",
        name => name,
    };
    let target = folder.parent().context("the profile's folder is in target")?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env("CARGO_TARGET_DIR", target)
        .args(["build", "--profile", profile, "--bins"])
        .args(["--package", "gate", "--package", "connector", "--package", "chat"])
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo cannot build the roles:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
