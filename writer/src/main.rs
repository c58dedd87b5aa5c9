//! The `penholder` command: one binary for the writer and for everybody who slips it notes.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
