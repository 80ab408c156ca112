//! The binary `tangelo-connector`.

fn main() -> std::process::ExitCode {
    daemon::run::main(|args: &connector::Args| args.common.threads, connector::run)
}
