//! Builds graphs with pseudo-random weights.

use model_import::graph::proto::{self, NodeExt as _};
use onnx_proto::{GraphProto, ModelProto, NodeProto};

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
    pub(crate) fn float_constant(&mut self, dims: &[usize], data: &[f32]) -> String {
        let name = self.unique_name("const");
        let dims: Vec<i64> = dims.iter().map(|dim| i64::try_from(*dim).unwrap()).collect();
        self.graph.initializer.push(proto::float_tensor(&name, &dims, data));
        name
    }

    /// Adds a float constant of random numbers in `low..high`.
    pub(crate) fn random_constant(&mut self, dims: &[usize], low: f32, high: f32) -> String {
        let data = self.random.floats(dims.iter().product(), low, high);
        self.float_constant(dims, &data)
    }

    /// Adds an integer constant.
    pub(crate) fn int_constant(&mut self, dims: &[i64], data: &[i64]) -> String {
        let name = self.unique_name("ints");
        self.graph.initializer.push(proto::int_tensor(&name, dims, data));
        name
    }

    /// Adds a node with one output. `add_attributes` adds the attributes of the node.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        add_attributes: impl FnOnce(NodeProto) -> NodeProto,
    ) -> String {
        let output = self.unique_name(&operator.to_lowercase());
        self.graph.node.push(add_attributes(proto::node(operator, inputs, &[&output])));
        output
    }

    /// Adds a convolution with random weights.
    pub(crate) fn conv(&mut self, input: &str, conv: &Conv) -> String {
        let Conv { input_channels, output_channels, kernel, stride, pads, groups, has_bias } = *conv;
        let inputs_per_group = input_channels / groups;
        // This is the range of He initialisation, which keeps the magnitude of the values from layer to
        // layer. Some outputs are then below 0 and some above 6, the bounds of Clip.
        let fan_in: usize = inputs_per_group * kernel * kernel;
        let bound = (6.0 / f32::from(u16::try_from(fan_in).unwrap())).sqrt();
        let dims = [output_channels, inputs_per_group, kernel, kernel];
        let weights = self.random_constant(&dims, -bound, bound);
        let mut inputs = vec![input.to_owned(), weights];
        if has_bias {
            inputs.push(self.random_constant(&[output_channels], -0.5, 0.5));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let [kernel, stride, groups] = [kernel, stride, groups].map(|value| i64::try_from(value).unwrap());
        self.node("Conv", &inputs, |node| {
            node.with_ints("kernel_shape", &[kernel, kernel])
                .with_ints("strides", &[stride, stride])
                .with_ints("pads", &pads)
                .with_ints("dilations", &[1, 1])
                .with_int("group", groups)
        })
    }

    /// Adds a BatchNormalization with random parameters, so that a mistake in folding any of them changes the
    /// output.
    pub(crate) fn batch_norm(&mut self, input: &str, channels: usize) -> String {
        let scale = self.random_constant(&[channels], 0.5, 1.5);
        let shift = self.random_constant(&[channels], -0.5, 0.8);
        let mean = self.random_constant(&[channels], -0.4, 0.4);
        let variance = self.random_constant(&[channels], 0.3, 1.7);
        self.node("BatchNormalization", &[input, &scale, &shift, &mean, &variance], |node| {
            node.with_float("epsilon", 1e-3)
        })
    }

    /// Returns the model with one input and one output, each given as its name and its dimensions.
    ///
    /// `opset` is the version of the standard operator set.
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
        // onnx-ir does not export the type of an entry, so the entry is created as the default of an inferred
        // type.
        model.opset_import.push(Default::default());
        model.opset_import[0].version = opset;
        if opset < 9 {
            // In version 3 of the format, every initializer is also an input.
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
    pub(crate) input_channels: usize,
    pub(crate) output_channels: usize,
    /// Height of the kernel, which equals its width.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// Padding at the top, left, bottom and right.
    pub(crate) pads: [i64; 4],
    pub(crate) groups: usize,
    pub(crate) has_bias: bool,
}

impl Conv {
    pub(crate) fn pointwise(input_channels: usize, output_channels: usize) -> Self {
        Self {
            input_channels,
            output_channels,
            kernel: 1,
            stride: 1,
            pads: [0; 4],
            groups: 1,
            has_bias: false,
        }
    }

    pub(crate) fn depthwise(channels: usize, stride: usize) -> Self {
        Self {
            input_channels: channels,
            output_channels: channels,
            kernel: 3,
            stride,
            pads: [1; 4],
            groups: channels,
            has_bias: false,
        }
    }

    /// Returns the first convolution of a network, which halves height and width.
    pub(crate) fn stem(output_channels: usize) -> Self {
        Self {
            input_channels: 3,
            output_channels,
            kernel: 3,
            stride: 2,
            pads: [1; 4],
            groups: 1,
            has_bias: false,
        }
    }
}
