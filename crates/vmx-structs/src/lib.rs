//! See the README of the workspace.
#![no_std]

pub mod capabilities;

pub use capabilities::{CpuFacts, CpuFeatures, CpuModel, EptVpidCap, VmxBasic, VmxCapabilities, VmxMisc};
