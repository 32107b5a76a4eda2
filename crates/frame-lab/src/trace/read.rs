//! Reads a whole trace: lines in, a [`Program`] and what was odd about the lines out.

use std::{fmt, io};

use super::{
    Program, Source,
    input::Lines,
    parse::{Line, Radix, parse},
    program::Builder,
};

/// A trace that was read.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) source: Source,
    pub(crate) program: Program,
    pub(crate) counts: Counts,
}

/// What the lines of a trace were.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) lines: u64,
    /// Allocations that had failed when they were recorded.
    pub(crate) failed: u64,
    /// Comments, empty lines and events of other kinds.
    pub(crate) other: u64,
    /// Lines that were not understood.
    pub(crate) unknown: u64,
    /// The first of those.
    pub(crate) first_unknown: Vec<UnknownLine>,
}

/// A line that was not understood.
#[derive(Debug)]
pub(crate) struct UnknownLine {
    /// 1 is the first line of the file.
    pub(crate) number: u64,
    pub(crate) reason: &'static str,
    /// The start of the line.
    pub(crate) text: String,
}

impl fmt::Display for UnknownLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.number, self.reason, self.text)
    }
}

/// Lines that are shown when they are not understood.
const SHOWN: usize = 5;
/// Characters of each that are shown.
const SHOWN_CHARS: usize = 100;
/// Lines that are looked at to tell how frame numbers are printed.
const LOOKED_AT: usize = 4096;

/// Why a trace cannot be replayed.
#[derive(Debug)]
pub(crate) enum TraceError {
    /// It cannot be read, or not to its end.
    Io { source: Source, line: u64, error: io::Error },
    /// It is empty.
    Empty { source: Source },
    /// No line is an allocation or a free.
    NoEvents { source: Source, counts: Counts },
    /// It is too large to number what is in it.
    TooLarge { source: Source, line: u64, what: &'static str },
}

const RECORD_HINT: &str = "`frame-lab record` tells how to make a trace";

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { source, line: 0, error } => write!(f, "{source}: {error}"),
            Self::Io { source, line, error } => write!(f, "{source}, after line {line}: {error}"),
            Self::Empty { source } => write!(f, "{source}: the trace is empty; {RECORD_HINT}"),
            Self::NoEvents { source, counts } => {
                write!(
                    f,
                    "{source}: none of its {} lines is a page allocation or free; {RECORD_HINT}",
                    counts.lines
                )?;
                counts.first_unknown.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Self::TooLarge { source, line, what } => write!(f, "{source}, line {line}: {what}"),
        }
    }
}

impl std::error::Error for TraceError {}

/// Reads a trace; `progress` is called now and then with the number of lines so far.
pub(crate) fn read(source: Source, mut progress: impl FnMut(u64)) -> Result<Trace, TraceError> {
    let mut lines = match source.open() {
        Ok(lines) => lines,
        Err(error) => return Err(TraceError::Io { source, line: 0, error }),
    };
    match read_lines(&mut lines, &mut progress) {
        Ok((_, counts)) if counts.lines == 0 => Err(TraceError::Empty { source }),
        Ok((program, counts)) if program.event_count() == 0 => Err(TraceError::NoEvents { source, counts }),
        Ok((program, counts)) => Ok(Trace { source, program, counts }),
        Err(Stop::Io(error)) => Err(TraceError::Io { source, line: lines.number(), error }),
        Err(Stop::TooLarge(what)) => Err(TraceError::TooLarge { source, line: lines.number(), what }),
    }
}

