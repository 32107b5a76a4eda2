//! The faults: what is wrong, where it is put, who must find it, and by what it must show.

/// Who must find a fault.
#[derive(Clone, Copy)]
pub(super) enum Judge {
    /// The kernel in QEMU, on 4 CPUs, with this backend. A race is a matter of luck: as many boots as this, until one
    /// finds it.
    Kernel(&'static str, usize),
    /// The kernel in QEMU on a firmware map full of holes.
    Holes,
    /// The hypervisor in Bochs, on one CPU.
    Hypervisor,
    /// The comparison of software and processor, in Bochs, on one CPU.
    Proof,
    /// The disk driver in QEMU, and the comparison of the disk.
    Virtio,
}

impl Judge {
    /// Whether it is the same program.
    pub(super) fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// A fault: `right` stands once in `file`, and becomes `wrong`.
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) file: &'static str,
    pub(super) right: &'static str,
    pub(super) wrong: &'static str,
    pub(super) judge: Judge,
    /// One of these is in what the machine's failure says: a fault that is found by accident, by something that has nothing
    /// to do with it, is not found. Nothing: a fault of this kind may show anyhow.
    pub(super) shows: &'static [&'static str],
    /// Whether the machine may hang by it.
    pub(super) hangs: bool,
}

impl Fault {
    const fn new(judge: Judge, what: &'static str, file: &'static str) -> Self {
        Self { what, file, right: "", wrong: "", judge, shows: &[], hangs: false }
    }

    const fn turns(self, right: &'static str, wrong: &'static str) -> Self {
        Self { right, wrong, ..self }
    }

    const fn shows(self, shows: &'static [&'static str]) -> Self {
        Self { shows, ..self }
    }

    const fn hangs(self) -> Self {
        Self { hangs: true, ..self }
    }

    /// Whether the machine failed by this fault, if it failed so.
    pub(super) fn is_shown_by(&self, why: &str) -> bool {
        self.shows.is_empty() || self.shows.iter().any(|text| why.contains(text))
    }
}

use Judge::{Holes, Hypervisor, Kernel, Proof, Virtio};

