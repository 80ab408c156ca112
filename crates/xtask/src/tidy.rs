//! What no compiler checks: which crate may use which, that pure crates stay pure, how long a
//! file may be, and what must not be left behind. The rules are named in `ARCHITECTURE.md`.

mod arrows;
mod text;

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::step::top;

/// What may stand at the top of the repository, beside dotfiles.
const TOP: [&str; 11] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "crates",
    "deploy",
    "docs",
    "docker-compose.yml",
    "proto",
];

/// Checks the working tree and names every problem at once.
///
/// # Errors
///
/// If there is any problem, or git or cargo cannot be asked.
pub(crate) fn run() -> anyhow::Result<()> {
    let files = tracked_files()?;
    let mut problems = layout(&files);
    for file in &files {
        // A file may be deleted and not yet committed; what is no text has no lines.
        if let Ok(contents) = fs::read_to_string(top().join(file)) {
            problems.extend(text::problems(file, &contents));
        }
    }
    problems.extend(arrows::problems()?);
    problems.extend(patches(&files)?);
    let (dockerfile, gathered) =
        (contents("deploy/Dockerfile"), contents("deploy/tangelo.profdata.txt"));
    problems.extend(missing_profile(&dockerfile, &gathered));
    problems.sort();
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => bail!("{count} problems, named above"),
    }
}

/// The paths of all files that git tracks or would track, relative to the top.
fn tracked_files() -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .context("git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a path that is not UTF-8")?;
    Ok(names.split_terminator('\0').map(str::to_owned).collect())
}

/// Patches are for the code beside them, and nothing else notices that one does not fit any more.
fn patches(files: &[String]) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".patch")) {
        let mut git = Command::new("git");
        let output = git.args(["apply", "--check", file]).current_dir(top()).output();
        let output = output.context("git apply")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            problems.push(format!("{file}: does not fit the code any more: {said}"));
        }
    }
    Ok(problems)
}

/// Images are built by a profile for one compiler. With another they are slower, and nobody is told
/// but who reads the whole of what building prints.
fn missing_profile(dockerfile: &str, gathered: &str) -> Option<String> {
    let tag = dockerfile.lines().find_map(|line| line.strip_prefix("ARG BUILD_IMAGE=rust:"));
    let images = tag.and_then(|tag| tag.split('-').next()).unwrap_or_default();
    let profile = gathered.lines().find_map(|line| line.strip_prefix("release: "));
    let profile = profile.unwrap_or_default();
    // A version without its last number moves on to another compiler by itself.
    (images != profile || profile.is_empty()).then(|| {
        format!(
            "deploy/Dockerfile: the compiler of BUILD_IMAGE is `{images}`, and \
             deploy/tangelo.profdata is for `{profile}`; deploy/profile.sh gathers it anew"
        )
    })
}

/// The top level is fixed, and every crate takes the workspace's lints.
fn layout(files: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let tops: BTreeMap<&str, &String> =
        files.iter().map(|file| (file.split('/').next().unwrap_or(file), file)).collect();
    for (name, file) in tops {
        if !name.starts_with('.') && !TOP.contains(&name) {
            problems.push(format!("{file}: `{name}` does not belong at the top of the repository"));
        }
    }
    for file in files.iter().filter(|file| is_manifest(file)) {
        let manifest = contents(file);
        if !manifest.contains("[lints]\nworkspace = true\n") {
            problems.push(format!("{file}: does not take the workspace's lints"));
        }
        let name = file.split('/').nth(1).unwrap_or_default();
        if !manifest.contains(&format!("name = \"{name}\"\n")) {
            problems.push(format!("{file}: the crate is not named after its folder"));
        }
        if arrows::PURE.contains(&name) && !has_pure_lints(name) {
            problems.push(format!(
                "crates/{name}/.clippy.toml: a pure crate bans the clock and hash maps there"
            ));
        }
    }
    problems
}

/// Whether the path is `crates/NAME/Cargo.toml`.
fn is_manifest(file: &str) -> bool {
    let mut parts = file.split('/');
    parts.next() == Some("crates")
        && parts.next().is_some()
        && parts.next() == Some("Cargo.toml")
        && parts.next().is_none()
}

fn has_pure_lints(name: &str) -> bool {
    let lints = contents(Path::new("crates").join(name).join(".clippy.toml"));
    ["std::time::Instant::now", "std::collections::HashMap"].iter().all(|ban| lints.contains(ban))
}

/// What a file of the working tree says; nothing if it is not there.
fn contents(file: impl AsRef<Path>) -> String {
    fs::read_to_string(top().join(file)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_level_is_fixed() {
        let files = ["README.md", ".ci/run", "crates/model/src/lib.rs", "notes/x.md", "main.rs"];
        let problems = layout(&files.map(str::to_owned));
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("main.rs: "));
        assert!(problems[1].starts_with("notes/x.md: "));
    }

    #[test]
    fn images_have_a_profile_for_their_compiler() {
        let gathered = "rustc 1.95.0 (59807616e)\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        let problem =
            |image| missing_profile(&format!("# one\nARG BUILD_IMAGE={image}\n"), gathered);
        assert_eq!(problem("rust:1.95.0-bookworm"), None);
        for image in ["rust:1.96.0-bookworm", "rust:1.95-bookworm", "rust:1.95.1-slim", "debian"] {
            assert!(problem(image).is_some(), "{image}");
        }
        assert!(missing_profile("", "").is_some());
    }

    #[test]
    fn only_a_crates_own_manifest_is_one() {
        assert!(is_manifest("crates/model/Cargo.toml"));
        assert!(!is_manifest("crates/wire/fuzz/Cargo.toml"));
        assert!(!is_manifest("Cargo.toml"));
    }
}
