//! The binary `tangelo-chat`.

fn main() -> std::process::ExitCode {
    daemon::run::main(chat::run)
}
