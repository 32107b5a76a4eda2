//! `frame-lab compare`, from the outside.

mod common;

use std::{fs, path::PathBuf};

use common::*;
use serde_json::Value;

/// Checks what must hold of every comparison in which no allocation failed; `total` and `live` in frames.
fn check_backends(json: &Value, names: &[&str], total: u64, live: u64) {
    let backends = json["backends"].as_array().unwrap();
    let found: Vec<_> = backends.iter().map(|b| b["backend"].as_str().unwrap()).collect();
    assert_eq!(found, names);
    assert_eq!(json["free_frames_agree"], true);
    for backend in backends {
        for nothing in ["failures", "lost_frames", "doubled_frames", "refused_frees"] {
            assert_eq!(backend[nothing], 0, "{nothing}: {backend}");
        }
        assert_eq!(
            (count(backend, "/total_frames"), count(backend, "/free_frames_end")),
            (total, total - live)
        );
        let (end, lowest) = (count(backend, "/free_2m_end"), count(backend, "/free_2m_lowest"));
        assert!(lowest <= end && end <= count(json, "/memory/frames_2m"), "{backend}");
        // No packing is better than perfect.
        let peak = count(json, "/trace/peak_live_frames");
        assert!(lowest * 512 <= total - peak && end * 512 <= total - live, "{backend}");
        let fragmented = 1.0 - (end * 512) as f64 / (total - live) as f64;
        assert!((backend["fragmentation_end"].as_f64().unwrap() - fragmented).abs() < 1e-9, "{backend}");
        // The same, seen by the backend itself: its free runs sum up to the free frames and the huge ones.
        let runs: Vec<u64> = (0..19).map(|o| count(backend, &format!("/free_runs_by_order/{o}"))).collect();
        let frames: u64 = runs.iter().enumerate().map(|(order, n)| n << order).sum();
        let huge: u64 = (9..19).map(|order| runs[order] << (order - 9)).sum();
        assert_eq!((frames, huge), (total - live, end), "{backend}");
        assert!(count(backend, "/longest_free_run_frames") >= 512);
        // A VM was built beside the live memory: 64 MiB less the hole, its tables, and what the processor reads.
        let vm = &backend["vm"];
        assert!(vm["error"].is_null(), "{vm}");
        let parts = vm["structures"].as_array().unwrap();
        let frames =
            |name: &str| parts.iter().filter(|p| p["name"] == name).map(|p| count(p, "/frames")).sum::<u64>();
        assert_eq!((frames("guest RAM"), frames("VMCS"), frames("I/O bitmaps")), (160 + 63 * 256, 1, 2));
        assert_eq!(count(vm, "/pages_4k") + 512 * count(vm, "/pages_2m"), 160 + 63 * 256);
        let taken: u64 = parts.iter().map(|part| count(part, "/frames")).sum();
        assert_eq!((count(vm, "/frames_taken"), count(vm, "/frames_given_back")), (taken, taken));
        assert_eq!((count(vm, "/refused_frees"), vm["frames_missing"].as_i64()), (0, Some(0)));
        assert!(backend["ops_per_second"].as_f64().unwrap() > 0.0);
        assert!(count(backend, "/metadata_bytes") > 0);
    }
}

#[test]
fn the_embedded_trace_on_every_backend() {
    let dir = Dir::new("embedded");
    let json = json(&run(&dir, &["compare", "--json", "--passes", "1", "--threads"]));
    let trace = &json["trace"];
    assert_eq!((count(trace, "/events"), count(trace, "/lines_not_understood")), (200_000, 0));
    assert_eq!((count(trace, "/allocations"), count(trace, "/frees")), (100_652, 99_348));
    assert_eq!((count(trace, "/skipped_frees"), count(trace, "/reallocated")), (28_337, 0));
    assert_eq!(count(&json, "/operations"), 200_000 - 28_337);
    assert_eq!(count(&json, "/memory/frames"), 6_291_358);
    check_backends(&json, &BACKENDS, 6_291_358, 37_166);
    for with in json["backends"].as_array().unwrap().iter().map(|backend| &backend["with_threads"]) {
        assert_eq!((count(with, "/threads"), count(with, "/failures")), (2, 0));
        assert_eq!((count(with, "/refused_frees"), count(with, "/miscounted_frames")), (0, 0));
        assert!(with["ops_per_second"].as_f64().unwrap() > 0.0);
    }
    // Only --report writes one then.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_whole_shared_trace_on_every_backend() {
    let Some(trace) = shared_trace() else {
        eprintln!(
            "SKIPPED: the shared trace is not there (set FRAME_SHARED_DATA to the directory that holds it)"
        );
        return;
    };
    let dir = Dir::new("whole");
    let json = json(&run(&dir, &["compare", "--json", "--passes", "1", "--trace", trace.to_str().unwrap()]));
    let trace = &json["trace"];
    assert_eq!(count(trace, "/events"), 832_432);
    assert_eq!((count(trace, "/allocations"), count(trace, "/frees")), (382_066, 450_366));
    let orders: Vec<u64> =
        (0..19).map(|order| count(trace, &format!("/allocations_by_order/{order}"))).collect();
    assert_eq!(orders[..10], [377_746, 1_910, 454, 727, 751, 395, 23, 18, 10, 32]);
    assert_eq!(orders[10..], [0; 9]);
    assert_eq!((count(trace, "/skipped_frees"), count(trace, "/reallocated")), (96_424, 4_109));
    assert_eq!((count(trace, "/cpus"), count(trace, "/lines_not_understood")), (2, 0));
    assert_eq!(count(trace, "/peak_live_frames") >> 8, 223); // MiB
    check_backends(&json, &BACKENDS, 6_291_358, count(trace, "/live_frames_end"));
}

