//! Named processors: capability sets for tests, tools and first steps.

use super::{VmxCapabilities, parse};

/// A processor model whose capabilities are known: a text file in the crate's `data/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuModel {
    id: &'static str,
    text: &'static str,
}

macro_rules! models {
    ($($id:literal),* $(,)?) => {
        /// Every known model, oldest first.
        pub const ALL: &'static [Self] =
            &[$(Self { id: $id, text: include_str!(concat!("../../data/", $id, ".txt")) }),*];
    };
}

impl CpuModel {
    models![
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

    /// The model with this [`id`](Self::id).
    pub fn by_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|model| model.id == id)
    }

    /// A short name: `sandy_bridge`.
    pub const fn id(self) -> &'static str {
        self.id
    }

    /// What it stands for, for people.
    pub fn name(self) -> &'static str {
        parse::name(self.text).unwrap_or(self.id)
    }

    /// The text that [`VmxCapabilities::parse`] reads.
    pub const fn text(self) -> &'static str {
        self.text
    }

    /// Its capabilities.
    ///
    /// # Panics
    /// Never: the texts are part of the crate, and a test parses each.
    pub fn capabilities(self) -> VmxCapabilities {
        VmxCapabilities::parse(self.text).expect("the texts of the crate are well-formed")
    }
}
