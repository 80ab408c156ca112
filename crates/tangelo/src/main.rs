//! The binary `tangelo`: a local cluster, and the operator's tools.

fn main() -> std::process::ExitCode {
    daemon::run::main(tangelo::cli::Cli::threads, tangelo::run)
}
