//! The devices that ggml found: what they are called, what they are, and what memory they have.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use ggml_sys as sys;

use super::backend::Device;
use crate::units::Bytes;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU, with the machine's memory.
    Cpu,
    /// A GPU with memory of its own.
    Gpu,
    /// A GPU that computes from the machine's memory.
    Integrated,
    /// Something that only helps the CPU.
    Other,
}

/// A device's memory. (bytes)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// What nobody uses at this moment.
    pub free: Bytes,
    /// All of it.
    pub total: Bytes,
}

impl Device {
    /// All devices that the backends of this build found, in their order.
    pub fn all() -> Vec<Device> {
        super::init();
        // SAFETY: the registry is ready after `init`, and the numbers are below its count.
        let device = |i| NonNull::new(unsafe { sys::ggml_backend_dev_get(i) }).map(Device);
        // SAFETY: as above.
        (0..unsafe { sys::ggml_backend_dev_count() }).filter_map(device).collect()
    }

    /// What it is.
    pub fn kind(self) -> DeviceKind {
        // SAFETY: the handle is valid.
        match unsafe { sys::ggml_backend_dev_type(self.0.as_ptr()) } {
            sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
            sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
            sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::Integrated,
            _ => DeviceKind::Other,
        }
    }

    /// The backend that found it, such as `CUDA` or `Vulkan`.
    pub fn backend_name(self) -> String {
        // SAFETY: the handle is valid; a device has a registry entry, whose name is a C string that lives as long as it.
        unsafe {
            let reg = sys::ggml_backend_dev_backend_reg(self.0.as_ptr());
            super::owned(sys::ggml_backend_reg_name(reg))
        }
    }

    /// What the driver says of its memory. The first call may start the driver.
    pub fn memory(self) -> DeviceMemory {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the handle is valid, and the numbers are places to write to.
        unsafe { sys::ggml_backend_dev_memory(self.0.as_ptr(), &raw mut free, &raw mut total) };
        DeviceMemory { free: Bytes::from(free), total: Bytes::from(total) }
    }

    /// Its address on the PCI bus (`0000:c1:00.0`), if it is there.
    pub fn pci_address(self) -> Option<String> {
        // SAFETY: plain data, filled in by the next call.
        let mut props: sys::ggml_backend_dev_props = unsafe { std::mem::zeroed() };
        // SAFETY: the handle is valid; the address is NULL or a C string that lives as long as the device.
        let text = unsafe {
            sys::ggml_backend_dev_get_props(self.0.as_ptr(), &raw mut props);
            super::owned(props.device_id)
        };
        (!text.is_empty()).then_some(text)
    }
}
