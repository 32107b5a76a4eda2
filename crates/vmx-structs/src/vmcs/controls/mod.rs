//! The seven control words, bit by bit (SDM 24.6-24.8).
//!
//! Bits keep the SDM's names. Reserved bits have no name; some of them must be 1 (the *default1* class, SDM A.2), so a
//! word is made by [adjusting](ControlWord::adjust) what is wanted to what the processor allows, and every
//! word may hold any bit.

use core::fmt;

use crate::VmxCapabilities;

mod words;

pub use words::{
    EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls, SecondaryExitControls,
    TertiaryControls,
};

/// A control word.
pub trait ControlWord: bitflags::Flags + Copy + PartialEq + core::fmt::Debug {
    /// The SDM's name of the word.
    const NAME: &'static str;

    /// Its bits that have a name, lowest first.
    ///
    /// ```
    /// use vmx_structs::vmcs::{ControlWord, SecondaryControls};
    ///
    /// let ept = &SecondaryControls::BITS[1];
    /// assert_eq!((ept.bit, ept.name, ept.about), (1, "Enable EPT", "Extended page tables."));
    /// ```
    const BITS: &'static [ControlBit];

    /// This word among all seven.
    fn of(controls: &mut Controls) -> &mut Self;

    /// Bits that must be 1, and bits that may be 1. (No bits, and no bits, for a word that does not exist.)
    fn allowed(caps: &VmxCapabilities) -> (Self, Self);

    /// Whether the processor lets all these bits be 1.
    fn is_available(self, caps: &VmxCapabilities) -> bool {
        Self::allowed(caps).1.contains(self)
    }

    /// The value nearest to this one that VM entry accepts, and what was changed.
    ///
    /// ```
    /// use vmx_structs::{CpuModel, vmcs::{ControlWord, PinControls}};
    ///
    /// let caps = CpuModel::by_id("sandy_bridge").unwrap().capabilities();
    /// let wanted = PinControls::NMI_EXITING | PinControls::PROCESS_POSTED_INTERRUPTS;
    /// let adjusted = wanted.adjust(&caps);
    /// assert_eq!(adjusted.value.bits(), 0x1e); // NMI exiting, and bits 1, 2 and 4, which must be 1
    /// assert_eq!(adjusted.added.bits(), 0x16);
    /// assert_eq!(adjusted.unavailable, PinControls::PROCESS_POSTED_INTERRUPTS);
    /// assert!(adjusted.all_available().is_err());
    /// ```
    fn adjust(self, caps: &VmxCapabilities) -> Adjusted<Self> {
        let (must, may) = Self::allowed(caps);
        Adjusted {
            value: self.intersection(may).union(must),
            added: must.difference(self),
            unavailable: self.difference(may),
        }
    }
}

/// A bit of a control word, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlBit {
    /// Its place in the word.
    pub bit: u32,
    /// The SDM's name.
    pub name: &'static str,
    /// What it does when it is 1, in a sentence.
    pub about: &'static str,
}

/// A control word made acceptable, and what that took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjusted<W> {
    /// What VM entry accepts: what was wanted, without `unavailable`, with `added`.
    pub value: W,
    /// Bits that were not wanted and must be 1.
    pub added: W,
    /// Bits that were wanted and must be 0.
    pub unavailable: W,
}

impl<W: ControlWord> Adjusted<W> {
    /// The value, if all that was wanted is available.
    ///
    /// # Errors
    /// The bits that are not available.
    pub fn all_available(self) -> Result<W, W> {
        if self.unavailable.is_empty() { Ok(self.value) } else { Err(self.unavailable) }
    }
}

/// The seven control words of a VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Pin-based VM-execution controls.
    pub pin: PinControls,
    /// Primary processor-based VM-execution controls.
    pub primary: PrimaryControls,
    /// Secondary processor-based VM-execution controls.
    pub secondary: SecondaryControls,
    /// Tertiary processor-based VM-execution controls.
    pub tertiary: TertiaryControls,
    /// Primary VM-exit controls.
    pub exit: ExitControls,
    /// Secondary VM-exit controls.
    pub secondary_exit: SecondaryExitControls,
    /// VM-entry controls.
    pub entry: EntryControls,
}

impl Controls {
    /// No bit set.
    pub const NONE: Self = Self {
        pin: PinControls::empty(),
        primary: PrimaryControls::empty(),
        secondary: SecondaryControls::empty(),
        tertiary: TertiaryControls::empty(),
        exit: ExitControls::empty(),
        secondary_exit: SecondaryExitControls::empty(),
        entry: EntryControls::empty(),
    };

    /// Adjusts every word. The secondary, tertiary and secondary VM-exit words are activated if a bit of theirs is
    /// wanted.
    ///
    /// # Errors
    /// The first word of which a wanted bit is not available, and those bits.
    pub fn adjust(mut self, caps: &VmxCapabilities) -> Result<Self, Unavailable> {
        fn word<W: ControlWord>(wanted: W, caps: &VmxCapabilities) -> Result<W, Unavailable>
        where
            W::Bits: Into<u64>,
        {
            let unavailable = |bits: W| Unavailable { word: W::NAME, bits: bits.bits().into() };
            wanted.adjust(caps).all_available().map_err(unavailable)
        }
        // The words that are activated come first: a processor without secondary controls should be told so.
        self.secondary = word(self.secondary, caps)?;
        self.tertiary = word(self.tertiary, caps)?;
        self.secondary_exit = word(self.secondary_exit, caps)?;
        if !self.secondary.is_empty() {
            self.primary |= PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
        }
        if !self.tertiary.is_empty() {
            self.primary |= PrimaryControls::ACTIVATE_TERTIARY_CONTROLS;
        }
        if !self.secondary_exit.is_empty() {
            self.exit |= ExitControls::ACTIVATE_SECONDARY_CONTROLS;
        }
        Ok(Self {
            pin: word(self.pin, caps)?,
            primary: word(self.primary, caps)?,
            exit: word(self.exit, caps)?,
            entry: word(self.entry, caps)?,
            ..self
        })
    }
}

/// Control bits that were wanted and that the processor does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The SDM's name of the control word.
    pub word: &'static str,
    /// The bits.
    pub bits: u64,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this processor does not support bit")?;
        let mut separator = if self.bits.is_power_of_two() { " " } else { "s " };
        for bit in (0..64).filter(|bit| self.bits >> bit & 1 == 1) {
            write!(f, "{separator}{bit}")?;
            separator = ", ";
        }
        write!(f, " of the {}: leave them out, or do without what needs them", self.word)
    }
}

impl core::error::Error for Unavailable {}
