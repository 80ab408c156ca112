//! The binary `tangelo-connector`.

fn main() -> std::process::ExitCode {
    daemon::run::main(connector::run)
}
