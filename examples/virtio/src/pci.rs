//! Finding the disk on the PCI bus. The firmware has given the devices their addresses already.

use machine::{interrupts, port};
use virtio_drivers::{
    Hal,
    transport::{
        DeviceType,
        pci::{
            PciTransport,
            bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot},
            virtio_device_type,
        },
    },
};

/// The first virtio disk of bus 0, switched on.
pub fn find_disk<H: Hal>() -> Option<PciTransport> {
    let mut root = PciRoot::new(Ports);
    let (disk, _) =
        root.enumerate_bus(0).find(|(_, info)| virtio_device_type(info) == Some(DeviceType::Block))?;
    // It may answer at its registers, and read and write memory.
    root.set_command(disk, Command::MEMORY_SPACE | Command::BUS_MASTER);
    PciTransport::new::<H, _>(&mut root, disk).ok()
}

/// Configuration space as every PC has it: an address to port 0xcf8, then the word at port 0xcfc.
struct Ports;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

fn select(at: DeviceFunction, register: u8) {
    let address = 1 << 31
        | u32::from(at.bus) << 16
        | u32::from(at.device) << 11
        | u32::from(at.function) << 8
        | u32::from(register & !3);
    // SAFETY: says only which word the data port means.
    unsafe { port::write_u32(ADDRESS, address) };
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        interrupts::without(|| {
            select(at, register);
            // SAFETY: reading configuration space changes nothing.
            unsafe { port::read_u32(DATA) }
        })
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        interrupts::without(|| {
            select(at, register);
            // SAFETY: the crate's PCI code writes commands and the sizes of address windows, to restore them.
            unsafe { port::write_u32(DATA, data) };
        });
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}
