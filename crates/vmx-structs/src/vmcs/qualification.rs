//! Exit qualifications, decoded (SDM 27.2.1): I/O instructions and control-register accesses. That of an EPT violation is an
//! [`EptQualification`](crate::EptQualification).

/// The qualification of an I/O-instruction exit (reason 30, SDM Table 27-5).
///
/// ```
/// use vmx_structs::vmcs::IoQualification;
///
/// let io = IoQualification::from_raw(0x3f8_0048); // inb from port 0x3f8 by DX
/// assert_eq!((io.port(), io.size(), io.is_in(), io.is_string()), (0x3f8, 1, true, false));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoQualification(u64);

impl IoQualification {
    /// From the exit qualification.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Size of the access in bytes: 1, 2 or 4 (bits 2:0; other values do not occur, and give one more than they hold).
    pub const fn size(self) -> u32 {
        (self.0 as u32 & 7) + 1
    }

    /// Whether it is IN or INS, not OUT or OUTS (bit 3).
    pub const fn is_in(self) -> bool {
        self.0 >> 3 & 1 == 1
    }

    /// Whether it is INS or OUTS (bit 4).
    pub const fn is_string(self) -> bool {
        self.0 >> 4 & 1 == 1
    }

    /// Whether it has a REP prefix (bit 5).
    pub const fn is_repeated(self) -> bool {
        self.0 >> 5 & 1 == 1
    }

    /// Whether the port is an immediate operand, not DX (bit 6).
    pub const fn is_immediate(self) -> bool {
        self.0 >> 6 & 1 == 1
    }

    /// The port (bits 31:16).
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// A general-purpose register, by its number in instructions: 0 RAX, 1 RCX, 2 RDX, 3 RBX, 4 RSP, 5 RBP, 6 RSI, 7 RDI,
/// then R8 to R15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gpr(u8);

impl Gpr {
    /// By its number, of which the low 4 bits count.
    pub const fn from_number(number: u8) -> Self {
        Self(number & 0xf)
    }

    /// Its number, 0 to 15.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The qualification of a control-register exit (reason 28, SDM Table 27-3).
///
/// ```
/// use vmx_structs::vmcs::{CrAccess, Gpr};
///
/// assert_eq!(CrAccess::from_raw(0x003), CrAccess::MovTo { register: 3, source: Gpr::from_number(0) });
/// assert_eq!(CrAccess::from_raw(0x020), CrAccess::Clts);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrAccess {
    /// MOV to CR0, CR3, CR4 or CR8.
    MovTo {
        /// The control register.
        register: u8,
        /// Where the value is.
        source: Gpr,
    },
    /// MOV from CR3 or CR8.
    MovFrom {
        /// The control register.
        register: u8,
        /// Where the value goes.
        destination: Gpr,
    },
    /// CLTS.
    Clts,
    /// LMSW.
    Lmsw {
        /// The 16-bit operand.
        value: u16,
        /// Whether it came from memory; its address is in the guest-linear-address field.
        from_memory: bool,
    },
}

impl CrAccess {
    /// From the exit qualification.
    pub const fn from_raw(raw: u64) -> Self {
        let register = raw as u8 & 0xf;
        let general = Gpr::from_number((raw >> 8) as u8);
        match raw >> 4 & 3 {
            0 => Self::MovTo { register, source: general },
            1 => Self::MovFrom { register, destination: general },
            2 => Self::Clts,
            _ => Self::Lmsw { value: (raw >> 16) as u16, from_memory: raw >> 6 & 1 == 1 },
        }
    }
}
