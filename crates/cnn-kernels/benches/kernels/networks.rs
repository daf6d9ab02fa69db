//! Builds the layers of the two networks that the benchmark measures.

use cnn_kernels::{
    Clamp, Depthwise, FirstConv, InvertedResidual, Isa, PackedConv1x1, Pads, Size, Window,
    global_average_pool,
};

/// Consecutive inverted residual blocks that have the same number of output channels.
struct Stage {
    /// Number of expanded channels per input channel of a block.
    expansion: usize,
    /// Number of output channels.
    channels: usize,
    block_count: usize,
    /// Stride of the first block. The other blocks have stride 1.
    stride: usize,
    kernel: usize,
}

/// A network of inverted residual blocks for images of 224×224 pixels.
pub(crate) struct Network {
    pub(crate) name: &'static str,
    stages: Vec<Stage>,
    /// True if the network pads as TensorFlow does: if the number of padding rows or columns is odd, the
    /// bottom or the right gets one more than the top or the left.
    pads_like_tensorflow: bool,
}

/// Returns the networks to measure.
pub(crate) fn all() -> [Network; 2] {
    // Each row has the expansion, channels, number of blocks, stride and kernel of a stage.
    let stages = |rows: [(usize, usize, usize, usize, usize); 7]| {
        let stage = |(expansion, channels, block_count, stride, kernel)| Stage {
            expansion,
            channels,
            block_count,
            stride,
            kernel,
        };
        rows.map(stage).into()
    };
    [
        Network {
            name: "MobileNetV2",
            stages: stages([
                (1, 16, 1, 1, 3),
                (6, 24, 2, 2, 3),
                (6, 32, 3, 2, 3),
                (6, 64, 4, 2, 3),
                (6, 96, 3, 1, 3),
                (6, 160, 3, 2, 3),
                (6, 320, 1, 1, 3),
            ]),
            pads_like_tensorflow: false,
        },
        Network {
            name: "EfficientNet-Lite0",
            stages: stages([
                (1, 16, 1, 1, 3),
                (6, 24, 2, 2, 3),
                (6, 40, 2, 2, 5),
                (6, 80, 3, 2, 3),
                (6, 112, 3, 1, 5),
                (6, 192, 4, 2, 5),
                (6, 320, 1, 1, 3),
            ]),
            pads_like_tensorflow: true,
        },
    ]
}

/// An operator to measure, and the sizes that the operator itself does not store.
pub(crate) enum Layer {
    First(FirstConv),
    Conv1x1 { conv: PackedConv1x1, pixel_count: usize, has_residual: bool },
    Depthwise(Depthwise),
    Block { block: Box<InvertedResidual>, flops: usize },
    Pool { isa: Isa, pixel_count: usize, channels: usize },
}

impl Network {
    /// Returns all operators in the order in which they run.
    pub(crate) fn layers(&self, isa: Isa) -> Vec<Layer> {
        self.build(isa, |operators| operators.into_layers())
    }

    /// Returns the same operators as [`Self::layers`], but with each inverted residual block as one operator.
    pub(crate) fn layers_in_blocks(&self, isa: Isa) -> Vec<Layer> {
        self.build(isa, |operators| vec![operators.into_block()])
    }

    /// Returns the operators of [`Self::layers`] and [`Self::layers_in_blocks`], but only one of each shape.
    pub(crate) fn distinct_layers(&self, isa: Isa) -> Vec<Layer> {
        let mut distinct: Vec<Layer> = Vec::new();
        for layer in self.layers(isa).into_iter().chain(self.layers_in_blocks(isa)) {
            if distinct.iter().all(|other| other.name() != layer.name()) {
                distinct.push(layer);
            }
        }
        distinct
    }