/// The whole trace, of which a cut is embedded.
fn shared_trace() -> Option<PathBuf> {
    let dir = std::env::var_os("FRAME_SHARED_DATA").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    Some(dir.join("linux-6.18-build.kmem.txt.zst")).filter(|trace| trace.is_file())
}

#[test]
fn every_map_by_name_and_as_a_file() {
    let dir = Dir::new("maps");
    let trace = dir.file("t", "kmem:mm_page_alloc: pfn=0x10 order=3\n");
    for (map, frames) in [
        ("amd-desktop-uefi", 4_181_773),
        ("cloud-vm", 6_291_358),
        ("qemu-q35-seabios", 4_194_172),
        ("vmware-bios", 1_048_429),
    ] {
        let args = ["compare", "--json", "--passes", "1", "--trace", &trace, "--map", map];
        check_backends(&json(&run(&dir, &args)), &BACKENDS, frames, 8);
    }
    let map = dir.file("map", "0x100800-0x80fffff usable\n");
    let args = ["compare", "--json", "--passes", "1", "--trace", &trace, "--map", &map];
    check_backends(&json(&run(&dir, &args)), &BACKENDS, 0x7fff, 8);
}

#[test]
fn a_ragged_trace_is_replayed_and_its_odd_lines_are_shown() {
    let dir = Dir::new("ragged");
    let trace = dir.file(
        "ragged.txt",
        "# perf script\r\n\
         cc1  77 [001]  1.000001: kmem:mm_page_alloc: page=0xffffea0000040000 pfn=0x1000 order=9 migratetype=1\r\n\
         cc1  77 [001]  1.000002: kmem:mm_page_al\r\n\
         cc1  77 [000]  1.000003: kmem:kmalloc: call_site=0 ptr=0 bytes_req=8\r\n\
         cc1  77 [000]  1.000004: kmem:mm_page_free: page=0xffffea0000040000 pfn=0x1000 order=9\r\n\
         <b>\u{1b}[31m</b>\r\n\
         cc1  77 [000]  1.000005: kmem:mm_page_alloc: page=0x1 pfn=0x10",
    );
    let args = ["compare", "--trace", &trace, "--backends", "percpu-tree, buddy,buddy", "--passes", "1"];
    let output = run(&dir, &[&args[..], &["--json", "--report", "r.html"]].concat());
    let json = json(&output);
    assert_eq!((count(&json, "/trace/lines"), count(&json, "/trace/events")), (7, 2));
    assert_eq!(count(&json, "/trace/lines_not_understood"), 3);
    let shown = json["trace"]["first_lines_not_understood"].as_array().unwrap();
    for (line, number) in shown.iter().zip([3, 6, 7]) {
        assert!(line.as_str().unwrap().starts_with(&format!("line {number}: ")), "{line}");
    }
    check_backends(&json, &["percpu-tree", "buddy"], 6_291_358, 0);
    assert!(stderr(&output).contains("r.html"));
    let report = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(report.contains("&lt;b&gt;\u{fffd}[31m") && !report.contains("<b>\u{1b}"));

    let text = stdout(&run(&dir, &args));
    assert!(text.contains("3 lines were not understood") && text.contains("line 6: "), "{text}");
    assert!(!text.contains('\u{1b}'));

    let piped = run_with_stdin(&dir, &["compare", "--trace", "-", "--json", "--passes", "1"], &trace);
    assert_eq!(count(&common::json(&piped), "/trace/events"), 2);
}

