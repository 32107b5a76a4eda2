//! An access of the guest, as far as EPT looks at it: what it does, and where its address comes from.

/// An access to a guest-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EptAccess {
    /// It reads data.
    pub read: bool,
    /// It writes data.
    pub write: bool,
    /// It fetches an instruction.
    pub fetch: bool,
    /// It comes from a linear address, and what the guest's paging says of it; `None` for an access without one (by
    /// processor trace, or a load of PDPTEs).
    pub linear: Option<GuestPaging>,
    /// It is to an entry of the guest's paging structures, on the way to the translation of `linear`.
    pub paging_structure: bool,
    /// It comes with NMIs unblocked by IRET.
    pub nmi_unblocking: bool,
}

/// What the guest's own paging says of a linear address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestPaging {
    /// It is a user-mode address (U/S is 1 in every entry).
    pub user: bool,
    /// It may be written (R/W is 1 in every entry).
    pub writable: bool,
    /// It may not be fetched from (XD is 1 in some entry).
    pub execute_disable: bool,
}

impl GuestPaging {
    /// A supervisor-mode address with everything allowed, as without paging.
    pub const SUPERVISOR: Self = Self { user: false, writable: true, execute_disable: false };
    /// A user-mode address with everything allowed.
    pub const USER: Self = Self { user: true, ..Self::SUPERVISOR };
}

impl EptAccess {
    const NONE: Self = Self {
        read: false,
        write: false,
        fetch: false,
        linear: Some(GuestPaging::SUPERVISOR),
        paging_structure: false,
        nmi_unblocking: false,
    };
    /// A data read at a supervisor-mode address.
    pub const READ: Self = Self { read: true, ..Self::NONE };
    /// A data write at a supervisor-mode address.
    pub const WRITE: Self = Self { write: true, ..Self::NONE };
    /// An instruction fetch from a supervisor-mode address.
    pub const FETCH: Self = Self { fetch: true, ..Self::NONE };

    /// The same access from a linear address of which the guest's paging says this.
    #[must_use]
    pub const fn at(self, linear: GuestPaging) -> Self {
        Self { linear: Some(linear), ..self }
    }

    /// The same access without a linear address.
    #[must_use]
    pub const fn without_linear_address(self) -> Self {
        Self { linear: None, paging_structure: false, ..self }
    }

    /// The same access to an entry of the guest's paging structures.
    #[must_use]
    pub const fn of_paging_structure(self) -> Self {
        Self { paging_structure: true, ..self }
    }
}
