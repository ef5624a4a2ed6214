//! `raftwood completions` and `raftwood man`: what a shell and a manual need to know of the tool, from the
//! same source as its help.

use crate::{Cli, Failure, Outcome};
use clap::CommandFactory;
use std::path::PathBuf;

/// Arguments of `completions`.
#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that they are for.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// Writes a page for each subcommand into this directory, which must be there. Without it, the page of
    /// the tool is printed.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Runs `completions`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "raftwood", &mut script);
    print(&script)
}

/// Runs `man`.
pub(crate) fn man(args: &ManArgs) -> Result<Outcome, Failure> {
    match &args.to {
        Some(dir) => {
            clap_mangen::generate_to(Cli::command(), dir)?;
            Ok(Outcome::Fine)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&page)
        }
    }
}

fn print(bytes: &[u8]) -> Result<Outcome, Failure> {
    use std::io::Write;
    std::io::stdout().lock().write_all(bytes)?;
    Ok(Outcome::Fine)
}
