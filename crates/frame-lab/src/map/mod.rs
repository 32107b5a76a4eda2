//! `frame-lab map`: what a firmware map becomes.
//!
//! Firmware speaks of bytes and inclusive ends, allocators of whole frames. In between, bytes are lost: to frames that
//! are usable only in part, to entries that overlap, to frame 0. This command says of each entry how many, and why.

mod entry;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use comfy_table::{Cell, CellAlignment, Table, presets};
use entry::EntryFacts;
use frame_core::{FRAME_SIZE, FrameAllocator, FrameRange, FrameStats};
use serde::Serialize;

use crate::{
    Outcome,
    backends::{ALL, Job, Setting},
    cli::MapArgs,
    ledger::whole_blocks,
    memory::{Memory, human_bytes, human_count},
};

/// A map, told.
#[derive(Debug, Serialize)]
struct MapFacts {
    map: String,
    entries: Vec<EntryFacts>,
    /// Lines of the file that are no entries.
    lines_not_understood: Vec<String>,
    ranges: Vec<RangeFacts>,
    frames: usize,
    /// Whole, aligned 2 MiB frames.
    frames_2m: usize,
    /// Frames that Linux counted on this machine, where that is known.
    linux_frames: Option<usize>,
    metadata: Vec<MetadataFacts>,
}

/// A range of frames that allocators get.
#[derive(Debug, Serialize)]
struct RangeFacts {
    start: u64,
    /// Exclusive.
    end: u64,
    frames: usize,
    frames_2m: usize,
}

/// What a backend needs to manage the map.
#[derive(Debug, Serialize)]
struct MetadataFacts {
    backend: &'static str,
    /// `None` where the backend cannot manage this map.
    bytes: Option<usize>,
    error: Option<String>,
}

pub(crate) fn run(args: &MapArgs) -> Outcome {
    let facts = MapFacts::of(&Memory::load(&args.map)?);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&facts)?)?;
    } else {
        out.write_all(facts.draw().as_bytes())?;
    }
    Ok(facts.complaints())
}

impl MapFacts {
    fn of(memory: &Memory) -> Self {
        let ranges = memory.regions(None);
        let setting = Setting { regions: ranges.clone(), cpus: 1, threads: false };
        let metadata = ALL.iter().map(|backend| {
            let stats = backend.run(&setting, Stats);
            MetadataFacts {
                backend: backend.name,
                bytes: stats.as_ref().ok().map(|stats| stats.metadata_bytes),
                error: stats.err().map(|error| error.to_string()),
            }
        });
        Self {
            map: memory.name.clone(),
            entries: memory
                .parsed
                .entries
                .iter()
                .map(|entry| EntryFacts::of(entry, memory, &ranges))
                .collect(),
            lines_not_understood: memory.parsed.ragged.iter().map(ToString::to_string).collect(),
            frames: setting.frames(),
            frames_2m: whole_blocks(&ranges),
            linux_frames: memory.linux_frames,
            metadata: metadata.collect(),
            ranges: ranges.iter().map(|&range| RangeFacts::of(range)).collect(),
        }
    }

    fn complaints(&self) -> Vec<String> {
        let differs = self.linux_frames.filter(|&linux| linux != self.frames);
        let differs =
            differs.map(|linux| format!("{}: {} frames, but Linux counted {linux}", self.map, self.frames));
        differs.into_iter().collect()
    }

    fn draw(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{}: what the firmware says\n{}\n", self.map, self.entry_table())?;
        for line in &self.lines_not_understood {
            writeln!(out, "not understood: {line}")?;
        }
        writeln!(out, "What becomes of it: frames of 4 KiB, whole ones only\n{}\n", self.range_table())?;
        let bytes = (self.frames * FRAME_SIZE) as u64;
        let (frames, huge) = (human_count(self.frames as u64), human_count(self.frames_2m as u64));
        write!(out, "{frames} frames ({}), {huge} whole 2 MiB frames", human_bytes(bytes))?;
        match self.linux_frames {
            Some(linux) if linux == self.frames => writeln!(out, "; Linux counts the same."),
            Some(linux) => writeln!(out, "; Linux counts {}.", human_count(linux as u64)),
            None => writeln!(out, "."),
        }?;
        writeln!(out, "\nMetadata that each backend needs for it (the caches: with one CPU)")?;
        for MetadataFacts { backend, bytes, error } in &self.metadata {
            match (bytes, error) {
                (Some(bytes), _) => {
                    let share = *bytes as f64 / self.frames as f64;
                    writeln!(
                        out,
                        "  {backend:<15} {:>10}   {share:.3} bytes a frame",
                        human_bytes(*bytes as u64)
                    )?;
                }
                (None, error) => writeln!(out, "  {}", error.as_deref().unwrap_or("unknown"))?,
            }
        }
        Ok(())
    }

