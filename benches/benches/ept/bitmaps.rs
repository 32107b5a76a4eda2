//! Set-up of I/O and MSR bitmaps, frames included. The peer has none.

use std::hint::black_box;

use vmx_structs::{IoBitmap, MsrBitmap};

use crate::frames::Host;

/// Names, and what is done.
pub(crate) const ROWS: &[(&str, fn())] = &[
    ("I/O bitmaps, intercept all", || drop(black_box(IoBitmap::<Host>::intercept_all().expect("frames")))),
    ("I/O bitmaps, a range of ports", || {
        let mut ports = IoBitmap::<Host>::passthrough_all().expect("frames");
        ports.set_intercept_of_range(0, 0x1_0000, true).expect("ports");
        drop(black_box(ports));
    }),
    ("MSR bitmap, intercept all", || drop(black_box(MsrBitmap::<Host>::intercept_all().expect("a frame")))),
    ("MSR bitmap, 64 MSRs through", || {
        let mut msrs = MsrBitmap::<Host>::intercept_all().expect("a frame");
        for msr in 0xc000_0080..0xc000_00c0 {
            msrs.set_read_intercept(msr, false).expect("in range");
            msrs.set_write_intercept(msr, false).expect("in range");
        }
        drop(black_box(msrs));
    }),
];
