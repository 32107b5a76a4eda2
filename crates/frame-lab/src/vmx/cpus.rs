//! `--list-cpus`: the processors whose capabilities are known.

use std::io::{self, Write as _};

use vmx_structs::CpuModel;

use super::report::CpuSummary;

pub(crate) fn print(json: bool) -> io::Result<()> {
    let cpus: Vec<_> =
        CpuModel::ALL.iter().map(|model| CpuSummary::of(*model, &model.capabilities())).collect();
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string_pretty(&cpus)?);
    }
    for cpu in cpus {
        let CpuSummary { id, name, physical_width, linear_width, .. } = cpu;
        writeln!(
            out,
            "{id:<17} {name}: physical addresses of {physical_width} bits, linear of {linear_width}"
        )?;
        let has = if cpu.has.is_empty() { "the least that VMX is".to_owned() } else { cpu.has.join(", ") };
        writeln!(out, "{:<17} {has}", "")?;
    }
    Ok(())
}
