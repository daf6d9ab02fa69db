//! Checks that running an operator allocates no memory.
//!
//! This file is a separate test program, because it replaces the allocator of the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use cnn_kernels::{
    AlignedBuffer, Clamp, Depthwise, FirstConv, InvertedResidual, Isa, PackedConv1x1, Pads, Size, Window,
    global_average_pool,
};

thread_local! {
    static ALLOCATION_COUNT: Cell<usize> = const { Cell::new(0) };
}

/// An allocator that counts the allocations of each thread and forwards each call to the system allocator.
struct CountingAllocator;

// SAFETY: every call is forwarded to the system allocator, which fulfils the contract of `GlobalAlloc`.
// Counting does not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATION_COUNT.set(ALLOCATION_COUNT.get() + 1);
        // SAFETY: the caller guarantees that `layout` is valid.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees that `memory` was allocated with `layout` by this allocator, which
        // gets its memory from the system allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Runs `work` and returns the number of allocations that this thread made during `work`.
fn count_allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATION_COUNT.get();
    work();
    ALLOCATION_COUNT.get() - before
}

#[test]
fn allocation_is_counted() {
    assert_eq!(count_allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn operators_run_without_allocating() {
    let size = Size { height: 9, width: 9 };
    let window = Window::new(size, 3, 1, Pads::all(1)).unwrap();
    for isa in Isa::available() {
        let conv = |input_channels: usize, output_channels: usize| {
            let weights = vec![0.1; input_channels * output_channels];
            let bias = vec![0.1; output_channels];
            PackedConv1x1::new(isa, input_channels, &weights, &bias, Clamp::RELU6).unwrap()
        };
        let depthwise = Depthwise::new(isa, window, &[0.1; 9 * 21], &[0.1; 21], Clamp::RELU6).unwrap();
        let (expand, project) = (conv(5, 21), conv(21, 5));
        let first = FirstConv::new(isa, window, 5, &[0.1; 21 * 5 * 9], &[0.1; 21], Clamp::RELU).unwrap();
        let block =
            InvertedResidual::new(Some(expand.clone()), depthwise.clone(), project.clone(), true).unwrap();
        let block = block.with_max_tile_bytes(10_000);

        let input = AlignedBuffer::zeroed(size.pixel_count() * 5);
        let mut expanded = AlignedBuffer::zeroed(size.pixel_count() * 21);
        let mut filtered = expanded.clone();
        let mut output = input.clone();
        let mut scratch = AlignedBuffer::zeroed(block.scratch_len());
        let mut means = [0.0; 21];
        let count = count_allocations(|| {
            first.run(&input, 0..9, &mut expanded).unwrap();
            expand.run(&input, None, &mut expanded).unwrap();
            depthwise.run(&expanded, 0..9, &mut filtered).unwrap();
            project.run(&filtered, Some(&input), &mut output).unwrap();
            block.run(&input, 0..9, &mut scratch, &mut output).unwrap();
            global_average_pool(isa, &expanded, &mut means).unwrap();
        });
        assert_eq!(count, 0, "allocations on {isa}");
    }
}
