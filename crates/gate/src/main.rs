//! The binary `tangelo-gate`.

fn main() -> std::process::ExitCode {
    daemon::run::main(gate::run)
}
