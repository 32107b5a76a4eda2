//! The table of entries: permissions × level × what the entry is × each bit that means something, or must not be set.

use alloc::{format, vec::Vec};

use vmx_structs::VmxCapabilities;

use super::{Bench, configurations};
use crate::report::{Outcome, Report};

/// Bits that are toggled, one at a time, in an entry of a level. Address bits that would lead elsewhere are left alone.
fn bits(level: usize, is_page: bool, width: u32) -> Vec<u32> {
    // Reserved or memory type and ignore-PAT; large page; accessed, dirty, user-execute, ignored.
    let mut bits: Vec<u32> = if is_page { (6..=6).collect() } else { (3..=6).collect() };
    if !is_page || level == 1 {
        bits.push(7);
    }
    bits.extend(8..=11);
    // Below a large page.
    match (level, is_page) {
        (2, true) => bits.extend([12, 13, 16, 20]),
        (3, true) => bits.extend([12, 13, 20, 21, 29]),
        _ => {}
    }
    // Beyond the physical-address width; ignored; suppress-#VE.
    bits.extend([width, width + 1, 45, 51, 52, 57, 60, 61, 62, 63]);
    bits
}

pub fn compare(report: &mut Report, caps: &VmxCapabilities) -> Outcome {
    let (mut entries, mut blind) = (0, 0);
    for config in configurations(caps)? {
        let mut bench = Bench::new(caps, config)?;
        for (level, is_page) in (1..=4).flat_map(|level| [(level, false), (level, true)]) {
            if level == 4 && is_page {
                continue; // that is the link with bit 7, which is among the bits
            }
            let plain = if is_page { bench.page(level) } else { bench.link(level) };
            let what = if is_page { "page" } else { "table" };
            let mut words = Vec::from([("plain".into(), plain)]);
            if is_page {
                let types =
                    (0..8).map(|number| (format!("memory type {number}"), plain & !(7 << 3) | number << 3));
                words.extend(types);
            }
            // The link of level 1 is a page as well; it differs in nothing that matters.
            if level > 1 || is_page {
                let toggled = bits(level, is_page, caps.cpu.physical_width.into())
                    .into_iter()
                    .map(|bit| (format!("bit {bit} toggled"), plain ^ 1 << bit));
                words.extend(toggled);
            }
            for (change, word) in &words {
                for permissions in 0..8 {
                    let name = format!("{what} of level {level}, permissions {permissions}, {change}");
                    let fell = bench.trial(report, &name, &[(level, word | permissions)])?;
                    entries += 1;
                    blind += usize::from(fell);
                }
            }
        }
        bench.end()?;
    }
    report.note(format_args!("{entries} entries, each read, written and fetched from"));
    report.blind(format_args!(
        "{blind} of them: bit 12 of a leaf of 2 MiB or 1 GiB is not looked at; on the host: ept_walk"
    ));
    report.blind("a missing INVEPT does not show: VM exits forget everything, with VPID as well; on the host: ept_basic, ept_model");
    report.absent("EPT of 5 levels, mode-based execute, advanced exit information; on the host: ept_walk");
    Ok(())
}
