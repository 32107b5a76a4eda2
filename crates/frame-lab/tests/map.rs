//! `frame-lab map` and `frame-lab record`, from the outside.

mod common;

use common::*;

#[test]
fn the_frames_that_linux_counted() {
    let dir = Dir::new("map");
    for (map, frames) in [
        ("amd-desktop-uefi", 4_181_773),
        ("cloud-vm", 6_291_358),
        ("qemu-q35-seabios", 4_194_172),
        ("vmware-bios", 1_048_429),
    ] {
        let json = json(&run(&dir, &["map", map, "--json"]));
        assert_eq!((count(&json, "/frames"), count(&json, "/linux_frames")), (frames, frames));
        let ranges = json["ranges"].as_array().unwrap();
        assert_eq!(ranges.iter().map(|range| count(range, "/frames")).sum::<u64>(), frames);
        let usable = json["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "usable");
        let lost: u64 = usable.clone().map(|entry| count(entry, "/lost_bytes")).sum();
        let bytes: u64 = usable.map(|entry| count(entry, "/last") - count(entry, "/first") + 1).sum();
        assert_eq!(bytes - lost, frames * 4096, "every byte of {map} is handed out or told to be lost");
        let metadata = json["metadata"].as_array().unwrap();
        let names: Vec<_> = metadata.iter().map(|m| m["backend"].as_str().unwrap()).collect();
        assert_eq!(names, BACKENDS);
        assert!(metadata.iter().all(|m| m["bytes"].as_u64().is_some_and(|bytes| bytes > 0)), "{metadata:?}");

        let text = stdout(&run(&dir, &["map", map]));
        assert!(text.contains("Linux counts the same") && text.contains("hole"), "{text}");
    }
}

#[test]
fn a_kernel_log_is_a_map() {
    let dir = Dir::new("log");
    let log = dir.file(
        "dmesg",
        "[    0.000000] Linux version 6.18\n\
         [    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\n\
         [    0.000000] BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved\n\
         [    0.000000] BIOS-e820: [mem 0x0000000000100000-0x00000000002fffff] usable\n",
    );
    let json = json(&run(&dir, &["map", &log, "--json"]));
    assert_eq!((count(&json, "/frames"), count(&json, "/frames_2m")), (158 + 512, 0));
    assert!(json["linux_frames"].is_null());
    assert!(json["lines_not_understood"][0].as_str().unwrap().starts_with("line 1: "));
}

#[test]
fn what_is_no_map_is_refused() {
    let dir = Dir::new("nomap");
    let missing = refused(&run(&dir, &["map", "nowhere"]));
    assert!(missing.contains("No such file") && missing.contains("vmware-bios"), "{missing}");
    for (name, text) in [("empty", ""), ("prose", "hello\n"), ("nothing", "0x0-0xfff usable\n")] {
        let file = dir.file(name, text);
        let error = refused(&run(&dir, &["map", &file]));
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn record_tells_the_commands() {
    let dir = Dir::new("record");
    let text = stdout(&run(&dir, &["record"]));
    for command in
        ["perf record -a", "perf script -i frames.perf -F cpu,time,event,trace", "dmesg | grep BIOS-e820"]
    {
        assert!(text.contains(command), "{text}");
    }
}