    /// Builds the network. `to_layers` converts the operators of each inverted residual block.
    fn build(&self, isa: Isa, to_layers: impl Fn(BlockOperators) -> Vec<Layer>) -> Vec<Layer> {
        let mut channels = 32;
        let first_window = self.window(Size { height: 224, width: 224 }, 3, 2);
        let weights = small_weights(channels * 27);
        let first =
            FirstConv::new(isa, first_window, 3, &weights, &small_weights(channels), Clamp::RELU6).unwrap();
        let mut size = first.window().output();
        let mut layers = vec![Layer::First(first)];
        for stage in &self.stages {
            for index in 0..stage.block_count {
                let stride = if index == 0 { stage.stride } else { 1 };
                let window = self.window(size, stage.kernel, stride);
                let expanded_channels = channels * stage.expansion;
                let kernel_area = stage.kernel * stage.kernel;
                let (weights, bias) =
                    (small_weights(expanded_channels * kernel_area), small_weights(expanded_channels));
                layers.extend(to_layers(BlockOperators {
                    expand: (stage.expansion > 1)
                        .then(|| conv1x1(isa, channels, expanded_channels, Clamp::RELU6)),
                    depthwise: Depthwise::new(isa, window, &weights, &bias, Clamp::RELU6).unwrap(),
                    project: conv1x1(isa, expanded_channels, stage.channels, Clamp::NONE),
                    has_residual: stride == 1 && channels == stage.channels,
                }));
                channels = stage.channels;
                size = window.output();
            }
        }
        let head = conv1x1(isa, channels, 1280, Clamp::RELU6);
        layers.push(Layer::Conv1x1 { conv: head, pixel_count: size.pixel_count(), has_residual: false });
        layers.push(Layer::Pool { isa, pixel_count: size.pixel_count(), channels: 1280 });
        let classifier = conv1x1(isa, 1280, 1000, Clamp::NONE);
        layers.push(Layer::Conv1x1 { conv: classifier, pixel_count: 1, has_residual: false });
        layers
    }

    fn window(&self, input: Size, kernel: usize, stride: usize) -> Window {
        let before = if self.pads_like_tensorflow { (kernel - stride) / 2 } else { kernel / 2 };
        let after = if self.pads_like_tensorflow { kernel - stride - before } else { before };
        let pads = Pads { top: before, left: before, bottom: after, right: after };
        Window::new(input, kernel, stride, pads).unwrap()
    }
}

/// Returns weights with which the values stay moderate throughout a network. Arithmetic with subnormal or
/// infinite values would have a different speed.
fn small_weights(len: usize) -> Vec<f32> {
    (0..len).map(|index| if index % 3 == 0 { 0.02 } else { -0.01 }).collect()
}

fn conv1x1(isa: Isa, input_channels: usize, output_channels: usize, clamp: Clamp) -> PackedConv1x1 {
    let weights = small_weights(input_channels * output_channels);
    PackedConv1x1::new(isa, input_channels, &weights, &small_weights(output_channels), clamp).unwrap()
}

/// The operators of an inverted residual block.
struct BlockOperators {
    expand: Option<PackedConv1x1>,
    depthwise: Depthwise,
    project: PackedConv1x1,
    has_residual: bool,
}

impl BlockOperators {
    fn into_layers(self) -> Vec<Layer> {
        let window = self.depthwise.window();
        let expand = self.expand.map(|conv| Layer::Conv1x1 {
            conv,
            pixel_count: window.input().pixel_count(),
            has_residual: false,
        });
        let project = Layer::Conv1x1 {
            conv: self.project,
            pixel_count: window.output().pixel_count(),
            has_residual: self.has_residual,
        };
        expand.into_iter().chain([Layer::Depthwise(self.depthwise), project]).collect()
    }

    fn into_block(self) -> Layer {
        let Self { expand, depthwise, project, has_residual } = self;
        let layers = Self {
            expand: expand.clone(),
            depthwise: depthwise.clone(),
            project: project.clone(),
            has_residual,
        };
        let flops = layers.into_layers().iter().map(Layer::flops).sum();
        let block = InvertedResidual::new(expand, depthwise, project, has_residual).unwrap();
        Layer::Block { block: Box::new(block), flops }
    }
}