#[rustfmt::skip]
pub(super) const FAULTS: &[Fault] = &[
    // Allocators, and what stands on them.
    Fault::new(Kernel("tree", 10), "a racy allocator: a frame is taken by a load and a store", "crates/frame-tree/src/block.rs")
        .turns("match row.compare_exchange_weak(free, free & (free - 1), AcqRel, Relaxed) {",
               "match { row.store(free & (free - 1), Relaxed); Ok::<u64, u64>(free) } {"),
    Fault::new(Kernel("tree", 1), "a reused frame: one of some thousands is handed out and stays free", "crates/frame-tree/src/block.rs")
        .turns("match row.compare_exchange_weak(free, free & (free - 1), AcqRel, Relaxed) {",
               "static COUNT: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);\n            \
                let keep = if COUNT.fetch_add(1, Relaxed) % 4096 == 99 { !0 } else { free - 1 };\n            \
                match row.compare_exchange_weak(free, free & keep, AcqRel, Relaxed) {")
        .shows(&["frames until there is none", "NotFree"]),
    Fault::new(Kernel("percpu-tree", 3), "an interrupt works on the slot of the code that it interrupts", "crates/frame-percpu/src/slot/mod.rs")
        .turns("if self.busy.load(Relaxed) {\n            return None;\n        }\n        self.busy.store(true, Relaxed);",
               "self.busy.store(true, Relaxed);")
        .hangs(),
    Fault::new(Kernel("bitmap", 10), "a lock that two CPUs can hold", "examples/kernel/src/irq_lock.rs")
        .turns("if self.locked.swap(true, Ordering::Acquire) {", "if self.locked.swap(true, Ordering::Acquire) && were_on {")
        .hangs(),
    Fault::new(Kernel("buddy", 3), "a lock that leaves interrupts on", "examples/kernel/src/irq_lock.rs")
        .turns("interrupts::disable();\n        if self.locked", "if self.locked")
        .shows(&["no end after"])
        .hangs(),
    Fault::new(Kernel("bitmap", 1), "an alignment that is passed over", "crates/frame-bitmap/src/bitmap.rs")
        .turns("self.books.lock().alloc(layout.count(), layout.align() / FRAME_SIZE).map(address)",
               "self.books.lock().alloc(layout.count(), 1).map(address)")
        .shows(&["Misaligned"]),
    Fault::new(Kernel("buddy", 1), "a double free that is taken", "crates/frame-buddy/src/books.rs")
        .turns("if !region.put(frame, true) {", "if !region.put(frame, true) && false {")
        .shows(&["a double free"]),
    Fault::new(Holes, "a frame that is usable in part counts", "crates/frame-core/src/memory_map.rs")
        .turns("map_or(TOP, |end| (end & !MASK).min(TOP));", "map_or(TOP, |end| ((end + MASK) & !MASK).min(TOP));")
        .shows(&["the kernel's map is wrong"]),
    Fault::new(Kernel("tree", 1), "memory for the books that is handed out as well", "crates/frame-core/src/early.rs")
        .turns("place.size() as u64)\n", "0)\n"),
    Fault::new(Kernel("tree", 1), "a zeroed frame that is not zeroed", "crates/frame-core/src/frame.rs")
        .turns("let mut frame = Self::alloc()?;\n        frame.fill(0);\n        Ok(frame)", "Self::alloc()")
        .shows(&["a frame of zeroes"]),
    Fault::new(Kernel("tree", 1), "a run cut in two parts of which one owns the other's frames", "crates/frame-core/src/frames.rs")
        .turns("Ok(unsafe { (Self::from_raw(head), Self::from_raw(tail)) })",
               "Ok(unsafe { (Self::from_raw(head), Self::from_raw(FrameRange::new(head.start(), tail.count()).unwrap())) })")
        .shows(&["raii.rs"]),
    Fault::new(Kernel("percpu-tree", 1), "a CPU that is asked for its cached frames and does not hear it", "examples/kernel/src/memory.rs")
        .turns("apic::send(smp::apic_id(cpu.0), DRAIN);", "let _ = (cpu, apic::send);")
        .shows(&["frames until there is none"]),
    Fault::new(Kernel("tree", 1), "a heap that cuts one block too many from a frame", "examples/kernel/src/heap.rs")
        .turns("if block + size < start + FRAME_SIZE { block + size }", "if block + size <= start + FRAME_SIZE { block + size }"),
    Fault::new(Virtio, "DMA memory that is not zeroed", "crates/frame-allocator/src/adapters/virtio_drivers.rs")
        .turns("PhysFrames::<H>::alloc_zero(layout)", "PhysFrames::<H>::alloc(layout)")
        .shows(&["pages are zeroed"]),
    Fault::new(Virtio, "a sector that is written to the place of its neighbour", "examples/virtio/src/requests.rs")
        .turns("disk.write_blocks(range.start, sectors)", "disk.write_blocks(range.start ^ usize::from(range.len() == 7), sectors)")
        .shows(&["all is as it was left", "byte 0x"]),

    // VMX structures, as a guest meets them.
    Fault::new(Hypervisor, "the I/O bitmap is off by one bit", "crates/vmx-structs/src/bits.rs")
        .turns("let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));",
               "let (first, last) = (first + 1, last + 1);\n    \
                let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));")
        .shows(&["IoQualification(800040)"]),
    Fault::new(Hypervisor, "the MSR bitmap's quarters are in the wrong order", "crates/vmx-structs/src/msr_bitmap.rs")
        .turns("if high { base + QUARTER } else { base }", "if high { base } else { base + QUARTER }")
        .shows(&["(WRMSR)", "(RDMSR)"]),
    Fault::new(Hypervisor, "a wrong revision identifier", "crates/vmx-structs/src/region.rs")
        .turns("let word = if shadow { revision | SHADOW } else { revision };", "let word = if shadow { revision | SHADOW } else { revision ^ 1 };")
        .shows(&["Err(Invalid)"]),
    Fault::new(Hypervisor, "page tables that are not cleared", "crates/frame-core/src/table/mod.rs")
        .turns("for i in 0..WORDS {\n            // SAFETY: the frame is writable and frame-aligned",
               "for i in 0..0 {\n            // SAFETY: the frame is writable and frame-aligned"),
    Fault::new(Hypervisor, "guest memory that holds what its last owner left", "crates/vmx-structs/src/guest_memory/mod.rs")
        .turns("if contents == Contents::Zeroed {", "if contents == Contents::Zeroed && false {")
        .shows(&["what the guest said"]),

    // What the software says, beside what the processor does.
    Fault::new(Proof, "VM entry takes a VPID of 0, say the checks", "crates/vmx-structs/src/checks/controls.rs")
        .turns("self.require(self.get(control::VPID) != 0, Rule::VpidNotZero, control::VPID);",
               "self.require(true, Rule::VpidNotZero, control::VPID);")
        .shows(&["VM entry"]),
    Fault::new(Proof, "the host's selectors may name the LDT, say the checks", "crates/vmx-structs/src/checks/host_state.rs")
        .turns("self.require(self.get(field) & 7 == 0,", "self.require(self.get(field) & 3 == 0,")
        .shows(&["VM entry"]),
    Fault::new(Proof, "a stack may be read-only, say the checks", "crates/vmx-structs/src/checks/guest_segments.rs")
        .turns("matches!(ss.segment_type(), 3 | 7)", "matches!(ss.segment_type(), 1 | 3 | 7)")
        .shows(&["VM entry"]),
    Fault::new(Proof, "CR3 may have a bit beyond the physical-address width, say the checks", "crates/vmx-structs/src/checks/guest_registers.rs")
        .turns("self.require(holds, Rule::GuestCr3, guest::CR3);", "self.require(holds || true, Rule::GuestCr3, guest::CR3);")
        .shows(&["VM entry"]),
    Fault::new(Proof, "any VMCS is a shadow VMCS, say the checks", "crates/vmx-structs/src/checks/guest_state.rs")
        .turns("self.require((header >> 31 & 1 == 1) == shadowing,", "self.require(shadowing || header >> 32 == 0,")
        .shows(&["VM entry"]),
    Fault::new(Proof, "the walk passes over a reserved bit of an entry that points to a table", "crates/vmx-structs/src/ept/walk.rs")
        .turns("None => 0x78 | LARGE,", "None => 0x70 | LARGE,")
        .shows(&["EPT"]),
    Fault::new(Proof, "bitmaps are off by one bit, and read as they are written", "crates/vmx-structs/src/bits.rs")
        .turns("let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));",
               "let (first, last) = (first ^ 1, last ^ 1);\n    \
                let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));")
        .shows(&["shadow VMCS", "MSR bitmap", "I/O bitmaps"]),
    Fault::new(Proof, "the register of a control-register exit is read from the wrong bits", "crates/vmx-structs/src/vmcs/qualification.rs")
        .turns("Gpr::from_number((raw >> 8) as u8)", "Gpr::from_number((raw >> 9) as u8)")
        .shows(&["exits, decoded"]),
    Fault::new(Proof, "sub-pages are numbered from the other end", "crates/vmx-structs/src/spp.rs")
        .turns("u64::from(writable >> i & 1) << (2 * i))", "u64::from(writable >> i & 1) << (62 - 2 * i))")
        .shows(&["sub-page writes"]),
    Fault::new(Proof, "an access that wraps past port 0xffff runs, says the bitmap", "crates/vmx-structs/src/io_bitmap.rs")
        .turns("port.checked_add(i).is_none_or(|port| self.intercepts(port))", "port.checked_add(i).is_some_and(|port| self.intercepts(port))")
        .shows(&["I/O bitmaps"]),
    Fault::new(Proof, "an access to two ports is judged by the first, says the bitmap", "crates/vmx-structs/src/io_bitmap.rs")
        .turns("(0..width.bytes()).any(", "(0..width.bytes().min(1)).any(")
        .shows(&["I/O bitmaps"]),
    Fault::new(Proof, "an MSR without a bit runs, says the bitmap", "crates/vmx-structs/src/msr_bitmap.rs")
        .turns("place(msr).is_none_or(|(high, i)| {", "place(msr).is_some_and(|(high, i)| {")
        .shows(&["MSR bitmap"]),
    Fault::new(Proof, "an MSR area takes the last MSR of the x2APIC", "crates/vmx-structs/src/msr_area.rs")
        .turns("0x800..=0x8ff", "0x800..=0x8fe")
        .shows(&["MSR areas"]),
    Fault::new(Proof, "an operand of more than 15 bits does not exit, says the bitmap of a shadow VMCS", "crates/vmx-structs/src/field_bitmap.rs")
        .turns("operand >= u64::from(ENCODINGS) || bits::get(&*self.bits, operand as usize)",
               "operand < u64::from(ENCODINGS) && bits::get(&*self.bits, operand as usize)")
        .shows(&["shadow VMCS"]),
    Fault::new(Proof, "the list of EPT pointers goes on past its end", "crates/vmx-structs/src/eptp_list.rs")
        .turns("self.entries.get(index).ok_or", "self.entries.get(index % 512).ok_or")
        .shows(&["EPTP switching"]),
    Fault::new(Proof, "the log of dirty pages has an entry more", "crates/vmx-structs/src/pml.rs")
        .turns("index >= ENTRIES\n", "index > ENTRIES && index != 0xffff\n")
        .shows(&["dirty logging"]),
    Fault::new(Proof, "a virtualization exception comes though the area is in use", "crates/vmx-structs/src/ve_area.rs")
        .turns("if self.is_busy() || !violation.convertible {", "if !violation.convertible {")
        .shows(&["virtualization exceptions"]),
];
