//! EPT violations that become virtualization exceptions (SDM 25.5.7): which do, and what the area says then.
//!
//! The twin is a second `VeArea`, into which `raise` writes what the walk in software found.

use alloc::format;

use kernel_example::memory::Kernel;
use vmx_structs::{EptConfig, EptFault, VeArea, VeInfo, VmxCapabilities};

use super::{ACCESSES, Bench, Fate};
use crate::report::{Outcome, Report};

const SUPPRESS: u64 = 1 << 63;

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    if !caps.has_ve() {
        report.absent("virtualization exceptions");
        return Ok(());
    }
    let area = || VeArea::<Kernel>::new().map_err(|error| format!("{error}"));
    let (software, processor) = (area()?, area()?);
    let address = processor.phys_addr();
    let config = EptConfig::new(caps)?.with_ve(true)?;
    let mut bench = Bench::with(caps, config, |builder| _ = builder.ve_information(address))?;
    for (level, is_page) in (1..=4).flat_map(|level| [(level, false), (level, true)]) {
        if is_page && level == 4 {
            continue;
        }
        for (permissions, suppress) in (0..8).flat_map(|bits| [(bits, 0), (bits, SUPPRESS)]) {
            for (what, access) in ACCESSES {
                let word =
                    if is_page { bench.page(level) } else { bench.link(level) } | permissions | suppress;
                // Twice in a row: the second time the area is still busy.
                for turn in ["first", "again"] {
                    bench.reset(&[(level, word)]);
                    let expected = match bench.walk(bench.guest, access, |_, word| word) {
                        Err(EptFault::Violation(violation))
                            if software.raise(&violation, bench.linear, 0) =>
                        {
                            Fate::Exception
                        }
                        _ => bench.predict(bench.guest, access, |_, word| word),
                    };
                    let seen = bench.ask(access)?;
                    let case = format!("{what}, level {level}, entry {word:#x}, {turn}");
                    report.compare(&case, &expected, &seen);
                    let info =
                        |area: &VeArea<Kernel>| area.info().map(|info| VeInfo { eptp_index: 0, ..info });
                    report.compare(format_args!("{case}: the area"), &info(&software), &info(&processor));
                }
                software.take();
                processor.take();
            }
        }
    }
    report.blind(
        "the EPTP index in the area is that of the CPU's last VMFUNC, not that of the VMCS; on the host: structures",
    );
    bench.end()
}
