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
//! | [`compare`], [`map`], [`record`], [`vmx`], `peers` (a feature) | the commands |

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
#[cfg(feature = "peers")]
mod peers;
mod picture;
mod progress;
mod record;
mod replay;
mod report;
mod table;
mod threads;
mod trace;
mod vm;
mod vmx;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

/// Exit status: a backend lied.
const UNSOUND: u8 = 1;
/// Exit status: the input or the command line cannot be used (as clap's own).
const UNUSABLE: u8 = 2;

/// What `peers` says in a build that has none.
#[cfg(not(feature = "peers"))]
const WITHOUT_PEERS: &str =
    "this build has no peers in it; they are a feature, because they take their time to build:
  cargo run --release -p frame-lab --features peers -- peers --quick";

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::Map(args) => map::run(&args),
        #[cfg(feature = "peers")]
        Command::Peers(args) => peers::run(&args),
        #[cfg(not(feature = "peers"))]
        Command::Peers(_) => Err(WITHOUT_PEERS.into()),
        Command::Record => record::run(),
        Command::Vmx(args) => vmx::run(&args),
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
