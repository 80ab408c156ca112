//! The binary `tangelo-gate`.

fn main() -> std::process::ExitCode {
    daemon::run::main(|args: &gate::Args| args.common.threads, gate::run)
}
