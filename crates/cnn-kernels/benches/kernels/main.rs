//! Measures the kernels on one thread and compares them with the ceiling, which is the maximum speed of
//! multiply-adds on this machine.
//!
//! Run `cargo bench -p cnn-kernels`. To measure only some instruction sets, append `--` and their names.
//!
//! For each instruction set, the benchmark measures the ceiling, every distinct layer of two networks, and
//! the whole networks. It measures a whole network twice: layer by layer, and block by block. A block is an
//! inverted residual block, whose layers `InvertedResidual` runs together.
//!
//! Each round measures everything once, so that other work on the machine affects all measurements alike. The
//! minimum of the rounds shows the speed of the code, and the median also shows the effect of other work.
//! Absolute values are not comparable between machines.
#![expect(clippy::unwrap_used, reason = "a benchmark may end with a panic")]
#![expect(clippy::print_stdout, reason = "the benchmark prints its results")]
#![expect(clippy::cast_precision_loss, reason = "the figures are rounded when they are printed")]

mod networks;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use cnn_kernels::{AlignedBuffer, Isa, ceiling};
use networks::{Layer, Network};

const ROUND_COUNT: usize = 40;

/// The durations of a measurement, one per round.
#[derive(Default)]
struct Durations(Vec<Duration>);

impl Durations {
    /// Adds the time since `start`.
    fn add_since(&mut self, start: Instant) {
        self.0.push(start.elapsed());
    }

    /// Returns the minimum in seconds.
    fn min(&self) -> f64 {
        self.0.iter().min().unwrap().as_secs_f64()
    }

    /// Returns the median in seconds.
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[sorted.len() / 2].as_secs_f64()
    }
}

/// A layer to measure, with its memory and its measurements.
struct LayerBench {
    layer: Layer,
    input: AlignedBuffer,
    output: AlignedBuffer,
    scratch: AlignedBuffer,
    durations: Durations,
}

impl LayerBench {
    fn new(layer: Layer) -> Self {
        let mut input = AlignedBuffer::zeroed(layer.input_len());
        input.fill(0.5);
        let output = AlignedBuffer::zeroed(layer.output_len());
        let scratch = AlignedBuffer::zeroed(layer.scratch_len());
        Self { layer, input, output, scratch, durations: Durations::default() }
    }

    /// Measures the layer once.
    fn run_round(&mut self) {
        // The first run fills the caches, as the previous layer of a network would.
        self.layer.run(&self.input, &mut self.scratch, &mut self.output);
        let start = Instant::now();
        self.layer.run(&self.input, &mut self.scratch, &mut self.output);
        self.durations.add_since(start);
        black_box(&self.output);
    }
}

/// A whole network to measure, with its memory and its measurements.
struct NetworkBench {
    layers: Vec<Layer>,
    /// The input and the output of the current layer.
    feature_maps: [AlignedBuffer; 2],
    scratch: AlignedBuffer,
    durations: Durations,
}

impl NetworkBench {
    fn new(layers: Vec<Layer>) -> Self {
        let feature_map_len =
            layers.iter().map(|layer| layer.input_len().max(layer.output_len())).max().unwrap();
        let scratch_len = layers.iter().map(Layer::scratch_len).max().unwrap();
        let feature_maps = [AlignedBuffer::zeroed(feature_map_len), AlignedBuffer::zeroed(feature_map_len)];
        Self {
            layers,
            feature_maps,
            scratch: AlignedBuffer::zeroed(scratch_len),
            durations: Durations::default(),
        }
    }

    fn run(&mut self) {
        let [source, target] = &mut self.feature_maps;
        let (mut source, mut target) = (source, target);
        for layer in &self.layers {
            let (input, output) = (&source[..layer.input_len()], &mut target[..layer.output_len()]);
            layer.run(input, &mut self.scratch, output);
            (source, target) = (target, source);
        }
    }

    /// Measures the network once.
    fn run_round(&mut self) {
        // The first run fills the caches, as the previous image would under load.
        self.run();
        let start = Instant::now();
        self.run();
        self.durations.add_since(start);
        black_box(&self.feature_maps);
    }
}

