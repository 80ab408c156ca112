//! The binary `tangelo-chat`.

fn main() -> std::process::ExitCode {
    daemon::run::main(|args: &chat::Args| args.common.threads, chat::run)
}
