//! The steps of `cargo xtask ci`.

use std::{path::Path, process::Command};

use anyhow::{Context as _, bail, ensure};

use crate::tidy;

/// The name that the image under test gets, so that a developer's own `tangelo:local` stays.
const TEST_IMAGE: &str = "tangelo:test";
/// The same for etcd's.
const ETCD_TEST_IMAGE: &str = "tangelo-etcd:test";

/// One step, callable by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Fmt,
    Tidy,
    Clippy,
    Build,
    Test,
    Page,
    Docs,
    Image,
    Compose,
}

impl Step {
    /// All steps, the quick ones first.
    pub(crate) const ALL: [Self; 9] = [
        Self::Fmt,
        Self::Tidy,
        Self::Clippy,
        Self::Build,
        Self::Test,
        Self::Page,
        Self::Docs,
        Self::Image,
        Self::Compose,
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Clippy => "clippy",
            Self::Build => "build",
            Self::Test => "test",
            Self::Page => "page",
            Self::Docs => "docs",
            Self::Image => "image",
            Self::Compose => "compose",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Fmt => "the code is formatted",
            Self::Tidy => "arrows, purity, file lengths, leftovers, patches, the profile of images",
            Self::Clippy => "no warning in any target",
            Self::Build => "every crate and binary, for the tests that start them",
            Self::Test => "every test but the one of the compose file, and the examples in docs",
            Self::Page => "the page's own tests, in node",
            Self::Docs => "the documentation builds without a warning",
            Self::Image => "the container image, with the quicker release profile",
            Self::Compose => "the compose files in a real engine: scale, chat, kill",
        }
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Fmt => execute(cargo().args(["fmt", "--all", "--", "--check"])),
            Self::Tidy => tidy::run(),
            Self::Clippy => execute(
                cargo()
                    .args(["clippy", "--workspace", "--all-targets", "--locked"])
                    .args(["--", "-D", "warnings"]),
            ),
            Self::Build => execute(&mut build()),
            Self::Test => test(),
            Self::Page => page(),
            Self::Docs => execute(
                cargo()
                    .args(["doc", "--workspace", "--no-deps", "--locked"])
                    .env("RUSTDOCFLAGS", "-D warnings"),
            ),
            Self::Image => image(),
            Self::Compose => compose(),
        }
    }
}

fn build() -> Command {
    let mut command = cargo();
    command.args(["build", "--workspace", "--all-targets", "--locked"]);
    command
}

/// Runs all tests. Those that start real processes run one at a time: they measure nothing, but
/// two clusters on two cores would only wait for each other.
fn test() -> anyhow::Result<()> {
    // They start the binaries of this very build, so that none of them builds its own.
    execute(&mut build())?;
    let own = std::env::current_exe().context("where is this program?")?;
    let binaries = own.parent().context("a program is in a folder")?;
    let cargo = || {
        let mut command = cargo();
        command.env("TANGELO_BIN_DIR", binaries);
        command
    };
    if answers(cargo().args(["nextest", "--version"])) {
        // Groups and time limits are in `.config/nextest.toml`.
        execute(cargo().args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]))?;
    } else {
        let one_crate = ["test", "--workspace", "--all-targets", "--locked", "--no-fail-fast"];
        execute(cargo().args(one_crate).args(["--exclude", "e2e", "--exclude", "tangelo"]))?;
        execute(cargo().args(["test", "--all-targets", "--locked", "--no-fail-fast"]).args([
            "-p",
            "e2e",
            "-p",
            "tangelo",
            "--",
            "--test-threads=1",
        ]))?;
    }
    execute(cargo().args(["test", "--workspace", "--doc", "--locked"]))
}

/// Tests the page's scripts without a browser.
fn page() -> anyhow::Result<()> {
    if !answers(Command::new("node").arg("--version")) {
        return skip("the page's own tests", "node is not installed");
    }
    execute(Command::new("node").args(["--test", "crates/gate/web-tests/"]))
}

