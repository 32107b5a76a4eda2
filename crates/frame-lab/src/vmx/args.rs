//! The command line of `frame-lab vmx`.

use clap::Args;

use crate::memory::{DEFAULT_MAP, frames_from_size};

#[derive(Debug, Args)]
#[command(after_help = "\
Without options: a VM of 2 GiB on the `skylake_x` processor, on the tree. Ends with status 1 if a frame did not come
back or a VM that nobody broke is refused, and with status 2 if the input cannot be used.

  frame-lab vmx --list-cpus
  frame-lab vmx --cpu everything --ept-levels 5 --memory 6G --backend percpu-tree
  frame-lab vmx --ports 0x60,0x64,0x3f8-0x3ff --msrs IA32_EFER:w,0x10:r,0x174-0x176
  frame-lab vmx --set 'Guest CR0=0' --set 'EPT pointer|=0x80'     what would the processor say?
  frame-lab vmx --json | jq .verdict")]
pub(crate) struct VmxArgs {
    /// Processor whose capabilities the VM follows; --list-cpus shows all
    #[arg(long, value_name = "NAME", default_value = "skylake_x")]
    pub(crate) cpu: String,

    /// Guest memory, with the holes of a PC at 640 KiB and at 3 GiB
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = frames_from_size)]
    pub(crate) memory: usize,

    /// I/O ports that exit: numbers and ranges (0x3f8-0x3ff), `all`, or `none`
    #[arg(long, value_name = "PORTS", num_args = 1.., default_value = "0x64,0x3f8-0x3ff,0xcf8-0xcff")]
    pub(crate) ports: Vec<String>,

    /// MSRs that exit: numbers, names and ranges, each with :r, :w or :rw (the default); `all`, or `none`
    #[arg(long, value_name = "MSRS", num_args = 1.., default_value = "IA32_APIC_BASE,IA32_FEATURE_CONTROL,IA32_EFER:w")]
    pub(crate) msrs: Vec<String>,

    /// Levels of the EPT: 4 or 5 [default: 4 where the processor has them]
    #[arg(long, value_name = "LEVELS")]
    pub(crate) ept_levels: Option<u32>,

    /// Allocator that gives the frames: buddy, bitmap, tree, percpu-buddy, percpu-bitmap, percpu-tree
    #[arg(long, value_name = "NAME", default_value = "tree")]
    pub(crate) backend: String,

    /// Host memory: a firmware map, from a file or by the name of an embedded one
    #[arg(long, value_name = "FILE|NAME", default_value = DEFAULT_MAP)]
    pub(crate) map: String,

    /// Use only the lowest part of the host memory, such as 64M
    #[arg(long, value_name = "SIZE", value_parser = frames_from_size)]
    pub(crate) host_memory: Option<usize>,

    /// Change a VMCS field before VM entry is checked, by the SDM's name or by encoding; |=, &= and ^= too, ~ in front
    /// of a value, and names of control bits as values. Repeatable, done in order
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub(crate) sets: Vec<String>,

    /// Print every fact as JSON, and nothing else, on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// Show the processors whose capabilities are known
    #[arg(long)]
    pub(crate) list_cpus: bool,
}
