//! `frame-lab vmx`, from the outside: what it tells is compared with what is computed here from the question.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use serde_json::Value;

const CPUS: [&str; 13] = [
    "first_generation",
    "core2_penryn",
    "lynnfield",
    "arrandale",
    "sandy_bridge",
    "ivy_bridge",
    "haswell",
    "broadwell",
    "skylake_x",
    "cannon_lake",
    "icelake",
    "tigerlake",
    "everything",
];

/// Runs it with `--json`.
fn vmx(dir: &Dir, args: &[&str]) -> Value {
    json(&run(dir, &[&["vmx", "--json"], args].concat()))
}

/// A number that JSON has in hexadecimal.
fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no text"));
    u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn structure<'a>(report: &'a Value, name: &str) -> &'a Value {
    list(&report["structures"])
        .iter()
        .find(|structure| structure["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

fn field(report: &Value, encoding: u64) -> &Value {
    let mut fields = list(&report["vmcs"]["fields"]).iter();
    fields
        .find(|field| hex(&field["encoding"]) == encoding)
        .unwrap_or_else(|| panic!("no field {encoding:#x}"))
}

/// The bytes of a structure of one frame, from the words that are not 0.
fn bytes(structure: &Value) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for words in list(&structure["words"]) {
        let (offset, count) = (count(words, "/offset") as usize, count(words, "/count") as usize);
        for i in 0..count {
            bytes[offset + i * 8..][..8].copy_from_slice(&hex(&words["value"]).to_le_bytes());
        }
    }
    bytes
}

#[test]
fn every_processor_enters_on_every_backend_and_every_frame_comes_back() {
    let dir = Dir::new("vmx-all");
    for cpu in CPUS {
        let mut seen = BTreeSet::new();
        for backend in BACKENDS {
            let report =
                vmx(&dir, &["--cpu", cpu, "--backend", backend, "--memory", "16M", "--host-memory", "64M"]);
            let what = format!("{cpu} on {backend}");
            assert_eq!((&report["cpu"]["id"], &report["backend"]), (&cpu.into(), &backend.into()));
            assert_eq!(report["verdict"]["enters"], true, "{what}");
            assert!(list(&report["verdict"]["violations"]).is_empty(), "{what}");
            let taken = count(&report, "/frames/taken");
            assert_eq!(count(&report, "/frames/given_back"), taken, "{what}");
            assert_eq!((count(&report, "/frames/missing"), count(&report, "/frames/refused_frees")), (0, 0));
            let told: u64 =
                list(&report["structures"]).iter().map(|structure| count(structure, "/frames")).sum();
            assert_eq!(told, taken, "{what}");
            // 640 KiB and 15 MiB.
            assert_eq!(count(&report, "/guest/memory_frames"), 160 + 15 * 256);
            assert_eq!(count(&report, "/frames/overhead"), taken - (160 + 15 * 256));
            let fields = list(&report["vmcs"]["fields"]);
            assert_eq!(fields.len() + list(&report["vmcs"]["missing"]).len(), 210, "{what}");
            let encodings: Vec<_> = fields.iter().map(|field| hex(&field["encoding"])).collect();
            assert!(encodings.is_sorted(), "the order of Appendix B");
            // No two structures share a frame, and no structure lies in the guest's memory.
            let mut frames = BTreeSet::new();
            for structure in list(&report["structures"]).iter().filter(|s| s["name"] != "guest memory") {
                let Some(address) = structure["address"].as_str() else { continue };
                assert!(frames.insert(address.to_owned()), "{what}: {address} twice");
                let address = hex(&structure["address"]);
                for run in list(&report["guest"]["memory"]) {
                    let start = hex(&run["host"]);
                    let inside = start <= address && address < start + count(run, "/frames") * 4096;
                    assert!(!inside, "{what}: {} in the guest's memory", structure["name"]);
                }
            }
            seen.insert(taken);
        }
        assert_eq!(seen.len(), 1, "{cpu}: every backend gives as many frames: {seen:?}");
    }
}

/// The ranges of memory of a guest of this size, in bytes.
fn guest_ranges(size: u64) -> Vec<(u64, u64)> {
    let mut ranges = vec![(0, size.min(0xa_0000))];
    if size > 1 << 20 {
        ranges.push((1 << 20, size.min(3 << 30)));
    }
    if size > 3 << 30 {
        ranges.push((4 << 30, size + (1 << 30)));
    }
    ranges
}

/// The tables and the leaves (4 KiB, 2 MiB, 1 GiB) of an EPT that maps these ranges with the largest pages that fit.
fn tables_and_leaves(ranges: &[(u64, u64)], levels: u32, largest: u32) -> (usize, [u64; 3]) {
    let mut tables = BTreeSet::from([(levels, 0)]);
    let mut leaves = [0; 3];
    for &(start, end) in ranges {
        let mut at = start;
        while at < end {
            let size = |level: u32| 1_u64 << (12 + 9 * (level - 1));
            let fits = |level: &u32| at % size(*level) == 0 && end - at >= size(*level);
            let level = (1..=largest).rev().find(fits).unwrap();
            leaves[level as usize - 1] += 1;
            tables.extend((level..=levels).map(|above| (above, at >> (12 + 9 * above))));
            at += size(level);
        }
    }
    (tables.len(), leaves)
}

#[test]
fn table_frames_follow_from_the_size_by_arithmetic() {
    let dir = Dir::new("vmx-ept");
    const LOCAL_APIC: (u64, u64) = (0xfee0_0000, 0xfee0_1000);
    for (cpu, levels, largest) in
        [("sandy_bridge", 4, 2), ("skylake_x", 4, 3), ("everything", 4, 3), ("everything", 5, 3)]
    {
        for (text, size) in [
            ("64K", 64 << 10),
            ("640K", 640 << 10),
            ("3M", 3 << 20),
            ("64M", 64 << 20),
            ("2G", 2 << 30),
            ("3G", 3 << 30),
            ("5.5G", 11 << 29),
        ] {
            let levels_text = levels.to_string();
            let report = vmx(&dir, &["--cpu", cpu, "--memory", text, "--ept-levels", &levels_text]);
            let mut ranges = guest_ranges(size);
            let memory: u64 = ranges.iter().map(|(start, end)| (end - start) / 4096).sum();
            assert_eq!(count(&report, "/guest/memory_frames"), memory, "{cpu} {text}");
            ranges.push(LOCAL_APIC);
            let (tables, leaves) = tables_and_leaves(&ranges, levels, largest);
            let translation = &report["translation"];
            assert_eq!(count(translation, "/table_frames") as usize, tables, "{cpu} {text} {levels}");
            assert_eq!(count(structure(&report, "EPT"), "/frames") as usize, tables);
            let told = ["/pages_4k", "/pages_2m", "/pages_1g"].map(|pages| count(translation, pages));
            assert_eq!(told, leaves, "{cpu} {text} {levels}");
            // The EPT pointer: write-back, the walk less 1, the flags that this processor has, the root.
            let flags = if cpu == "sandy_bridge" { 0 } else { 1 << 6 };
            let root = hex(&structure(&report, "EPT")["address"]);
            let pointer = root | 6 | u64::from(levels - 1) << 3 | flags;
            assert_eq!(hex(&field(&report, 0x201a)["value"]), pointer, "{cpu} {text} {levels}");
            // What is mapped is the guest's memory, where it is in the host, and the APIC page.
            let mut mapped = BTreeMap::new();
            for run in list(&translation["mapped"]) {
                for page in 0..count(run, "/pages") {
                    let offset = page * count(run, "/page_bytes");
                    mapped.insert(
                        hex(&run["guest"]) + offset,
                        (hex(&run["host"]) + offset, count(run, "/page_bytes")),
                    );
                }
            }
            let apic = hex(&structure(&report, "APIC-access page")["address"]);
            assert_eq!(mapped.remove(&LOCAL_APIC.0), Some((apic, 4096)));
            let bytes: u64 = mapped.values().map(|(_, bytes)| bytes).sum();
            assert_eq!(bytes, memory * 4096);
            for run in list(&report["guest"]["memory"]) {
                let (guest, host) = (hex(&run["guest"]), hex(&run["host"]));
                for (page, (seen, _)) in mapped.range(guest..guest + count(run, "/frames") * 4096) {
                    assert_eq!(*seen, host + (page - guest), "{cpu} {text}: page {page:#x}");
                }
            }
        }
    }
    // By hand: levels 4, 3, 2 and one table of level 1, for the first 2 MiB; two tables for the APIC page.
    let report = vmx(&dir, &["--memory", "64M"]);
    assert_eq!(count(&report, "/translation/table_frames"), 4 + 2);
    // Without EPT: 32-bit tables of 1024 entries, and a directory.
    let report = vmx(&dir, &["--cpu", "first_generation", "--memory", "64M"]);
    assert_eq!(report["translation"]["kind"], "shadow paging");
    assert_eq!(count(&report, "/translation/table_frames"), 64 / 4 + 1);
}

#[test]
fn the_bitmaps_in_memory_have_the_bits_that_were_asked_for() {
    let dir = Dir::new("vmx-bits");
    type Ports = &'static [(usize, usize)];
    type Msrs = &'static [(usize, usize, bool, bool)];
    let cases: [(&str, Ports, &str, Msrs); 4] = [
        (
            "0x64,0x3f8-0x3ff,0xcf8-0xcff",
            &[(0x64, 0x64), (0x3f8, 0x3ff), (0xcf8, 0xcff)],
            "IA32_EFER:w,0x10:r",
            &[(0xc000_0080, 0xc000_0080, false, true), (0x10, 0x10, true, false)],
        ),
        (
            "0,0x7fff-0x8000,0x2000-0x7ff0,65535",
            &[(0, 0), (0x7fff, 0x8000), (0x2000, 0x7ff0), (0xffff, 0xffff)],
            "0,0x1fff:w,0xc0000000:r,0xc0001fff,0x174-0x176:r",
            &[
                (0, 0, true, true),
                (0x1fff, 0x1fff, false, true),
                (0xc000_0000, 0xc000_0000, true, false),
                (0xc000_1fff, 0xc000_1fff, true, true),
                (0x174, 0x176, true, false),
            ],
        ),
        (
            "all",
            &[(0, 0xffff)],
            "all:r",
            &[(0, 0x1fff, true, false), (0xc000_0000, 0xc000_1fff, true, false)],
        ),
        ("none", &[], "none", &[]),
    ];
    for (ports, port_ranges, msrs, msr_ranges) in cases {
        let report = vmx(&dir, &["--memory", "64K", "--ports", ports, "--msrs", msrs]);
        let mut expected = vec![0_u8; 2 * 4096];
        for port in port_ranges.iter().flat_map(|&(first, last)| first..=last) {
            expected[port / 8] |= 1 << (port % 8);
        }
        let told =
            [bytes(structure(&report, "I/O bitmap A")), bytes(structure(&report, "I/O bitmap B"))].concat();
        assert!(told == expected, "{ports}");
        // The list of ranges says the same as the bits.
        let mut listed = vec![0_u8; 2 * 4096];
        for run in list(&report["intercepted_ports"]) {
            for port in hex(&run["first"]) as usize..=hex(&run["last"]) as usize {
                listed[port / 8] |= 1 << (port % 8);
            }
        }
        assert!(listed == expected, "{ports}");

        let mut expected = vec![0_u8; 4096];
        for &(first, last, reads, writes) in msr_ranges {
            for msr in first..=last {
                let (high, bit) = if msr < 0x2000 { (0, msr) } else { (1024, msr - 0xc000_0000) };
                expected[high + bit / 8] |= u8::from(reads) << (bit % 8);
                expected[2048 + high + bit / 8] |= u8::from(writes) << (bit % 8);
            }
        }
        assert!(bytes(structure(&report, "MSR bitmap")) == expected, "{msrs}");
    }
}

/// The capability MSRs of a processor, from its data file.
fn msrs_of(cpu: &str) -> BTreeMap<u64, u64> {
    let file = format!("{}/../vmx-structs/data/{cpu}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    let number = |text: &str| u64::from_str_radix(&text.trim()[2..].replace('_', ""), 16).unwrap();
    let line = |line: &str| {
        let line = line.split('#').next()?;
        let (key, value) = line.strip_prefix("msr ")?.split_once('=')?;
        Some((number(key), number(value)))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn control_words_are_told_bit_by_bit_as_the_capability_msrs_say() {
    let dir = Dir::new("vmx-controls");
    for cpu in CPUS {
        let report = vmx(&dir, &["--cpu", cpu, "--memory", "64K"]);
        let msrs = msrs_of(cpu);
        let has_true = msrs[&0x480] >> 55 & 1 == 1;
        let mut words = 0;
        for (encoding, plain, true_form) in
            [(0x4000, 0x481, 0x48d), (0x4002, 0x482, 0x48e), (0x400c, 0x483, 0x48f), (0x4012, 0x484, 0x490)]
        {
            let field = field(&report, encoding);
            let value = hex(&field["value"]);
            let msr = if has_true { true_form } else { plain };
            let (must, may) = (msrs[&msr] & 0xffff_ffff, msrs[&msr] >> 32);
            let control = &field["control"];
            assert_eq!(hex(&control["capability_msr_number"]), msr, "{cpu}");
            assert_eq!((hex(&control["must_be_one"]), hex(&control["may_be_one"])), (must, may), "{cpu}");
            assert_eq!((value & must, value & !may), (must, 0), "{cpu}: an allowed value");
            let mut shown = 0;
            for bit in list(&control["bits"]) {
                let place = count(bit, "/bit");
                let is = |word: u64| word >> place & 1 == 1;
                assert_eq!(bit["value"], is(value));
                let allowed = match (is(must), is(may)) {
                    (true, _) => "only_one",
                    (false, true) => "either",
                    (false, false) => "only_zero",
                };
                assert_eq!(bit["allowed"], allowed, "{cpu}: bit {place} of {encoding:#x}");
                // On a good VM nobody set a bit by hand.
                assert!(
                    ["wanted", "forced", "unused", "unavailable"].contains(&bit["reason"].as_str().unwrap()),
                    "{bit}"
                );
                assert_eq!(bit["reason"] == "unavailable", allowed == "only_zero");
                shown |= u64::from(is(value)) << place;
            }
            assert_eq!(shown, value, "{cpu}: every bit that is 1 is shown");
            words += 1;
        }
        assert_eq!(words, 4);
    }
}

/// What `--set` must lead to.
enum Outcome {
    Error(u64),
    /// Exit reason 33 with bit 31, and the qualification.
    Exit(u64),
}

#[test]
fn a_vm_that_is_broken_on_purpose_is_refused_by_the_rule_that_it_breaks() {
    use Outcome::{Error, Exit};
    let dir = Dir::new("vmx-set");
    let cases: &[(&str, &[&str], &str, &str, Outcome)] = &[
        ("skylake_x", &["VPID=0"], "VpidNotZero", "26.2.1.1", Error(7)),
        ("skylake_x", &["EPTP|=0x80"], "EptpShadowStack", "26.2.1.1", Error(7)),
        ("skylake_x", &["EPTP^=0x7"], "EptpMemoryType", "26.2.1.1", Error(7)),
        ("skylake_x", &["Address of MSR bitmaps=0x1001"], "MsrBitmapAddress", "26.2.1.1", Error(7)),
        ("skylake_x", &["0x2003=0x100"], "IoBitmapAddress", "26.2.1.1", Error(7)),
        ("haswell", &["Pin-based VM-execution controls&=~2"], "PinControls", "26.2.1.1", Error(7)),
        (
            "haswell",
            &["Primary processor-based VM-execution controls&=~Use TPR shadow"],
            "ApicVirtualizationNeedsTprShadow",
            "26.2.1.1",
            Error(7),
        ),
        (
            "first_generation",
            &["VM-entry controls|=Entry to SMM"],
            "SmmControlsOutsideSmm",
            "26.2.1.3",
            Error(7),
        ),
        ("skylake_x", &["0x4016=0x80000201"], "InjectionVector", "26.2.1.3", Error(7)),
        ("skylake_x", &["0x4016=0x80000020"], "RflagsInterruptInjection", "26.3.1.4", Exit(0)),
        // VTPR lies in the virtual-APIC page and is 0.
        (
            "sandy_bridge",
            &[
                "TPR threshold=5",
                "Secondary processor-based VM-execution controls&=~Virtualize APIC accesses",
            ],
            "TprThresholdAboveVtpr",
            "26.2.1.1",
            Error(7),
        ),
        ("skylake_x", &["Host CS selector=0"], "HostSelectorNull", "26.2.3", Error(8)),
        ("skylake_x", &["Host CR3=0x10000000000"], "HostCr3", "26.2.2", Error(8)),
        ("core2_penryn", &["host::RIP=0x800000000000"], "Host64Rip", "26.2.4", Error(8)),
        ("skylake_x", &["Guest RFLAGS=0"], "RflagsReserved", "26.3.1.4", Exit(0)),
        ("skylake_x", &["Guest activity state=4"], "ActivityState", "26.3.1.5", Exit(0)),
        ("first_generation", &["guest::TR_ACCESS_RIGHTS|=0x10000"], "TrUsable", "26.3.1.2", Exit(0)),
        ("skylake_x", &["VMCS link pointer=0x1001"], "LinkPointerAddress", "26.3.1.5", Exit(4)),
    ];
    for (cpu, sets, rule, section, outcome) in cases {
        let mut args = vec!["--cpu", cpu, "--memory", "64K", "--host-memory", "8M"];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        let report = vmx(&dir, &args);
        let what = format!("{cpu} {sets:?}: {}", report["verdict"]);
        let verdict = &report["verdict"];
        assert_eq!(verdict["enters"], false, "{what}");
        let found = list(&verdict["violations"]).iter().find(|broken| broken["rule"] == *rule);
        assert_eq!(found.map(|broken| &broken["section"]), Some(&(*section).into()), "{what}");
        match outcome {
            Error(number) => {
                assert_eq!(count(verdict, "/instruction_error"), *number, "{what}");
                assert!(verdict["exit_reason"].is_null());
            }
            Exit(qualification) => {
                assert_eq!(hex(&verdict["exit_reason"]), 0x8000_0021, "{what}");
                assert_eq!(count(verdict, "/exit_qualification"), *qualification, "{what}");
                assert!(verdict["instruction_error"].is_null());
            }
        }
        assert_eq!(list(&report["vmcs"]["changes"]).len(), sets.len());
        // To a person it says the same.
        let text = stdout(&run(&dir, &[&["vmx"], &args[..]].concat()));
        let (rule_text, verdict_text) =
            (found.unwrap()["text"].as_str().unwrap(), verdict["text"].as_str().unwrap());
        assert!(text.contains(rule_text) && text.contains(verdict_text) && text.contains(section), "{text}");
    }
}

/// The checks that read memory find what the structures hold.
#[test]
fn a_linked_vmcs_is_read_from_memory() {
    let dir = Dir::new("vmx-link");
    // Of all backends, this one gives the same frames each time.
    let small = ["--backend", "bitmap", "--memory", "64K", "--host-memory", "8M"];
    let report = vmx(&dir, &small);
    let broken_rules = |target: &str| {
        let address = structure(&report, target)["address"].as_str().unwrap();
        let set = format!("VMCS link pointer={address}");
        let broken = vmx(&dir, &[&small[..], &["--set", &set]].concat());
        let rules = list(&broken["verdict"]["violations"]).iter();
        rules.map(|broken| broken["rule"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(broken_rules("shadow VMCS").is_empty());
    assert_eq!(broken_rules("VMCS region"), ["LinkPointerShadow", "LinkPointerCurrent"]);
    // The same revision, but no shadow-VMCS indicator; and no revision at all.
    assert_eq!(broken_rules("VMXON region"), ["LinkPointerShadow"]);
    assert_eq!(broken_rules("I/O bitmap B"), ["LinkPointerRevision", "LinkPointerShadow"]);
}

/// What is loaded last is checked last: an area of ones has reserved bits in its first entry.
#[test]
fn msrs_that_cannot_be_loaded_fail_the_entry_at_their_number() {
    let dir = Dir::new("vmx-msr-load");
    let small = ["--backend", "bitmap", "--memory", "64K", "--host-memory", "8M"];
    let report = vmx(&dir, &small);
    let ones = structure(&report, "VMREAD bitmap")["address"].as_str().unwrap();
    let area = hex(&structure(&report, "guest MSR area")["address"]);
    assert!(report["verdict"]["msr_load_failure"].is_null());
    for (address, entry) in [(ones.to_owned(), Some(1)), (format!("{:#x}", area + 16), None)] {
        let set = format!("VM-entry MSR-load address={address}");
        let report = vmx(&dir, &[&small[..], &["--set", &set]].concat());
        let verdict = &report["verdict"];
        assert_eq!(verdict["enters"], entry.is_none(), "{verdict}");
        if let Some(entry) = entry {
            assert_eq!(hex(&verdict["exit_reason"]), 0x8000_0022);
            assert_eq!(count(verdict, "/exit_qualification"), entry);
            assert_eq!(count(verdict, "/msr_load_failure/entry"), entry);
            let text = stdout(&run(&dir, &[&["vmx"], &small[..], &["--set", &set]].concat()));
            assert!(text.contains("VM exit 34") && text.contains("bits 63:32 of the entry"), "{text}");
        }
    }
}

#[test]
fn a_change_that_harms_nothing_still_enters() {
    let dir = Dir::new("vmx-harmless");
    let sets = ["--set", "TSC offset=0xfffffffffffffff0", "--set", "guest::RIP=0x1234"];
    let report = vmx(&dir, &[&["--memory", "64K"], &sets[..]].concat());
    assert_eq!(report["verdict"]["enters"], true);
    assert_eq!(hex(&field(&report, 0x2010)["value"]), 0xffff_ffff_ffff_fff0);
    assert_eq!(field(&report, 0x2010)["meaning"], "-16 is added to what RDTSC reads");
    assert_eq!(hex(&field(&report, 0x681e)["value"]), 0x1234);
}

#[test]
fn what_cannot_be_is_refused_with_what_where_and_what_to_do() {
    let dir = Dir::new("vmx-bad");
    for (args, parts) in [
        (&["--cpu", "pentium"][..], &["--cpu pentium", "first_generation", "everything"][..]),
        (&["--ports", "0x3f8-0x3ff,0x10000"], &["--ports 0x10000", "beyond 0xffff"]),
        (&["--msrs", "0x10:r", "0x2000"], &["--msrs 0x2000", "always exits", "leave it out"]),
        (&["--msrs", "0xbfffffff"], &["--msrs 0xbfffffff", "0xc0000000 to 0xc0001fff"]),
        (&["--memory", "2T"], &["--memory 2 TiB", "40 bits", "at most 1023G"]),
        (&["--memory", "64G", "--cpu", "first_generation"], &["36 bits", "at most 63G"]),
        (&["--memory", "32K"], &["need 64K"]),
        (&["--memory", "lots"], &["--memory", "is not a size"]),
        (&["--memory", "32G"], &["guest memory", "cloud-vm", "--memory", "--host-memory"]),
        // All of it is there, but only 3 GiB below 4 GiB, which is all that such a processor reaches.
        (&["--memory", "4G", "--cpu", "first_generation"], &["guest memory", "in reach of this processor"]),
        (&["--ept-levels", "5"], &["--ept-levels 5", "these have them: everything"]),
        (&["--ept-levels", "4", "--cpu", "core2_penryn"], &["--ept-levels 4", "no usable EPT", "haswell"]),
        (&["--ept-levels", "3"], &["4 or 5"]),
        (&["--backend", "slab"], &["`slab`", "percpu-tree"]),
        (&["--map", "nowhere"], &["nowhere", "cloud-vm"]),
        (&["--set", "VPID"], &["--set VPID", "FIELD=VALUE"]),
        (&["--set", "Guest CS selektor=1"], &["no VMCS field", "near it: Guest CS selector"]),
        (&["--set", "EPTP=1", "--cpu", "core2_penryn"], &["error 12", "another --cpu"]),
        (&["--set", "Exit reason=1", "--cpu", "first_generation"], &["error 13"]),
        (&["--set", "VPID=0x10000"], &["16 bits"]),
    ] {
        let error = refused(&run(&dir, &[&["vmx"], args].concat()));
        assert!(parts.iter().all(|part| error.contains(part)), "{args:?}: {error}");
    }
}

#[test]
fn without_frames_it_says_for_which_structure() {
    let dir = Dir::new("vmx-frames");
    let mut named = BTreeSet::new();
    for frames in 1..40 {
        let host = (frames * 4096).to_string();
        let output = run(&dir, &["vmx", "--memory", "64K", "--host-memory", &host, "--backend", "bitmap"]);
        if output.status.success() {
            continue;
        }
        let error = refused(&output);
        let name =
            error.split_once("cannot build the ").and_then(|(_, rest)| rest.split_once(": ")).unwrap().0;
        named.insert(name.to_owned());
    }
    for name in ["VMCS region", "I/O bitmaps", "MSR bitmap", "EPT", "guest memory"] {
        assert!(named.contains(name), "{name}: {named:?}");
    }
    let whole = run(&dir, &["vmx", "--memory", "64K", "--host-memory", "1M", "--backend", "bitmap"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
}

#[test]
fn alone_it_shows_a_whole_good_vm() {
    let dir = Dir::new("vmx-alone");
    let text = stdout(&run(&dir, &["vmx"]));
    for part in
        ["STRUCTURES", "TRANSLATION", "VMCS", "FRAMES", "VM ENTRY", "VM entry succeeds", "all came back"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The bitmap gives the same frames each time, the tree does not promise to.
    let text = stdout(&run(&dir, &["vmx", "--backend", "bitmap"]));
    let report = vmx(&dir, &["--backend", "bitmap"]);
    for field in list(&report["vmcs"]["fields"]) {
        let line = format!("  {:#06x}", hex(&field["encoding"]));
        let line = text.lines().find(|text| text.starts_with(&line)).unwrap_or_else(|| panic!("no {line}"));
        assert!(line.contains(field["name"].as_str().unwrap()), "{line}");
        assert!(line.contains(field["value"].as_str().unwrap()), "{line}");
    }
    for structure in list(&report["structures"]) {
        assert!(text.contains(structure["purpose"].as_str().unwrap()), "{structure}");
    }
    let keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "backend",
        "cpu",
        "frames",
        "guest",
        "host",
        "intercepted_msrs",
        "intercepted_ports",
        "structures",
        "translation",
        "vmcs",
        "verdict",
    ];
    assert_eq!(BTreeSet::from_iter(keys), BTreeSet::from(expected));
}

#[test]
fn the_processors_are_listed() {
    let dir = Dir::new("vmx-cpus");
    let cpus = json(&run(&dir, &["vmx", "--list-cpus", "--json"]));
    let names: Vec<_> = list(&cpus).iter().map(|cpu| cpu["id"].as_str().unwrap()).collect();
    assert_eq!(names, CPUS);
    let text = stdout(&run(&dir, &["vmx", "--list-cpus"]));
    assert!(CPUS.iter().all(|cpu| text.contains(cpu)), "{text}");
    let five: Vec<_> =
        list(&cpus).iter().filter(|cpu| list(&cpu["has"]).contains(&"5-level EPT".into())).collect();
    assert_eq!(five.len(), 1);
}

/// Lines that the book shows stand in the output, in that order.
#[test]
fn the_book_shows_real_output() {
    let dir = Dir::new("vmx-book");
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/vmx.md");
    let book = std::fs::read_to_string(book).unwrap();
    let mut shown = 0;
    for block in book.split("```console\n$ frame-lab ").skip(1) {
        let (command, lines) = block.split_once("```").unwrap().0.split_once('\n').unwrap();
        let text = stdout(&run(&dir, &command.split(' ').collect::<Vec<_>>()));
        let mut output = text.lines();
        for line in lines.lines() {
            assert!(output.any(|there| there == line), "`{command}` does not print, or not there:\n{line}");
            shown += 1;
        }
    }
    assert!(shown > 30, "{shown} lines");
}
