//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    memory::{DEFAULT_MAP, frames_from_size},
    vmx::VmxArgs,
};

/// Replays real Linux allocation traces on every frame allocator of this workspace, side by side.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Start with `frame-lab compare`: it needs no input."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Replay a trace on every backend: speed, failures, free 2 MiB frames, fragmentation, metadata
    Compare(CompareArgs),
    /// Show what a firmware memory map becomes: ranges of frames, holes, what is lost and why
    Map(MapArgs),
    /// Measure this project's allocators beside everybody else's: ratios to a floor, fragmentation, start, a picture
    Peers(PeersArgs),
    /// Tell how to record a trace and the memory map of your own machine
    Record,
    /// Build a virtual machine's VMX structures on a backend, explain them, and say what VM entry would say
    Vmx(VmxArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without options: the embedded trace (a 2-CPU machine compiling Rust) on every backend, in the memory of the
embedded map of such a machine. Ends with status 1 if a backend lost a frame or gave one out twice, and with
status 2 if the input cannot be used.

  frame-lab compare --trace my.txt.zst --map my-e820.txt
  perf script -F cpu,time,event,trace | frame-lab compare --trace - --backends tree,percpu-tree
  frame-lab compare --memory 256M          what happens when memory is short
  frame-lab compare --json | jq '.backends[] | {backend, ops_per_second, free_2m_end}'")]
pub(crate) struct CompareArgs {
    /// Trace: what `perf script -F cpu,time,event,trace` prints, plain or zstd; `-` is standard input [default: an
    /// embedded cut of a real one]
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    /// Firmware memory map: a file, or the name of an embedded one
    #[arg(long, value_name = "FILE|NAME", default_value = DEFAULT_MAP)]
    pub(crate) map: String,

    /// Use only the lowest part of the map, such as 256M: short memory shows who keeps it whole
    #[arg(long, value_name = "SIZE", value_parser = frames_from_size)]
    pub(crate) memory: Option<usize>,

    /// Backends, separated by commas: buddy, bitmap, tree, percpu-buddy, percpu-bitmap, percpu-tree [default: all]
    #[arg(long, value_name = "A,B")]
    pub(crate) backends: Option<String>,

    /// Timed passes of each backend, interleaved; the median is shown
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..=999))]
    pub(crate) passes: u16,

    /// Replay once more with a thread for each CPU of the recording, each doing its own CPU's calls
    #[arg(long)]
    pub(crate) threads: bool,

    /// Print every figure as JSON, and nothing else, on standard output; writes a report only if --report is given
    #[arg(long)]
    pub(crate) json: bool,

    /// Where the HTML report goes [default: frame-lab-report.html]
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Write no HTML report
    #[arg(long, conflicts_with = "report")]
    pub(crate) no_report: bool,
}

impl CompareArgs {
    /// The file that the report goes to, if one is wanted.
    pub(crate) fn report_path(&self) -> Option<PathBuf> {
        match &self.report {
            Some(path) => Some(path.clone()),
            None if self.no_report || self.json => None,
            None => Some("frame-lab-report.html".into()),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs a build with the peers in it: cargo run --release -p frame-lab --features peers -- peers --quick

Each contender shows first that it does its work; one that does not is left out and named. Ends with status 1 if it is
one of this project's. A full run takes some minutes and wants a machine that does nothing else.")]
#[cfg_attr(not(feature = "peers"), allow(dead_code, reason = "the command only says how it is built"))]
pub(crate) struct PeersArgs {
    /// Fewer and shorter rounds: under a minute, for a look
    #[arg(long)]
    pub(crate) quick: bool,

    /// Rounds of each kind of work; the median is shown
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=999))]
    pub(crate) rounds: Option<u16>,

    /// Only those whose names contain one of these words, and the yardsticks: percpu-tree,Depot
    #[arg(long, value_name = "A,B")]
    pub(crate) only: Option<String>,

    /// Print every figure as JSON, and nothing else, on standard output; draws only if --picture is given
    #[arg(long)]
    pub(crate) json: bool,

    /// Where the picture goes [default: frame-lab-peers.svg]
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,

    /// Draw no picture
    #[arg(long, conflicts_with = "picture")]
    pub(crate) no_picture: bool,
}

#[cfg(feature = "peers")]
impl PeersArgs {
    /// The file that the picture goes to, if one is wanted.
    pub(crate) fn picture_path(&self) -> Option<PathBuf> {
        match &self.picture {
            Some(path) => Some(path.clone()),
            None if self.no_picture || self.json => None,
            None => Some("frame-lab-peers.svg".into()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// A file with lines like `0x100000-0x7ffddfff usable` or those of `dmesg | grep BIOS-e820`, or the name of an
    /// embedded map: amd-desktop-uefi, cloud-vm, qemu-q35-seabios, vmware-bios
    #[arg(value_name = "FILE|NAME", default_value = DEFAULT_MAP)]
    pub(crate) map: String,

    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_what_there_is() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        let mut help =
            |command: &str| cli.find_subcommand_mut(command).unwrap().render_long_help().to_string();
        for backend in crate::backends::ALL {
            assert!(help("compare").contains(backend.name) && help("vmx").contains(backend.name));
        }
        for map in frame_testkit::firmware::maps() {
            assert!(help("map").contains(map.name));
        }
    }

    #[test]
    fn json_writes_a_report_only_when_asked() {
        let parse = |args: &[&str]| match Cli::parse_from(args).command {
            Command::Compare(args) => args.report_path(),
            _ => unreachable!(),
        };
        assert_eq!(parse(&["frame-lab", "compare"]), Some("frame-lab-report.html".into()));
        assert_eq!(parse(&["frame-lab", "compare", "--json"]), None);
        assert_eq!(parse(&["frame-lab", "compare", "--no-report"]), None);
        assert_eq!(parse(&["frame-lab", "compare", "--json", "--report", "x"]), Some("x".into()));
    }
}