    fn entry_table(&self) -> Table {
        let mut table =
            table(["first byte", "last byte", "kind", "size", "frames", "lost", "why"], &[3, 4, 5]);
        for entry in &self.entries {
            let usable = entry.kind == "usable";
            // The whole address space has one byte more than a u64 can count.
            let size = human_bytes((entry.last - entry.first).saturating_add(1));
            table.add_row([
                Cell::new(format!("{:#x}", entry.first)),
                Cell::new(format!("{:#x}", entry.last)),
                Cell::new(&entry.kind),
                Cell::new(size),
                Cell::new(if usable { human_count(entry.frames) } else { String::new() }),
                Cell::new(if usable {
                    format!("{} B", human_count(entry.lost_bytes))
                } else {
                    String::new()
                }),
                Cell::new(entry.why.join("\n")),
            ]);
        }
        table
    }

    fn range_table(&self) -> Table {
        let mut table = table(["start", "end", "", "size", "frames", "2 MiB frames"], &[3, 4, 5]);
        let mut end = 0;
        for range in &self.ranges {
            if range.start > end {
                let row = [format!("{end:#x}"), format!("{:#x}", range.start), "hole".into()];
                table.add_row(row.into_iter().chain([human_bytes(range.start - end)]));
            }
            table.add_row([
                format!("{:#x}", range.start),
                format!("{:#x}", range.end),
                "frames".into(),
                human_bytes(range.end - range.start),
                human_count(range.frames as u64),
                human_count(range.frames_2m as u64),
            ]);
            end = range.end;
        }
        table
    }
}

impl RangeFacts {
    fn of(range: FrameRange) -> Self {
        Self {
            start: range.start().as_usize() as u64,
            end: range.end().as_usize() as u64,
            frames: range.count(),
            frames_2m: whole_blocks(&[range]),
        }
    }
}

/// A table with a header and right-aligned columns.
fn table<const N: usize>(header: [&str; N], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

struct Stats;

impl Job for Stats {
    type Out = FrameStats;

    fn run<A: FrameAllocator>(self, allocator: &A, _drain: &dyn Fn()) -> FrameStats {
        allocator.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frame_testkit::firmware;

    fn facts(text: &str) -> MapFacts {
        let parsed = firmware::parse(text).unwrap();
        MapFacts::of(&Memory { name: "test".into(), parsed, linux_frames: None })
    }

    #[test]
    fn every_lost_byte_has_a_reason() {
        let facts = facts(
            "0x100-0x2fff usable\nnonsense\n0x3000-0x37ff usable\n0x3800-0x90ff usable\n0x5010-0x5020 reserved\n\
             0x10800-0x10bff usable\n0x20800-0x21fff usable\n",
        );
        let why: Vec<_> = facts
            .entries
            .iter()
            .map(|entry| (entry.frames, entry.lost_bytes, entry.why.join("; ")))
            .collect();
        assert_eq!(why[0], (2, 0xf00, "3,840 B: frame 0, which is never handed out".into()));
        // 0x3000 is one frame made of two entries: both count it.
        assert_eq!((why[1].0, why[1].1), (1, 0));
        assert_eq!(why[2].0, 5);
        assert_eq!(why[2].2, "4,096 B: also reserved, at 0x5010; 256 B: its last frame is not whole");
        assert_eq!(why[4], (0, 0x400, "1,024 B: its last frame is not whole".into()));
        assert_eq!(why[5], (1, 0x800, "2,048 B: its first frame is not whole".into()));
        assert_eq!(facts.lines_not_understood.len(), 1);
        assert_eq!(facts.frames, 2 + 5 + 1); // 0x3000 counts once
        for entry in facts.entries.iter().filter(|entry| entry.kind == "usable") {
            let told: u64 = entry
                .why
                .iter()
                .map(|why| why.split(' ').next().unwrap().replace(',', "").parse::<u64>().unwrap())
                .sum();
            assert_eq!(told, entry.lost_bytes);
        }
    }

    #[test]
    fn impossible_maps_are_told_and_not_built() {
        let facts = facts("0x0-0xffffffffffffffff usable\n");
        assert_eq!(facts.frames as u64, (u64::MAX >> 12) - 1);
        assert!(facts.metadata.iter().all(|metadata| metadata.bytes.is_none()));
        assert!(facts.draw().contains("the last frame of the address space"), "{}", facts.draw());
        assert!(facts.draw().contains("at most 1 TiB"), "{}", facts.draw());
    }

    #[test]
    fn the_built_in_maps_have_the_frames_that_linux_counted() {
        for built_in in firmware::maps() {
            let facts = MapFacts::of(&Memory::load(built_in.name).unwrap());
            assert_eq!((facts.frames, facts.complaints().len()), (built_in.frames, 0), "{}", built_in.name);
            assert!(
                facts.metadata.iter().all(|metadata| metadata.bytes.is_some_and(|bytes| bytes > 0)),
                "{facts:?}"
            );
            assert!(facts.draw().contains("Linux counts the same"));
        }
    }
}
