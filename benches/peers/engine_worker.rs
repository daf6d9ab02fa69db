//! Runs the engines that are Rust crates as worker processes: this project's engines and tract.

use std::{fs, num::NonZeroUsize, path::Path, process::Command};

use bench_harness::{WorkerInstance, serve as serve_jobs};
use classify::{
    backend::Backend,
    engine::{EnginePlan, Infer, NativeEngine},
    model::{GEOMETRY, INPUT_SHAPE, spec},
    pixels::Crop,
};
use cnn_kernels::Isa;
use tract_onnx::{
    prelude::*,
    tract_hir::internal::{Cost, DimLike},
};

/// First argument that makes this program a worker.
pub(crate) const ARGUMENT: &str = "--worker";

/// Returns the command that starts this program as the worker of an engine.
///
/// `variant` is the path of the ONNX file if the engine is tract, and the name of an instruction set if the
/// engine is a backend of this project. The caller appends the number of threads per instance and the number
/// of instances.
pub(crate) fn command(engine: &str, variant: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([ARGUMENT, engine, variant]);
    command
}

/// Runs this program as the worker of an engine.
///
/// `arguments` are `tract MODEL.onnx THREADS INSTANCES` or `BACKEND ISA THREADS INSTANCES`. `THREADS` is the
/// number of threads of each instance.
pub(crate) fn serve(arguments: &[String]) {
    let [engine, variant, threads, instances] = arguments else {
        panic!("expected four arguments, found {arguments:?}")
    };
    let [thread_count, instance_count]: [usize; 2] = [threads, instances].map(|count| count.parse().unwrap());
    let to_bytes =
        |logits: Vec<f32>| logits.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    if engine == "tract" {
        let plan = load_tract(Path::new(variant)).into_optimized().unwrap().into_runnable().unwrap();
        let load = |arguments: &[&str]| {
            let bytes = fs::read(arguments[0]).unwrap();
            let values: Vec<f32> =
                bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
            Tensor::from_shape(&tract_input_shape(), &values).unwrap()
        };
        let instance = |_| -> WorkerInstance<Tensor, Vec<f32>> {
            let plan = plan.clone();
            Box::new(move |input| {
                let outputs = plan.run(tvec!(input.clone().into())).unwrap();
                outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect()
            })
        };
        return serve_jobs("tract", load, (0..instance_count).map(instance).collect(), to_bytes);
    }
    let backend = Backend::cpu_backends().find(|backend| backend.name() == engine).unwrap();
    let isa = Isa::available().find(|isa| isa.name() == variant);
    let [engine_count, total_thread_count] =
        [instance_count, instance_count * thread_count].map(|count| NonZeroUsize::new(count).unwrap());
    let plan = EnginePlan { backend, engine_count, thread_count: total_thread_count, isa };
    let engines = NativeEngine::load_all(plan).unwrap();
    let load = |arguments: &[&str]| [Crop::new(fs::read(arguments[0]).unwrap(), GEOMETRY.crop).unwrap()];
    let instance = |mut engine: NativeEngine| -> WorkerInstance<[Crop; 1], Vec<f32>> {
        Box::new(move |crop| engine.infer(crop).unwrap().remove(0))
    };
    serve_jobs(engine, load, engines.into_iter().map(instance).collect(), to_bytes);
}

/// Returns the shape of an input tensor with one image.
fn tract_input_shape() -> [usize; 4] {
    let [channels, height, width] = INPUT_SHAPE;
    [1, channels, height, width]
}

/// Loads the ONNX file at `path` into tract. The model is not optimised for execution.
fn load_tract(path: &Path) -> TypedModel {
    let fact = f32::fact(tract_input_shape());
    let model = tract_onnx::onnx().model_for_path(path).unwrap().with_input_fact(0, fact.into()).unwrap();
    model.into_typed().unwrap().into_decluttered().unwrap()
}

/// Counts the floating-point operations of a forward pass.
///
/// A multiplication and the addition of its product are two operations. Operations on padding are counted.
/// Element-wise operations are not counted.
pub(crate) fn count_flops(onnx_path: &Path) -> usize {
    let model = load_tract(onnx_path);
    let count = |node: &TypedNode| {
        let costs = node.op.cost(&model.node_input_facts(node.id).unwrap()).unwrap();
        let multiply_adds = costs.iter().filter(|(cost, _)| matches!(cost, Cost::FMA(_)));
        multiply_adds.map(|(_, count)| 2 * count.to_usize().unwrap()).sum::<usize>()
    };
    let flops = model.nodes().iter().map(count).sum();
    assert!(flops > 0, "the ONNX file of {} has no multiply-adds", spec::NAME);
    flops
}
