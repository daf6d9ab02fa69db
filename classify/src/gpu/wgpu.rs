//! GPUs by wgpu.

use std::sync::OnceLock;

use burn::tensor::{
    Device,
    wgpu::wgpu::{AdapterInfo, Backends, DeviceType, Instance, InstanceDescriptor},
};

use super::Adapter;
use crate::engine::block_on;

/// Opens the adapter that burn takes: of the first API that has one which is no software, the fastest.
/// `CUBECL_WGPU_DEFAULT_DEVICE` (`DiscreteGpu(1)`) takes another one.
pub(super) fn open() -> Result<Adapter, String> {
    // A process can set burn's device up once.
    static OPENED: OnceLock<Result<Adapter, String>> = OnceLock::new();
    let open = || match Device::wgpu_options().init_with_setup() {
        Ok((_, setup)) => Ok(adapter(&setup.adapter.get_info())),
        Err(error) => Err(error.to_string()),
    };
    OPENED.get_or_init(open).clone()
}

/// Every adapter of every API.
pub(super) fn adapters() -> Vec<Adapter> {
    let instance = Instance::new(InstanceDescriptor {
        backends: Backends::all(),
        ..InstanceDescriptor::new_without_display_handle()
    });
    let adapters = block_on(instance.enumerate_adapters(Backends::all()));
    adapters.iter().map(|seen| adapter(&seen.get_info())).collect()
}

fn adapter(info: &AdapterInfo) -> Adapter {
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "cpu",
        DeviceType::Other => "other",
    };
    let driver = format!("{} {}", info.driver, info.driver_info);
    Adapter::new(info.name.clone(), kind, info.backend.to_string(), driver.trim().to_owned())
}