/// Builds the image through the compose file, as a user does.
fn image() -> anyhow::Result<()> {
    let Some(mut compose) = compose_tool() else {
        return skip("the container image", "no Docker engine with compose answers");
    };
    // One service is enough: all have the same image. The profile `dist` takes three times as long.
    let settings = [
        ("TANGELO_IMAGE", TEST_IMAGE),
        ("TANGELO_ETCD_IMAGE", ETCD_TEST_IMAGE),
        ("TANGELO_BUILD_PROFILE", "release"),
    ];
    compose.args(["-f", "docker-compose.yml", "-f", "deploy/docker-compose.etcd.yml"]);
    let built = execute(compose.args(["build", "gate", "etcd-1"]).envs(settings));
    remove_old_stages();
    built.context("if no image registry is in reach, deploy/base-images.sh makes the base images")
}

/// Removes what the classic builder leaves of each build, up to a gigabyte: the stages it came
/// through, without a name. The newest of each stays: the next build takes its layers over.
fn remove_old_stages() {
    for stage in ["manifests", "build"] {
        let label = format!("label=tangelo.stage={stage}");
        let list = ["images", "--quiet", "--filter", "dangling=true", "--filter", &label];
        let Ok(output) = Command::new("docker").args(list).output() else { return };
        for image in String::from_utf8_lossy(&output.stdout).lines().skip(1) {
            answers(Command::new("docker").args(["image", "rm", image]));
        }
    }
}

/// Runs the test of the compose file against the image built before.
fn compose() -> anyhow::Result<()> {
    if compose_tool().is_none() {
        return skip("the compose file", "no Docker engine with compose answers");
    }
    execute(
        cargo()
            .args(["test", "-p", "e2e", "--test", "compose", "--locked"])
            .args(["--", "--ignored", "--nocapture", "--test-threads=1"])
            .env("TANGELO_IMAGE", TEST_IMAGE)
            .env("TANGELO_ETCD_IMAGE", ETCD_TEST_IMAGE),
    )
}

/// Whether everything must run, so that nothing may be skipped.
fn require_all() -> bool {
    std::env::var_os("TANGELO_REQUIRE_ALL").is_some_and(|value| value == "1")
}

fn skip(what: &str, why: &str) -> anyhow::Result<()> {
    ensure!(!require_all(), "{why}, and TANGELO_REQUIRE_ALL=1 forbids skipping {what}");
    eprintln!("skipped: {what}: {why}");
    Ok(())
}

/// The command that runs compose, if an engine answers it: the plugin, else the older program.
fn compose_tool() -> Option<Command> {
    if !answers(Command::new("docker").args(["version"])) {
        return None;
    }
    let plugin = || {
        let mut command = Command::new("docker");
        command.arg("compose");
        command
    };
    if answers(plugin().arg("version")) {
        return Some(plugin());
    }
    answers(Command::new("docker-compose").arg("version")).then(|| Command::new("docker-compose"))
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The top of the repository.
pub(crate) fn top() -> &'static Path {
    let mut ancestors = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    ancestors.nth(2).expect("this crate is two levels below the top")
}

/// Whether the command can be run and succeeds; its output is discarded.
fn answers(command: &mut Command) -> bool {
    command.current_dir(top()).output().is_ok_and(|output| output.status.success())
}

/// Runs the command with its output on ours.
fn execute(command: &mut Command) -> anyhow::Result<()> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    let status = command.current_dir(top()).status().with_context(|| format!("running {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_found_by_its_name() {
        for step in Step::ALL {
            assert_eq!(Step::from_name(step.name()), Some(step));
        }
        assert_eq!(Step::from_name("everything"), None);
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        assert_eq!(
            shown(Command::new("/usr/bin/cargo").args(["fmt", "--check"])),
            "cargo fmt --check"
        );
    }
}
