//! Checks that a chain allocates no memory of its own after its first forward passes.
//!
//! This file is a separate test program, because it replaces the allocator of the whole process.
#![cfg(feature = "flex")]
#![expect(unsafe_code, reason = "implementing an allocator requires unsafe code")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use burn::tensor::{Device, Tensor};
use fused::{Chain, Conv, Execution, Isa, Plan, Step, load_with};
use rayon::ThreadPoolBuilder;

/// Number of bytes allocated since the start of the process.
static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// An allocator that counts the allocated bytes and forwards each call to the system's allocator.
struct CountingAllocator;

// SAFETY: every call is forwarded to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller fulfils the contract of `alloc`, which is the same for the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller fulfils the contract of `dealloc`; `memory` came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Returns the number of bytes that all threads together allocate during `work`.
fn count_allocated_bytes(work: impl FnOnce()) -> usize {
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    work();
    ALLOCATED_BYTES.load(Ordering::Relaxed) - before
}

#[test]
fn repeated_forward_pass_allocates_only_the_tensors_of_burn() {
    assert!(
        count_allocated_bytes(|| drop(std::hint::black_box(vec![0_u8; 10_000]))) >= 10_000,
        "the allocator does not count allocations"
    );

    let clamp = [0.0, 6.0];
    let stem = Conv { input_channels: 3, output_channels: 16, kernel: 3, stride: 2, pads: [1; 4], clamp };
    let pointwise = |input_channels, output_channels| Conv {
        input_channels,
        output_channels,
        kernel: 1,
        stride: 1,
        pads: [0; 4],
        clamp,
    };
    let block = Step::InvertedResidual {
        expand: Some(pointwise(16, 96)),
        depthwise: Conv { input_channels: 96, output_channels: 96, stride: 1, ..stem },
        project: pointwise(96, 16),
        add_input: true,
    };
    let steps = vec![Step::Conv(stem), block, Step::GlobalAveragePool, Step::Flatten];
    let plan = Plan { input: [3, 128, 128], shifted: false, steps };

    let device = Device::flex();
    let weights = Tensor::<1>::zeros([plan.weights_len()], &device);
    let chain = load_with(Execution::Kernels(Isa::detect()), || Chain::new(plan));
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    // On two threads, the first two images run in parallel, and both threads share the rows of the third.
    let images = Tensor::<4>::ones([3, 3, 128, 128], &device);
    let run = || {
        let (images, weights) = (images.clone(), weights.clone());
        pool.install(|| drop(chain.forward::<2>(images, weights)));
    };
    run();
    run();
    // A feature map has 256 KiB, so fewer than 4096 bytes can only be the output tensor and burn's own
    // allocations. The minimum of ten passes excludes what other threads of the test program allocate.
    let byte_count = (0..10).map(|_| count_allocated_bytes(run)).min();
    assert!(byte_count.is_some_and(|byte_count| byte_count < 4096), "a pass allocated {byte_count:?} bytes");
}
