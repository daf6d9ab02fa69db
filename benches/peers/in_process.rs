//! Engines that are crates: this project's own, and tract.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use classify::{
    backend::Backend,
    engine::{EnginePlan, Infer, NativeEngine},
    model::{CROP, spec},
};
use cnn_kernels::Isa;
use tract_onnx::{
    prelude::*,
    tract_hir::internal::{Cost, DimLike},
};

use crate::{
    Subject,
    engines::{Contender, Engine, ONE_THREAD, Run, SHARED_IMAGE, Setup, TWO_IMAGES},
};

/// A forward pass for the picture.
type Forward = Box<dyn FnMut() -> Vec<f32> + Send>;

/// Instances in this process, each run on a thread of its own.
struct InProcess {
    instances: Vec<Forward>,
}

impl Engine for InProcess {
    fn logits(&mut self) -> Vec<f32> {
        self.instances[0]()
    }

    fn run(&mut self, times: usize) -> Run {
        let together = Barrier::new(self.instances.len());
        let ends: Vec<(Instant, Instant, Vec<Duration>)> = thread::scope(|scope| {
            let body = |forward| {
                together.wait();
                let start = Instant::now();
                let durations = timed(forward, times);
                (start, Instant::now(), durations)
            };
            let threads: Vec<_> =
                self.instances.iter_mut().map(|forward| scope.spawn(move || body(forward))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let start = ends.iter().map(|(start, ..)| *start).min().unwrap();
        let end = ends.iter().map(|(_, end, _)| *end).max().unwrap();
        Run { wall: end - start, durations: ends.into_iter().flat_map(|(.., own)| own).collect() }
    }
}

fn timed(forward: &mut Forward, times: usize) -> Vec<Duration> {
    let once = |_| {
        let start = Instant::now();
        std::hint::black_box(forward());
        start.elapsed()
    };
    (0..times).map(once).collect()
}

fn contender(setup: Setup, instances: Vec<Forward>) -> Contender {
    Contender::new(setup, Box::new(InProcess { instances }))
}

/// The instructions that are measured on `backend`, the widest first; `None` where it has no choice.
pub(crate) fn instructions(backend: Backend) -> Vec<Option<Isa>> {
    if backend.kernel_isa(None).is_none() {
        return vec![None];
    }
    let mut isas: Vec<Option<Isa>> = Isa::available().map(Some).collect();
    isas.reverse();
    // Plain Rust is for machines that have nothing else.
    if isas.len() > 1 {
        isas.pop();
    }
    isas
}

/// The engines of the service on `backend`. They begin with the bytes of the crop, the peers with the
/// normalised tensor.
pub(crate) fn native(backend: Backend, isa: Option<Isa>, subject: &Subject) -> Vec<Contender> {
    let forward = |mut engine: NativeEngine| -> Forward {
        let batch = [subject.crop.clone()];
        Box::new(move || engine.infer(&batch).unwrap().remove(0))
    };
    let setups = [ONE_THREAD, SHARED_IMAGE, TWO_IMAGES];
    setups.map(|setup| contender(setup, load(backend, isa, setup).into_iter().map(forward).collect())).into()
}

fn load(backend: Backend, isa: Option<Isa>, setup: Setup) -> Vec<NativeEngine> {
    let all_threads = setup.instances * setup.threads;
    let [engines, threads] = [setup.instances, all_threads].map(|count| NonZeroUsize::new(count).unwrap());
    NativeEngine::load_all(EnginePlan { backend, engine_count: engines, threads, isa }).unwrap()
}

/// tract, which runs a convolutional network on one thread.
pub(crate) struct Tract {
    plan: Arc<TypedRunnableModel>,
    flops: usize,
}

impl Tract {
    pub(crate) fn load(onnx: &Path) -> Self {
        let fact = f32::fact([1, 3, CROP, CROP]);
        let model = tract_onnx::onnx().model_for_path(onnx).unwrap().with_input_fact(0, fact.into()).unwrap();
        let typed = model.into_typed().unwrap().into_decluttered().unwrap();
        let flops = flops(&typed);
        Self { plan: typed.into_optimized().unwrap().into_runnable().unwrap(), flops }
    }

    /// Floating-point operations of a forward pass: two for each weight and pixel that meet, those in the
    /// padding too; nothing for what is done to single values.
    pub(crate) fn flops(&self) -> usize {
        self.flops
    }

    pub(crate) fn contenders(&self, subject: &Subject) -> Vec<Contender> {
        let input = Tensor::from_shape(&[1, 3, CROP, CROP], &subject.nchw).unwrap();
        let forward = || -> Forward {
            let (plan, input) = (self.plan.clone(), input.clone());
            Box::new(move || {
                let outputs = plan.run(tvec!(input.clone().into())).unwrap();
                outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect()
            })
        };
        vec![contender(ONE_THREAD, vec![forward()]), contender(TWO_IMAGES, vec![forward(), forward()])]
    }
}

fn flops(model: &TypedModel) -> usize {
    let of_node = |node: &TypedNode| {
        let facts = model.node_input_facts(node.id).unwrap();
        let costs = node.op.cost(&facts).unwrap();
        let multiply_adds = costs.iter().filter(|(cost, _)| matches!(cost, Cost::FMA(_)));
        multiply_adds.map(|(_, count)| 2 * count.to_usize().unwrap()).sum::<usize>()
    };
    let flops = model.nodes().iter().map(of_node).sum();
    assert!(flops > 0, "{} multiplies nothing", spec::NAME);
    flops
}
