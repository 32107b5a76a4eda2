//! Host tool: replays Linux allocation traces on every frame allocator, compares and draws them.
//!
//! | module | concept |
//! |---|---|
//! | [`trace`] | a recording: from text to a program of operations |
//! | [`memory`] | a firmware map: the frames that a replay has |
//! | [`backends`] | the allocators, by name |
//! | [`ledger`], [`replay`], [`threads`], [`measure`] | who owns what; a watched pass; timed passes; a thread for each CPU |
//! | [`hal`], [`vm`] | a virtual machine's structures on a compared allocator |
//! | [`table`], [`report`] | what a person reads |
//! | [`compare`], [`map`], [`record`] | the commands |

mod backends;
mod cli;
mod clock;
mod compare;
mod hal;
mod ledger;
mod machine;
mod map;
mod measure;
mod memory;
mod picture;
mod progress;
mod record;
mod replay;
mod report;
mod table;
mod threads;
mod trace;
mod vm;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

/// Exit status: a backend lied.
const UNSOUND: u8 = 1;
/// Exit status: the input or the command line cannot be used (as clap's own).
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::Map(args) => map::run(&args),
        Command::Record => record::run(),
    };
    match result {
        Ok(complaints) if complaints.is_empty() => ExitCode::SUCCESS,
        Ok(complaints) => {
            for complaint in complaints {
                eprintln!("error: {complaint}");
            }
            ExitCode::from(UNSOUND)
        }
        // Whoever reads us has had enough, as `| head` does.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(UNUSABLE)
        }
    }
}

/// What a command comes to: complaints about what it looked at, or why it could not do its work.
type Outcome = Result<Vec<String>, Box<dyn std::error::Error>>;

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
