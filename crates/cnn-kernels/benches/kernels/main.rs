//! What the kernels reach of this machine's multiply-adds, on one thread: `cargo bench --bench kernels`.
//!
//! For each instruction set the ceiling is measured, then every distinct layer of two networks, then
//! the networks as wholes, all in rounds so that a disturbance meets everything alike. The least of
//! all rounds says what the code can do; the median says what the machine let it do. Absolute figures
//! say something about this machine only.
#![expect(clippy::unwrap_used, reason = "a bench that fails ends the run")]
#![expect(clippy::print_stdout, reason = "the table is the result")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod networks;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use cnn_kernels::{AlignedBuffer, Isa, ceiling};
use networks::{Layer, Network};

/// Rounds of the whole measurement.
const ROUNDS: usize = 40;

/// The durations of something, one a round.
#[derive(Default)]
struct Durations(Vec<Duration>);

impl Durations {
    /// Adds the time since `start`.
    fn add(&mut self, start: Instant) {
        self.0.push(start.elapsed());
    }

    fn least(&self) -> f64 {
        self.0.iter().min().unwrap().as_secs_f64()
    }

    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[sorted.len() / 2].as_secs_f64()
    }
}

/// A layer with memory of its own.
struct Bench {
    layer: Layer,
    input: AlignedBuffer,
    output: AlignedBuffer,
    scratch: AlignedBuffer,
    durations: Durations,
}

impl Bench {
    fn new(layer: Layer) -> Self {
        let mut input = AlignedBuffer::zeroed(layer.input_len());
        input.fill(0.5);
        let output = AlignedBuffer::zeroed(layer.output_len());
        let scratch = AlignedBuffer::zeroed(layer.scratch_len());
        Self { layer, input, output, scratch, durations: Durations::default() }
    }

    fn round(&mut self) {
        // Once so that memory and caches are warm, as they are behind the layer before.
        self.layer.run(&self.input, &mut self.scratch, &mut self.output);
        let start = Instant::now();
        self.layer.run(&self.input, &mut self.scratch, &mut self.output);
        self.durations.add(start);
        black_box(&self.output);
    }
}

/// A network with memory of its own.
struct Whole {
    layers: Vec<Layer>,
    buffers: [AlignedBuffer; 2],
    scratch: AlignedBuffer,
    durations: Durations,
}

impl Whole {
    fn new(layers: Vec<Layer>) -> Self {
        let largest = layers.iter().map(|layer| layer.input_len().max(layer.output_len())).max().unwrap();
        let scratch = layers.iter().map(Layer::scratch_len).max().unwrap();
        let buffers = [AlignedBuffer::zeroed(largest), AlignedBuffer::zeroed(largest)];
        Self { layers, buffers, scratch: AlignedBuffer::zeroed(scratch), durations: Durations::default() }
    }

    fn run(&mut self) {
        let [from, to] = &mut self.buffers;
        let (mut from, mut to) = (from, to);
        for layer in &self.layers {
            let (input, output) = (&from[..layer.input_len()], &mut to[..layer.output_len()]);
            layer.run(input, &mut self.scratch, output);
            (from, to) = (to, from);
        }
    }

    fn round(&mut self) {
        // Once so that the caches hold what they can, as under load where picture follows picture.
        self.run();
        let start = Instant::now();
        self.run();
        self.durations.add(start);
        black_box(&self.buffers);
    }
}

/// Prints what share of the network each kind of layer has, layer by layer.
fn print_shares(network: &Network, isa: Isa, benches: &[Bench], ceiling: f64) {
    // Seconds and operations.
    let mut kinds: Vec<(&str, f64, usize)> = Vec::new();
    for layer in network.layers(isa) {
        let bench = benches.iter().find(|bench| bench.layer.name() == layer.name()).unwrap();
        if kinds.iter().all(|(kind, ..)| *kind != layer.kind()) {
            kinds.push((layer.kind(), 0.0, 0));
        }
        let (_, seconds, flops) = kinds.iter_mut().find(|(kind, ..)| *kind == layer.kind()).unwrap();
        *seconds += bench.durations.least();
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
            100.0 * flops as f64 / seconds / 1e9 / ceiling
        );
    }
}

/// Measures a network on one instruction set and prints its tables.
fn measure(network: &Network, isa: Isa, rounds: usize) {
    // Some hundred microseconds of multiply-adds.
    let ceiling_rounds = 200_000;
    let mut flops = 0;
    let mut ceiling_durations = Durations::default();
    let mut layers: Vec<_> = network.distinct_layers(isa).into_iter().map(Bench::new).collect();
    let mut by_layer = Whole::new(network.layers(isa));
    let mut in_tiles = Whole::new(network.blocks(isa));
    for _ in 0..rounds {
        let start = Instant::now();
        flops = ceiling::multiply_adds(isa, ceiling_rounds);
        ceiling_durations.add(start);
        layers.iter_mut().for_each(Bench::round);
        by_layer.round();
        in_tiles.round();
    }

    let ceiling = flops as f64 / ceiling_durations.least() / 1e9;
    println!("\n## {} on {isa}: ceiling {ceiling:.0} GFLOP/s\n", network.name);
    println!("| layer | MFLOP | least, µs | median, µs | GFLOP/s | of the ceiling |");
    println!("|---|--:|--:|--:|--:|--:|");
    let row = |name: &str, flops: usize, durations: &Durations| {
        let (least, median) = (durations.least(), durations.median());
        let speed = flops as f64 / least / 1e9;
        println!(
            "| {name} | {:.1} | {:.0} | {:.0} | {speed:.0} | {:.0} % |",
            flops as f64 / 1e6,
            least * 1e6,
            median * 1e6,
            100.0 * speed / ceiling
        );
    };
    for bench in &layers {
        row(&bench.layer.name(), bench.layer.flops(), &bench.durations);
    }
    for (name, whole) in [("the whole, layer by layer", &by_layer), ("the whole, in tiles", &in_tiles)] {
        row(name, whole.layers.iter().map(Layer::flops).sum(), &whole.durations);
    }
    print_shares(network, isa, &layers, ceiling);
}

fn main() {
    // The instruction sets that are named as arguments, or all.
    let mut isas: Vec<Isa> = std::env::args().skip(1).filter_map(|name| name.parse().ok()).collect();
    if isas.is_empty() {
        isas = Isa::available().collect();
    }
    // `cargo test` leaves this flag out and only wants to see it run.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    for network in networks::all() {
        for isa in &isas {
            measure(&network, *isa, rounds);
        }
    }
}