/// Prints the share of the network's computing time that each kind of layer takes.
fn print_shares(network: &Network, isa: Isa, benches: &[LayerBench], ceiling_gflops: f64) {
    // Name, total seconds and total number of floating-point operations of each kind.
    let mut kinds: Vec<(&str, f64, usize)> = Vec::new();
    for layer in network.layers(isa) {
        let bench = benches.iter().find(|bench| bench.layer.name() == layer.name()).unwrap();
        if kinds.iter().all(|(kind, ..)| *kind != layer.kind()) {
            kinds.push((layer.kind(), 0.0, 0));
        }
        let (_, seconds, flops) = kinds.iter_mut().find(|(kind, ..)| *kind == layer.kind()).unwrap();
        *seconds += bench.durations.min();
        *flops += layer.flops();
    }
    let total: f64 = kinds.iter().map(|(_, seconds, _)| seconds).sum();
    println!("\n| kind | MFLOP | µs | share | of the ceiling |");
    println!("|---|--:|--:|--:|--:|");
    for (kind, seconds, flops) in kinds {
        println!(
            "| {kind} | {:.1} | {:.0} | {:.1} % | {:.0} % |",
            flops as f64 / 1e6,
            seconds * 1e6,
            100.0 * seconds / total,
            100.0 * flops as f64 / seconds / 1e9 / ceiling_gflops
        );
    }
}

/// Measures a network on one instruction set and prints the tables.
fn measure(network: &Network, isa: Isa, round_count: usize) {
    // This many iterations take a few hundred microseconds.
    let ceiling_iterations = 200_000;
    let mut flops = 0;
    let mut ceiling_durations = Durations::default();
    let mut layer_benches: Vec<_> = network.distinct_layers(isa).into_iter().map(LayerBench::new).collect();
    let mut by_layer = NetworkBench::new(network.layers(isa));
    let mut by_block = NetworkBench::new(network.layers_in_blocks(isa));
    for _ in 0..round_count {
        let start = Instant::now();
        flops = ceiling::run_multiply_adds(isa, ceiling_iterations);
        ceiling_durations.add_since(start);
        layer_benches.iter_mut().for_each(LayerBench::run_round);
        by_layer.run_round();
        by_block.run_round();
    }

    let ceiling_gflops = flops as f64 / ceiling_durations.min() / 1e9;
    println!("\n## {} on {isa}: ceiling {ceiling_gflops:.0} GFLOP/s\n", network.name);
    println!("| layer | MFLOP | min, µs | median, µs | GFLOP/s | of the ceiling |");
    println!("|---|--:|--:|--:|--:|--:|");
    let print_row = |name: &str, flops: usize, durations: &Durations| {
        let (min, median) = (durations.min(), durations.median());
        let gflops = flops as f64 / min / 1e9;
        println!(
            "| {name} | {:.1} | {:.0} | {:.0} | {gflops:.0} | {:.0} % |",
            flops as f64 / 1e6,
            min * 1e6,
            median * 1e6,
            100.0 * gflops / ceiling_gflops
        );
    };
    for bench in &layer_benches {
        print_row(&bench.layer.name(), bench.layer.flops(), &bench.durations);
    }
    for (name, network_bench) in
        [("whole network, layer by layer", &by_layer), ("whole network, block by block", &by_block)]
    {
        print_row(name, network_bench.layers.iter().map(Layer::flops).sum(), &network_bench.durations);
    }
    print_shares(network, isa, &layer_benches, ceiling_gflops);
}

fn main() {
    // The arguments name the instruction sets to measure. Without a name, all available ones are measured.
    let mut isas: Vec<Isa> = std::env::args().skip(1).filter_map(|name| name.parse().ok()).collect();
    if isas.is_empty() {
        isas = Isa::available().collect();
    }
    // `cargo bench` passes this flag. `cargo test --benches` does not: it only checks that the benchmark
    // runs, so one round is enough.
    let round_count = if std::env::args().any(|argument| argument == "--bench") { ROUND_COUNT } else { 1 };
    for network in networks::all() {
        for isa in &isas {
            measure(&network, *isa, round_count);
        }
    }
}