#[test]
fn what_is_no_trace_is_refused() {
    let dir = Dir::new("refused");
    let cut =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/data/linux-6.18-build.cut.kmem.txt.zst")).unwrap();
    let files: [(&str, &[u8], &str); 7] = [
        ("empty", b"", "the trace is empty"),
        ("blank", b"\n\n", "none of its 2 lines"),
        (
            "prose.txt",
            b"Dear diary,\ntoday I recorded nothing.\n",
            "line 1: no page allocation or free on this line: Dear diary,",
        ),
        ("perf.data", b"PERFILE2\x68\0\0\0\0\0", "perf script"),
        ("trace.gz", b"\x1f\x8b\x08\0\0\0\0\0\0", "gzip -dc"),
        ("cut-short.zst", &cut[..cut.len() * 2 / 3], "cut short or damaged"),
        ("magic.zst", &cut[..4], "cut short or damaged"),
    ];
    for (name, contents, message) in files {
        let file = dir.file(name, contents);
        let error = refused(&run(&dir, &["compare", "--trace", &file]));
        assert!(error.starts_with("error: ") && error.contains(message) && error.contains(name), "{error}");
    }
    assert!(refused(&run(&dir, &["compare", "--trace", "nowhere"])).contains("nowhere: No such file"));
    let unknown = refused(&run(&dir, &["compare", "--backends", "tree,slab"]));
    assert!(BACKENDS.iter().all(|name| unknown.contains(name)) && unknown.contains("`slab`"), "{unknown}");
    assert!(refused(&run(&dir, &["compare", "--backends", ","])).contains("no backend is named"));
    assert!(refused(&run(&dir, &["compare", "--memory", "lots"])).contains("not a size"));
    assert!(refused(&run(&dir, &["compare", "--passes", "0"])).contains("--passes"));
    let map = dir.file("map", "0x0-0xfff usable\n");
    assert!(refused(&run(&dir, &["compare", "--map", &map])).contains("no usable frame"));
    let report =
        run(&dir, &["compare", "--passes", "1", "--backends", "tree", "--report", "/nonexistent/r.html"]);
    assert_eq!(report.status.code(), Some(2));
    assert!(stderr(&report).contains("/nonexistent/r.html"));
}

#[test]
fn the_report_stands_alone() {
    let dir = Dir::new("report");
    let output = run(&dir, &["compare", "--passes", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).is_empty(), "progress is for terminals: {}", stderr(&output));
    let text = stdout(&output);
    let path = text.lines().last().unwrap().rsplit(": ").next().unwrap();
    assert!(PathBuf::from(path).is_absolute() && path.ends_with("frame-lab-report.html"), "{text}");
    let html = fs::read_to_string(path).unwrap();
    assert!(BACKENDS.iter().all(|name| text.contains(name) && html.contains(name)));
    for elsewhere in ["http:", "https:", "<script", "src=", "@import", "url(", "<link"] {
        assert!(!html.contains(elsewhere), "{elsewhere}");
    }
    assert!(html.contains("prefers-color-scheme: dark"));
    // Three charts, and two pictures of each backend.
    assert_eq!((html.matches("<svg").count(), html.matches("</svg>").count()), (15, 15));
    assert!(!html.contains("NaN") && !html.contains("inf "));
    for tag in ["figure", "div", "table", "tr", "td", "g", "p", "h2", "dl", "title"] {
        // `<p` opens `<path>`, too.
        let opens = |at: usize| !html[at + 1 + tag.len()..].starts_with(|c: char| c.is_ascii_alphanumeric());
        let opened = html.match_indices(&format!("<{tag}")).filter(|&(at, _)| opens(at)).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(html.len() < 1 << 20, "{} bytes", html.len());
}

#[test]
fn memory_that_runs_out_is_a_failure_of_allocations_and_not_of_accounts() {
    let dir = Dir::new("short");
    let output = json(&run(&dir, &["compare", "--json", "--passes", "1", "--memory", "100M"]));
    for backend in output["backends"].as_array().unwrap() {
        assert!(count(backend, "/failures") > 1000, "{backend}");
        assert_eq!(count(backend, "/free_2m_lowest"), 0);
        for nothing in ["lost_frames", "doubled_frames", "refused_frees"] {
            assert_eq!(backend[nothing], 0, "{backend}");
        }
        assert!(backend["vm"]["error"].is_string(), "no room for 64 MiB: {backend}");
        assert_eq!(count(backend, "/vm/frames_taken"), count(backend, "/vm/frames_given_back"));
    }
    assert_eq!(count(&output, "/memory/frames"), 25_600);
}
