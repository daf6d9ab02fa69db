//! Builds graphs with pseudo-random weights.

use model_import::graph::proto::{self, NodeExt as _};
use onnx_ir::{GraphProto, ModelProto, NodeProto};

use super::random::Random;

/// A graph under construction. The methods that add a value return its name.
pub(crate) struct GraphBuilder {
    graph: GraphProto,
    pub(crate) random: Random,
    name_count: usize,
}

impl GraphBuilder {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            graph: GraphProto { name: "conformance".into(), ..Default::default() },
            random: Random::new(seed),
            name_count: 0,
        }
    }

    fn unique_name(&mut self, base: &str) -> String {
        self.name_count += 1;
        format!("{base}_{}", self.name_count)
    }

    /// Adds a float constant.
    pub(crate) fn floats(&mut self, dims: &[usize], data: &[f32]) -> String {
        let name = self.unique_name("const");
        let dims: Vec<i64> = dims.iter().map(|dim| i64::try_from(*dim).unwrap()).collect();
        self.graph.initializer.push(proto::float_tensor(&name, &dims, data));
        name
    }

    /// Adds a float constant of random numbers in `low..high`.
    pub(crate) fn random(&mut self, dims: &[usize], low: f32, high: f32) -> String {
        let data = self.random.floats(dims.iter().product(), low, high);
        self.floats(dims, &data)
    }

    /// Adds an integer constant.
    pub(crate) fn ints(&mut self, dims: &[i64], data: &[i64]) -> String {
        let name = self.unique_name("ints");
        self.graph.initializer.push(proto::int_tensor(&name, dims, data));
        name
    }

    /// Adds a node, to which `finish` adds attributes.
    pub(crate) fn op(
        &mut self,
        op: &str,
        inputs: &[&str],
        finish: impl FnOnce(NodeProto) -> NodeProto,
    ) -> String {
        let output = self.unique_name(&op.to_lowercase());
        self.graph.node.push(finish(proto::node(op, inputs, &[&output])));
        output
    }

    /// Adds a convolution with random weights.
    pub(crate) fn conv(&mut self, input: &str, conv: &Conv) -> String {
        let Conv { inputs, outputs, size, stride, pads, groups, bias } = *conv;
        // The range is wide enough for outputs below 0 and above 6, the bounds of Clip.
        let fan_in: usize = inputs / groups * size * size;
        let bound = (6.0 / f32::from(u16::try_from(fan_in).unwrap())).sqrt();
        let weights = self.random(&[outputs, inputs / groups, size, size], -bound, bound);
        let mut names = vec![input.to_owned(), weights];
        if bias {
            names.push(self.random(&[outputs], -0.5, 0.5));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let [size, stride, groups] = [size, stride, groups].map(|value| i64::try_from(value).unwrap());
        self.op("Conv", &names, |node| {
            node.with_ints("kernel_shape", &[size, size])
                .with_ints("strides", &[stride, stride])
                .with_ints("pads", &pads)
                .with_ints("dilations", &[1, 1])
                .with_int("group", groups)
        })
    }

    /// Adds a BatchNormalization. None of its parameters is 0 or 1, so that a mistake in folding is noticed.
    pub(crate) fn batch_norm(&mut self, input: &str, channels: usize) -> String {
        let scale = self.random(&[channels], 0.5, 1.5);
        let shift = self.random(&[channels], -0.5, 0.8);
        let mean = self.random(&[channels], -0.4, 0.4);
        let variance = self.random(&[channels], 0.3, 1.7);
        self.op("BatchNormalization", &[input, &scale, &shift, &mean, &variance], |node| {
            node.with_float("epsilon", 1e-3)
        })
    }

    /// Returns the model with one input and one output. `opset` is the version of the standard operator set.
    pub(crate) fn finish(
        self,
        opset: i64,
        input: (&str, &[Option<i64>]),
        output: (&str, &[Option<i64>]),
    ) -> ModelProto {
        let Self { mut graph, .. } = self;
        // The last node produces the output.
        let last = graph.node.last_mut().unwrap();
        last.output[0] = output.0.into();
        graph.input.push(proto::value_info(input.0, input.1));
        graph.output.push(proto::value_info(output.0, output.1));
        let mut model = ModelProto {
            ir_version: if opset < 9 { 3 } else { 8 },
            producer_name: "conformance".into(),
            ..Default::default()
        };
        // The type of an entry has no public name, but `Default` can be inferred.
        model.opset_import.push(Default::default());
        model.opset_import[0].version = opset;
        if opset < 9 {
            // In these versions of the format, every initializer is also an input.
            for tensor in &graph.initializer {
                let dims: Vec<Option<i64>> = tensor.dims.iter().copied().map(Some).collect();
                let mut info = proto::value_info(&tensor.name, &dims);
                info.type_.mut_or_insert_default().mut_tensor_type().elem_type = tensor.data_type;
                graph.input.push(info);
            }
        }
        model.graph = Some(graph).into();
        model
    }
}

/// Parameters of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct Conv {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) size: usize,
    pub(crate) stride: usize,
    /// Padding at the top, left, bottom and right.
    pub(crate) pads: [i64; 4],
    pub(crate) groups: usize,
    pub(crate) bias: bool,
}

impl Conv {
    pub(crate) fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, size: 1, stride: 1, pads: [0; 4], groups: 1, bias: false }
    }

    pub(crate) fn depthwise(channels: usize, stride: usize) -> Self {
        Self {
            inputs: channels,
            outputs: channels,
            size: 3,
            stride,
            pads: [1; 4],
            groups: channels,
            bias: false,
        }
    }

    pub(crate) fn stem(outputs: usize) -> Self {
        Self { inputs: 3, outputs, size: 3, stride: 2, pads: [1; 4], groups: 1, bias: false }
    }
}
