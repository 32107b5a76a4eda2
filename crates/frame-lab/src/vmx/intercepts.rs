//! Which ports and MSRs exit, as a person says it.

use std::{fmt, ops::RangeInclusive};

use super::{names, number};

/// MSRs and the accesses to them that exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Msrs {
    pub(crate) range: RangeInclusive<u32>,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// The two ranges that an MSR bitmap has bits for (SDM 24.6.9).
const MSR_RANGES: [RangeInclusive<u32>; 2] = [0..=0x1fff, 0xc000_0000..=0xc000_1fff];

/// The items of a list that may be split by commas, by blanks, or over several arguments.
fn items(arguments: &[String]) -> impl Iterator<Item = &str> {
    arguments.iter().flat_map(|argument| argument.split([',', ' '])).filter(|item| !item.is_empty())
}

/// Ports: numbers, ranges, `all`, `none`.
pub(crate) fn ports(arguments: &[String]) -> Result<Vec<RangeInclusive<u16>>, InterceptError> {
    let mut ports = Vec::new();
    for item in items(arguments) {
        let error = |why| InterceptError { option: "--ports", item: item.to_owned(), why };
        let port = |text: &str| {
            let port = number::parse(text).ok_or(error(Why::NoPort))?;
            u16::try_from(port).map_err(|_| error(Why::PortBeyond { port }))
        };
        match item {
            "all" => ports.push(0..=u16::MAX),
            "none" => ports.clear(),
            _ => {
                let (first, last) = item.split_once('-').unwrap_or((item, item));
                let range = port(first)?..=port(last)?;
                if range.is_empty() {
                    return Err(error(Why::Backwards));
                }
                ports.push(range);
            }
        }
    }
    Ok(ports)
}

/// MSRs: numbers, names, ranges, each with its accesses; `all`, `none`.
pub(crate) fn msrs(arguments: &[String]) -> Result<Vec<Msrs>, InterceptError> {
    let mut msrs = Vec::new();
    for item in items(arguments) {
        let error = |why| InterceptError { option: "--msrs", item: item.to_owned(), why };
        let msr = |text: &str| match names::msr(text) {
            Some(msr) => Ok(msr),
            None => {
                let msr = number::parse(text).ok_or(error(Why::NoMsr))?;
                u32::try_from(msr).map_err(|_| error(Why::MsrOutside { msr }))
            }
        };
        let (which, accesses) = item.split_once(':').unwrap_or((item, "rw"));
        let (reads, writes) = match accesses {
            "r" => (true, false),
            "w" => (false, true),
            "rw" | "wr" => (true, true),
            _ => return Err(error(Why::NoAccess)),
        };
        match which {
            "all" => msrs.extend(MSR_RANGES.map(|range| Msrs { range, reads, writes })),
            "none" => msrs.clear(),
            _ => {
                let (first, last) = which.split_once('-').unwrap_or((which, which));
                let range = msr(first)?..=msr(last)?;
                if range.is_empty() {
                    return Err(error(Why::Backwards));
                }
                let outside = |msr: u32| !MSR_RANGES.iter().any(|range| range.contains(&msr));
                let edges = [*range.start(), *range.end()];
                let whole = MSR_RANGES.iter().any(|known| edges.iter().all(|edge| known.contains(edge)));
                if !whole {
                    let msr = edges.into_iter().find(|edge| outside(*edge)).unwrap_or(0x2000);
                    return Err(error(Why::MsrOutside { msr: msr.into() }));
                }
                msrs.push(Msrs { range, reads, writes });
            }
        }
    }
    Ok(msrs)
}

/// An item that names no port, or no MSR that a bitmap knows.
#[derive(Debug)]
pub(crate) struct InterceptError {
    option: &'static str,
    item: String,
    why: Why,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    NoPort,
    PortBeyond { port: u64 },
    NoMsr,
    MsrOutside { msr: u64 },
    NoAccess,
    Backwards,
}

impl fmt::Display for InterceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.option, self.item)?;
        match self.why {
            Why::NoPort => f.write_str("no port; give a number (0x64), a range (0x3f8-0x3ff), `all` or `none`"),
            Why::PortBeyond { port } => {
                write!(f, "port {port:#x} lies beyond 0xffff, the last port: give ports from 0 to 0xffff")
            }
            Why::NoMsr => f.write_str(
                "no MSR; give a number (0xc0000080), a name (IA32_EFER) or a range (0x174-0x176), with :r, :w or :rw",
            ),
            Why::MsrOutside { msr } => write!(
                f,
                "MSR {msr:#x} has no bit in the bitmap, which knows 0 to 0x1fff and 0xc0000000 to 0xc0001fff; an MSR \
                 outside always exits: leave it out"
            ),
            Why::NoAccess => f.write_str("behind the colon stands r (reads exit), w (writes exit) or rw (both)"),
            Why::Backwards => f.write_str("the range ends before it starts: swap the ends"),
        }
    }
}

impl std::error::Error for InterceptError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_in_any_split() {
        let expected = [0x3f8..=0x3ff, 0x64..=0x64, 100..=100];
        for items in
            [&["0x3f8-0x3ff,0x64,100"][..], &["0x3f8-0x3ff", "0x64,", " 100"], &["0x3f8-0x3ff 0x64 100"]]
        {
            assert_eq!(ports(&strings(items)).unwrap(), expected, "{items:?}");
        }
        assert_eq!(ports(&strings(&["all"])).unwrap(), [0..=0xffff]);
        assert_eq!(ports(&strings(&["1,none"])).unwrap(), []);
    }

    #[test]
    fn msrs_with_their_accesses() {
        let of = |range, reads, writes| Msrs { range, reads, writes };
        let items = strings(&["0x10:r,IA32_EFER:w", "0x174-0x176"]);
        let expected = [
            of(0x10..=0x10, true, false),
            of(0xc000_0080..=0xc000_0080, false, true),
            of(0x174..=0x176, true, true),
        ];
        assert_eq!(msrs(&items).unwrap(), expected);
        assert_eq!(msrs(&strings(&["all:w"])).unwrap().len(), 2);
        assert_eq!(msrs(&strings(&["1,none"])).unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (item, part) in [
            ("0x10000", "port 0x10000 lies beyond 0xffff"),
            ("0xfff0-0x10000", "port 0x10000"),
            ("9-8", "swap"),
            ("serial", "no port"),
        ] {
            let error = ports(&strings(&[item])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--ports {item}: ")) && error.contains(part), "{error}");
        }
        for (item, part) in [
            ("0x2000", "MSR 0x2000 has no bit"),
            ("0xc0002000:r", "MSR 0xc0002000"),
            ("0x1ff0-0x2000", "MSR 0x2000"),
            ("0x0-0xc0000000", "MSR 0x2000"),
            ("0x100000000", "MSR 0x100000000"),
            ("efer:x", "colon"),
            ("nonsense", "no MSR"),
            ("9-8", "swap"),
        ] {
            let error = msrs(&strings(&[item])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--msrs {item}: ")) && error.contains(part), "{error}");
        }
    }
}
