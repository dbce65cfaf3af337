//! The program: parse and call.

fn main() -> std::process::ExitCode {
    litemesh::cli::main()
}
