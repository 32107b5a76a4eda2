//! `frame-lab record`: how to record one's own machine.

use std::io::{self, Write};

use crate::Outcome;

const HOW: &str = "\
Record what your own Linux machine asks its page allocator for, and replay that here.

1. Get perf:            Debian: apt install linux-perf      Ubuntu: apt install linux-tools-generic
2. Record 40 seconds of all CPUs, as root, while the machine does what you care about:

     perf record -a -m 16M -e kmem:mm_page_alloc,kmem:mm_page_free -o frames.perf -- sleep 40

   A busy machine makes some 20,000 events a second (3 MB). If perf says that events were lost, raise -m.
   To see a workload of its own, put its command in place of `sleep 40`.
3. Make text of it (and pack it, if you like: it shrinks to a twentieth):

     perf script -i frames.perf -F cpu,time,event,trace > frames.txt
     zstd -19 frames.txt

4. Take the firmware's memory map, as root:

     dmesg | grep BIOS-e820 > e820.txt

   If the log has forgotten the boot: journalctl -k -b | grep BIOS-e820. Look at it: frame-lab map e820.txt
5. Compare:

     frame-lab compare --trace frames.txt.zst --map e820.txt

Without perf, the kernel's own tracing gives the same lines:

     cd /sys/kernel/tracing
     echo 1 > events/kmem/mm_page_alloc/enable; echo 1 > events/kmem/mm_page_free/enable
     timeout 40 cat trace_pipe > /tmp/frames.txt
     echo 0 > events/kmem/enable

What is read: the CPU, the time, pfn and order of mm_page_alloc and mm_page_free. Other events and comments are
passed over; lines that are not understood are counted and shown. A trace holds frame numbers and times, the names
of commands if you print them (-F comm), and no contents of memory.
";

pub(crate) fn run() -> Outcome {
    io::stdout().write_all(HOW.as_bytes())?;
    Ok(Vec::new())
}