impl Layer {
    /// Returns a name that describes the shape of the layer.
    pub(crate) fn name(&self) -> String {
        let window = |window: Window| {
            let (kernel, stride, size) = (window.kernel(), window.stride(), window.input());
            format!("{kernel}×{kernel}/{stride} @{}", size.height)
        };
        match self {
            Self::First(conv) => {
                format!(
                    "first {} {}→{}",
                    window(conv.window()),
                    conv.input_channels(),
                    conv.output_channels()
                )
            }
            Self::Conv1x1 { conv, pixel_count, has_residual } => {
                let plus = if *has_residual { " + residual" } else { "" };
                format!(
                    "1×1 {}→{} on {pixel_count} pixels{plus}",
                    conv.input_channels(),
                    conv.output_channels()
                )
            }
            Self::Depthwise(conv) => format!("depthwise {} {}", window(conv.window()), conv.channels()),
            Self::Block { block, .. } => {
                format!(
                    "block {} {}→{}",
                    window(block.window()),
                    block.input_channels(),
                    block.output_channels()
                )
            }
            Self::Pool { pixel_count, channels, .. } => format!("pool {channels} on {pixel_count} pixels"),
        }
    }

    /// Returns the kind of the layer. The same resource limits the speed of all layers of a kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::First(_) => "first convolution",
            Self::Conv1x1 { pixel_count: 1, .. } => "classifier",
            Self::Conv1x1 { .. } => "1×1 convolutions",
            Self::Depthwise(conv) if conv.window().stride() == 1 => "depthwise, stride 1",
            Self::Depthwise(_) => "depthwise, stride 2",
            Self::Block { .. } => "blocks",
            Self::Pool { .. } => "pool",
        }
    }

    /// Returns the number of floating-point operations. A multiply-add counts as two operations, even if one
    /// factor is padding.
    pub(crate) fn flops(&self) -> usize {
        match self {
            Self::First(conv) => {
                let kernel_area = conv.window().kernel() * conv.window().kernel();
                2 * conv.window().output().pixel_count()
                    * kernel_area
                    * conv.input_channels()
                    * conv.output_channels()
            }
            Self::Conv1x1 { conv, pixel_count, .. } => {
                2 * pixel_count * conv.input_channels() * conv.output_channels()
            }
            Self::Depthwise(conv) => {
                2 * conv.window().output().pixel_count() * conv.window().kernel().pow(2) * conv.channels()
            }
            Self::Block { flops, .. } => *flops,
            Self::Pool { pixel_count, channels, .. } => pixel_count * channels,
        }
    }

    pub(crate) fn input_len(&self) -> usize {
        match self {
            Self::First(conv) => conv.window().input().pixel_count() * conv.input_channels(),
            Self::Conv1x1 { conv, pixel_count, .. } => pixel_count * conv.input_channels(),
            Self::Depthwise(conv) => conv.window().input().pixel_count() * conv.channels(),
            Self::Block { block, .. } => block.window().input().pixel_count() * block.input_channels(),
            Self::Pool { pixel_count, channels, .. } => pixel_count * channels,
        }
    }

    pub(crate) fn output_len(&self) -> usize {
        match self {
            Self::First(conv) => conv.window().output().pixel_count() * conv.output_channels(),
            Self::Conv1x1 { conv, pixel_count, .. } => pixel_count * conv.output_channels(),
            Self::Depthwise(conv) => conv.window().output().pixel_count() * conv.channels(),
            Self::Block { block, .. } => block.window().output().pixel_count() * block.output_channels(),
            Self::Pool { channels, .. } => *channels,
        }
    }

    /// Returns the number of elements of scratch memory. A 1×1 convolution reads the residual from this
    /// memory.
    pub(crate) fn scratch_len(&self) -> usize {
        match self {
            Self::Block { block, .. } => block.scratch_len(),
            Self::Conv1x1 { has_residual: true, .. } => self.output_len(),
            _ => 0,
        }
    }

    pub(crate) fn run(&self, input: &[f32], scratch: &mut [f32], output: &mut [f32]) {
        match self {
            Self::First(conv) => conv.run(input, 0..conv.window().output().height, output),
            Self::Conv1x1 { conv, has_residual, .. } => {
                conv.run(input, has_residual.then(|| &scratch[..output.len()]), output)
            }
            Self::Depthwise(conv) => conv.run(input, 0..conv.window().output().height, output),
            Self::Block { block, .. } => block.run(input, 0..block.window().output().height, scratch, output),
            Self::Pool { isa, .. } => global_average_pool(*isa, input, output),
        }
        .unwrap();
    }
}
