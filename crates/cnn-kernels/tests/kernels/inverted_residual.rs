//! Tests that the output of an inverted residual block does not depend on its tiles.

use cnn_kernels::{Clamp, Depthwise, InvertedResidual, Isa, PackedConv1x1, Pads, ShapeError, Size, Window};
use proptest::prelude::*;

use crate::support::{any_pads, any_size, assert_same_bits, proptest_config, random_numbers, run_guarded};

/// Numbers of channels of the input, of the expanded image and of the output.
type Channels = (usize, usize, usize);

/// The operators of a block, which can run separately.
struct Operators {
    expand: Option<PackedConv1x1>,
    depthwise: Depthwise,
    project: PackedConv1x1,
}

fn random_operators(
    isa: Isa,
    window: Window,
    (input_channels, expanded_channels, output_channels): Channels,
    has_expansion: bool,
    seed: u64,
) -> Operators {
    let conv = |from: usize, to: usize, clamp: Clamp, seed: u64| {
        PackedConv1x1::new(isa, from, &random_numbers(seed, from * to), &random_numbers(seed + 1, to), clamp)
            .unwrap()
    };
    let kernel_area = window.kernel() * window.kernel();
    let (weights, bias) = (
        random_numbers(seed + 2, expanded_channels * kernel_area),
        random_numbers(seed + 3, expanded_channels),
    );
    Operators {
        expand: has_expansion.then(|| conv(input_channels, expanded_channels, Clamp::RELU6, seed)),
        depthwise: Depthwise::new(isa, window, &weights, &bias, Clamp::RELU6).unwrap(),
        project: conv(expanded_channels, output_channels, Clamp::NONE, seed + 4),
    }
}

/// Runs the operators one after another. Other tests compare each operator with a naive loop.
fn run_one_after_another(operators: &Operators, input: &[f32], add_input: bool) -> Vec<f32> {
    let window = operators.depthwise.window();
    let expanded_channels = operators.depthwise.channels();
    let mut expanded = vec![0.0; window.input().pixel_count() * expanded_channels];
    match &operators.expand {
        Some(expand) => expand.run(input, None, &mut expanded).unwrap(),
        None => expanded.copy_from_slice(input),
    }
    let mut filtered = vec![0.0; window.output().pixel_count() * expanded_channels];
    operators.depthwise.run(&expanded, 0..window.output().height, &mut filtered).unwrap();
    let mut output = vec![0.0; window.output().pixel_count() * operators.project.output_channels()];
    operators.project.run(&filtered, add_input.then_some(input), &mut output).unwrap();
    output
}

proptest! {
    #![proptest_config(proptest_config(200))]

    #[test]
    fn block_with_any_tiles_is_bit_identical_to_the_separate_operators(
        size in any_size(15),
        (kernel, stride) in prop_oneof![Just((3, 1)), Just((3, 2)), Just((5, 1)), Just((5, 2))],
        pads in any_pads(4),
        (input_channels, expanded_channels, output_channels) in (1..20_usize, 1..40_usize, 1..40_usize),
        (has_expansion, has_residual) in any::<(bool, bool)>(),
        max_tile_bytes in 0..30_000_usize,
        split in 0..15_usize,
        seed in 0..u64::MAX / 2,
    ) {
        let pads = if has_residual { Pads::all(kernel / 2) } else { pads };
        if let Ok(window) = Window::new(size, kernel, stride, pads) {
            let input_channels = if has_expansion { input_channels } else { expanded_channels };
            let add_input = has_residual && window.input() == window.output();
            let output_channels = if add_input { input_channels } else { output_channels };
            let input = random_numbers(seed, size.pixel_count() * input_channels);
            for isa in Isa::available() {
                let channels = (input_channels, expanded_channels, output_channels);
                let operators = random_operators(isa, window, channels, has_expansion, seed);
                let expected = run_one_after_another(&operators, &input, add_input);
                let Operators { expand, depthwise, project } = operators;
                let block = InvertedResidual::new(expand, depthwise, project, add_input).unwrap();
                let block = block.with_max_tile_bytes(max_tile_bytes);
                let Size { height, width } = window.output();
                let compute_rows = |from: usize, to: usize| {
                    run_guarded((to - from) * width * output_channels, |output| {
                        run_guarded(block.scratch_len(), |scratch| {
                            // The initial contents of the scratch memory must not affect the result.
                            scratch.fill(f32::NAN);
                            block.run(&input, from..to, scratch, output).unwrap();
                        });
                    })
                };
                assert_same_bits(&expected, &compute_rows(0, height), isa.name());
                let split = split.min(height);
                let parts = [compute_rows(0, split), compute_rows(split, height)];
                assert_same_bits(&expected, &parts.concat(), isa.name());
            }
        }
    }
}

#[test]
fn tile_fits_the_permitted_memory_or_has_a_single_row() {
    let window = Window::new(Size { height: 56, width: 56 }, 3, 1, Pads::all(1)).unwrap();
    let Operators { expand, depthwise, project } =
        random_operators(Isa::detect(), window, (24, 144, 24), true, 1);
    let block = InvertedResidual::new(expand, depthwise, project, true).unwrap();
    assert!(block.scratch_len() * 4 <= 512 << 10);
    // A tile of one row needs 3 expanded rows and 1 filtered row, even if less memory is permitted.
    assert_eq!(block.clone().with_max_tile_bytes(0).scratch_len(), 4 * 56 * 144);
    assert_eq!(block.with_max_tile_bytes(usize::MAX).scratch_len(), 2 * 56 * 56 * 144);
}

#[test]
fn mismatched_operators_and_wrong_lengths_are_refused() {
    let isa = Isa::detect();
    let window = Window::new(Size { height: 6, width: 6 }, 3, 1, Pads::all(1)).unwrap();
    let build = |expand_outputs: usize, project_inputs: usize, project_outputs: usize, add_input: bool| {
        let matching = random_operators(isa, window, (4, 8, 4), true, 1);
        let expand = random_operators(isa, window, (4, expand_outputs, 4), true, 1).expand;
        let project = random_operators(isa, window, (4, project_inputs, project_outputs), true, 1).project;
        InvertedResidual::new(expand, matching.depthwise, project, add_input)
    };
    assert!(matches!(build(9, 8, 4, true), Err(ShapeError::Mismatch(_))));
    assert!(matches!(build(8, 9, 4, true), Err(ShapeError::Mismatch(_))));
    assert!(matches!(build(8, 8, 5, true), Err(ShapeError::Mismatch(_))));

    let block = build(8, 8, 5, false).unwrap();
    let mut scratch = vec![0.0; block.scratch_len()];
    let (input, mut output) = ([0.0; 144], [7.0; 60]);
    let too_short = scratch.len() - 1;
    assert!(block.run(&input, 0..2, &mut scratch[..too_short], &mut output).is_err());
    assert!(block.run(&input[1..], 0..2, &mut scratch, &mut output).is_err());
    assert!(block.run(&input, 5..7, &mut scratch, &mut output).is_err());
    assert!(block.run(&input, 0..3, &mut scratch, &mut output).is_err());
    assert_same_bits(&output, &[7.0; 60], "output after errors");
}