#[derive(Debug)]
enum Stop {
    Io(io::Error),
    TooLarge(&'static str),
}

fn read_lines(lines: &mut Lines, progress: &mut dyn FnMut(u64)) -> Result<(Program, Counts), Stop> {
    // The first lines are held until it is clear how the file prints frame numbers.
    let mut held = Vec::new();
    let mut radix = None;
    while radix.is_none() && held.len() < LOOKED_AT {
        let Some(line) = lines.next().map_err(Stop::Io)? else { break };
        radix = Radix::guess(line);
        held.push(line.to_vec());
    }
    let mut reader =
        Reader { radix: radix.unwrap_or_default(), builder: Builder::new(), counts: Counts::default() };
    for line in held {
        reader.line(&line)?;
    }
    while let Some(line) = lines.next().map_err(Stop::Io)? {
        reader.line(line)?;
        if reader.counts.lines.is_multiple_of(1 << 14) {
            progress(reader.counts.lines);
        }
    }
    Ok((reader.builder.finish(), reader.counts))
}

struct Reader {
    radix: Radix,
    builder: Builder,
    counts: Counts,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), Stop> {
        self.counts.lines += 1;
        match parse(line, self.radix) {
            Line::Event(event) => self.builder.push(event).map_err(Stop::TooLarge)?,
            Line::Failed => self.counts.failed += 1,
            Line::Other => self.counts.other += 1,
            Line::Unknown(reason) => {
                self.counts.unknown += 1;
                if self.counts.first_unknown.len() < SHOWN {
                    let number = self.counts.lines;
                    let text = printable(line);
                    self.counts.first_unknown.push(UnknownLine { number, reason, text });
                }
            }
        }
        Ok(())
    }
}

/// The start of a line, safe for a terminal.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN_CHARS)]);
    let mut shown: String =
        text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> (Program, Counts) {
        read_lines(&mut Lines::of(text.as_bytes()), &mut |_| ()).unwrap()
    }

    #[test]
    fn ragged_lines_are_counted_with_their_numbers() {
        let (program, counts) = of("# header\r\n\
            [000] 1.0: kmem:mm_page_alloc: page=0x10 pfn=0x10 order=0\r\n\
            \r\n\
            [000] 1.1: kmem:mm_page_al\r\n\
            [001] 1.2: kmem:mm_page_free: page=0x10 pfn=0x10 order=0\r\n\
            [001] 1.3: kmem:mm_page_alloc: page=(nil) pfn=0x0 order=4\r\n\
            \u{1b}[31mred\r\n\
            [001] 1.4: kmem:mm_page_alloc: page=0x11 pfn=0x11 or");
        assert_eq!((program.ops.len(), counts.lines, counts.other, counts.failed), (2, 8, 2, 1));
        assert_eq!(counts.unknown, 3);
        let numbers: Vec<_> = counts.first_unknown.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [4, 7, 8]);
        assert!(
            counts.first_unknown[1].text.contains("[31mred")
                && !counts.first_unknown[1].text.contains('\u{1b}')
        );
    }

    #[test]
    fn only_the_first_unknown_lines_are_kept() {
        let (_, counts) = of("x\n".repeat(1000).leak());
        assert_eq!((counts.unknown, counts.first_unknown.len()), (1000, SHOWN));
    }

    #[test]
    fn a_hexadecimal_file_without_0x_is_one() {
        let (program, counts) = of("kmem:mm_page_alloc: pfn=10 order=0\nkmem:mm_page_alloc: pfn=a order=0\n\
            kmem:mm_page_free: pfn=10 order=0\n");
        // 10 is sixteen here, so that the free meets the first allocation and not the second.
        assert_eq!((program.ops.len(), counts.unknown, program.ops[2].slot), (3, 0, 0));
    }

    #[test]
    fn the_embedded_cut_has_its_counts() {
        let trace = read(Source::Embedded, |_| ()).unwrap();
        let program = &trace.program;
        assert_eq!((trace.counts.lines, trace.counts.unknown, trace.counts.other), (200_000, 0, 0));
        assert_eq!((program.alloc_count(), program.frees, program.skipped_frees), (100_652, 99_348, 28_337));
        assert_eq!(&program.allocs[..10], &[99_809, 269, 270, 259, 14, 13, 8, 2, 2, 6]);
        assert_eq!((program.reallocated, program.other_order, program.out_of_order), (0, 0, 0));
        // 169.5 MiB at the peak.
        assert_eq!((program.peak_frames * 4096, program.cpus.as_slice()), (177_741_824, &[0, 1][..]));
        assert_eq!(program.samples.last().unwrap().live_frames, 37_166);
    }

    #[test]
    fn no_trace_is_an_error_that_says_so() {
        let empty = std::env::temp_dir().join(format!("frame-lab-empty-{}", std::process::id()));
        std::fs::write(&empty, "").unwrap();
        let error = read(Source::File(empty.clone()), |_| ()).unwrap_err().to_string();
        std::fs::remove_file(empty).unwrap();
        assert!(error.contains("the trace is empty"), "{error}");
        let error = read(Source::File("/nonexistent/trace".into()), |_| ()).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/trace: No such file"), "{error}");
    }
}
