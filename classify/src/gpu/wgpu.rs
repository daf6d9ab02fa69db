//! GPU access through wgpu, which calls a GPU an adapter.

use std::sync::OnceLock;

use burn::tensor::{
    Device,
    wgpu::wgpu::{AdapterInfo, Backends, DeviceType, Instance, InstanceDescriptor},
};
use futures_executor::block_on;

use super::Adapter;

/// Opens burn's default adapter.
///
/// burn tries the graphics APIs in a fixed order: Vulkan, DirectX 12 and OpenGL (only Metal on macOS). burn
/// uses the first API that has a hardware adapter, or else the first API that has a software adapter. If this
/// API has several adapters, burn requests the one with the highest performance. The environment variable
/// `CUBECL_WGPU_DEFAULT_DEVICE` selects a different adapter, such as `DiscreteGpu(1)`.
pub(super) fn open() -> Result<Adapter, String> {
    // burn's device can be set up only once per process.
    static OPENED: OnceLock<Result<Adapter, String>> = OnceLock::new();
    let set_up = || match Device::wgpu_options().init_with_setup() {
        Ok((_, setup)) => Ok(describe_adapter(&setup.adapter.get_info())),
        Err(error) => Err(error.to_string()),
    };
    OPENED.get_or_init(set_up).clone()
}

/// Lists the adapters of all APIs.
pub(super) fn list_adapters() -> Vec<Adapter> {
    let instance = Instance::new(InstanceDescriptor {
        backends: Backends::all(),
        ..InstanceDescriptor::new_without_display_handle()
    });
    let adapters = block_on(instance.enumerate_adapters(Backends::all()));
    adapters.iter().map(|adapter| describe_adapter(&adapter.get_info())).collect()
}

/// Converts wgpu's description of an adapter to an [`Adapter`].
fn describe_adapter(info: &AdapterInfo) -> Adapter {
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
