//! Defines the layers of two networks.

use cnn_kernels::{
    Clamp, Depthwise, FirstConv, InvertedResidual, Isa, PackedConv1x1, Pads, Size, Window,
    global_average_pool,
};

/// A stage of inverted residual blocks.
struct Stage {
    expansion: usize,
    channels: usize,
    blocks: usize,
    stride: usize,
    kernel: usize,
}

/// A network of inverted residual blocks for images of 224×224 pixels.
pub(crate) struct Network {
    pub(crate) name: &'static str,
    stages: Vec<Stage>,
    /// True if the network pads as TensorFlow does, with an odd row or column of padding below or to the
    /// right.
    pads_like_tensorflow: bool,
}

/// Returns the networks to measure.
pub(crate) fn all() -> [Network; 2] {
    // Expansion, channels, blocks, stride and kernel of each stage.
    let stages = |rows: [(usize, usize, usize, usize, usize); 7]| {
        let stage = |(expansion, channels, blocks, stride, kernel)| Stage {
            expansion,
            channels,
            blocks,
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

/// An operator with its shape.
pub(crate) enum Layer {
    First(FirstConv),
    Conv1x1 { conv: PackedConv1x1, pixels: usize, residual: bool },
    Depthwise(Depthwise),
    Block { block: Box<InvertedResidual>, flops: usize },
    Pool { isa: Isa, pixels: usize, channels: usize },
}

impl Network {
    /// Returns all operators in order.
    pub(crate) fn layers(&self, isa: Isa) -> Vec<Layer> {
        self.build(isa, |operators| operators.into_layers())
    }

    /// Returns all operators in order, with each inverted residual block as one operator.
    pub(crate) fn blocks(&self, isa: Isa) -> Vec<Layer> {
        self.build(isa, |operators| vec![operators.into_block()])
    }

    /// Returns one operator or block of each shape.
    pub(crate) fn distinct_layers(&self, isa: Isa) -> Vec<Layer> {
        let mut distinct: Vec<Layer> = Vec::new();
        for layer in self.layers(isa).into_iter().chain(self.blocks(isa)) {
            if distinct.iter().all(|other| other.name() != layer.name()) {
                distinct.push(layer);
            }
        }
        distinct
    }

    fn build(&self, isa: Isa, block: impl Fn(BlockOperators) -> Vec<Layer>) -> Vec<Layer> {
        let mut channels = 32;
        let first = self.window(Size { height: 224, width: 224 }, 3, 2);
        let weights = small_weights(channels * 27);
        let first = FirstConv::new(isa, first, 3, &weights, &small_weights(channels), Clamp::RELU6).unwrap();
        let mut size = first.window().output();
        let mut layers = vec![Layer::First(first)];
        for stage in &self.stages {
            for index in 0..stage.blocks {
                let stride = if index == 0 { stage.stride } else { 1 };
                let window = self.window(size, stage.kernel, stride);
                let expanded = channels * stage.expansion;
                let taps = stage.kernel * stage.kernel;
                let (weights, bias) = (small_weights(expanded * taps), small_weights(expanded));
                layers.extend(block(BlockOperators {
                    expand: (stage.expansion > 1).then(|| conv1x1(isa, channels, expanded, Clamp::RELU6)),
                    depthwise: Depthwise::new(isa, window, &weights, &bias, Clamp::RELU6).unwrap(),
                    project: conv1x1(isa, expanded, stage.channels, Clamp::NONE),
                    residual: stride == 1 && channels == stage.channels,
                }));
                channels = stage.channels;
                size = window.output();
            }
        }
        let head = conv1x1(isa, channels, 1280, Clamp::RELU6);
        layers.push(Layer::Conv1x1 { conv: head, pixels: size.pixels(), residual: false });
        layers.push(Layer::Pool { isa, pixels: size.pixels(), channels: 1280 });
        let classifier = conv1x1(isa, 1280, 1000, Clamp::NONE);
        layers.push(Layer::Conv1x1 { conv: classifier, pixels: 1, residual: false });
        layers
    }

    fn window(&self, input: Size, kernel: usize, stride: usize) -> Window {
        let before = if self.pads_like_tensorflow { (kernel - stride) / 2 } else { kernel / 2 };
        let after = if self.pads_like_tensorflow { kernel - stride - before } else { before };
        let pads = Pads { top: before, left: before, bottom: after, right: after };
        Window::new(input, kernel, stride, pads).unwrap()
    }
}

/// Returns weights that keep the activations small through a whole network, because arithmetic with denormal
/// or infinite values has a different speed.
fn small_weights(len: usize) -> Vec<f32> {
    (0..len).map(|index| if index % 3 == 0 { 0.02 } else { -0.01 }).collect()
}

fn conv1x1(isa: Isa, channels: usize, outputs: usize, clamp: Clamp) -> PackedConv1x1 {
    PackedConv1x1::new(isa, channels, &small_weights(channels * outputs), &small_weights(outputs), clamp)
        .unwrap()
}

/// The operators of an inverted residual.
struct BlockOperators {
    expand: Option<PackedConv1x1>,
    depthwise: Depthwise,
    project: PackedConv1x1,
    residual: bool,
}

impl BlockOperators {
    fn into_layers(self) -> Vec<Layer> {
        let window = self.depthwise.window();
        let expand =
            self.expand.map(|conv| Layer::Conv1x1 { conv, pixels: window.input().pixels(), residual: false });
        let project =
            Layer::Conv1x1 { conv: self.project, pixels: window.output().pixels(), residual: self.residual };
        expand.into_iter().chain([Layer::Depthwise(self.depthwise), project]).collect()
    }

    fn into_block(self) -> Layer {
        let Self { expand, depthwise, project, residual } = self;
        let layers =
            Self { expand: expand.clone(), depthwise: depthwise.clone(), project: project.clone(), residual };
        let flops = layers.into_layers().iter().map(Layer::flops).sum();
        let block = InvertedResidual::new(expand, depthwise, project, residual).unwrap();
        Layer::Block { block: Box::new(block), flops }
    }
}

impl Layer {
    pub(crate) fn name(&self) -> String {
        let window = |window: Window| {
            let (kernel, stride, size) = (window.kernel(), window.stride(), window.input());
            format!("{kernel}×{kernel}/{stride} @{}", size.height)
        };
        match self {
            Self::First(conv) => {
                format!("first {} {}→{}", window(conv.window()), conv.channels(), conv.output_channels())
            }
            Self::Conv1x1 { conv, pixels, residual } => {
                let plus = if *residual { " + residual" } else { "" };
                format!("1×1 {}→{} on {pixels} pixels{plus}", conv.channels(), conv.output_channels())
            }
            Self::Depthwise(conv) => format!("depthwise {} {}", window(conv.window()), conv.channels()),
            Self::Block { block, .. } => {
                format!("block {} {}→{}", window(block.window()), block.channels(), block.output_channels())
            }
            Self::Pool { pixels, channels, .. } => format!("pool {channels} on {pixels} pixels"),
        }
    }

    /// Returns the kind of the layer. Layers of the same kind have the same bottleneck.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::First(_) => "first convolution",
            Self::Conv1x1 { pixels: 1, .. } => "classifier",
            Self::Conv1x1 { .. } => "1×1 convolutions",
            Self::Depthwise(conv) if conv.window().stride() == 1 => "depthwise, stride 1",
            Self::Depthwise(_) => "depthwise, stride 2",
            Self::Block { .. } => "blocks",
            Self::Pool { .. } => "pool",
        }
    }

    /// Returns the number of floating-point operations: two per product, including products with the padding.
    pub(crate) fn flops(&self) -> usize {
        match self {
            Self::First(conv) => {
                let taps = conv.window().kernel() * conv.window().kernel();
                2 * conv.window().output().pixels() * taps * conv.channels() * conv.output_channels()
            }
            Self::Conv1x1 { conv, pixels, .. } => 2 * pixels * conv.channels() * conv.output_channels(),
            Self::Depthwise(conv) => {
                2 * conv.window().output().pixels() * conv.window().kernel().pow(2) * conv.channels()
            }
            Self::Block { flops, .. } => *flops,
            Self::Pool { pixels, channels, .. } => pixels * channels,
        }
    }

    pub(crate) fn input_len(&self) -> usize {
        match self {
            Self::First(conv) => conv.window().input().pixels() * conv.channels(),
            Self::Conv1x1 { conv, pixels, .. } => pixels * conv.channels(),
            Self::Depthwise(conv) => conv.window().input().pixels() * conv.channels(),
            Self::Block { block, .. } => block.window().input().pixels() * block.channels(),
            Self::Pool { pixels, channels, .. } => pixels * channels,
        }
    }

    pub(crate) fn output_len(&self) -> usize {
        match self {
            Self::First(conv) => conv.window().output().pixels() * conv.output_channels(),
            Self::Conv1x1 { conv, pixels, .. } => pixels * conv.output_channels(),
            Self::Depthwise(conv) => conv.window().output().pixels() * conv.channels(),
            Self::Block { block, .. } => block.window().output().pixels() * block.output_channels(),
            Self::Pool { channels, .. } => *channels,
        }
    }

    /// Returns the number of elements of scratch memory, which also serves as the residual of layers that add
    /// a residual.
    pub(crate) fn scratch_len(&self) -> usize {
        match self {
            Self::Block { block, .. } => block.scratch_len(),
            Self::Conv1x1 { residual: true, .. } => self.output_len(),
            _ => 0,
        }
    }

    pub(crate) fn run(&self, input: &[f32], scratch: &mut [f32], output: &mut [f32]) {
        match self {
            Self::First(conv) => conv.run(input, 0..conv.window().output().height, output),
            Self::Conv1x1 { conv, residual, .. } => {
                conv.run(input, residual.then(|| &scratch[..output.len()]), output)
            }
            Self::Depthwise(conv) => conv.run(input, 0..conv.window().output().height, output),
            Self::Block { block, .. } => block.run(input, 0..block.window().output().height, scratch, output),
            Self::Pool { isa, .. } => global_average_pool(*isa, input, output),
        }
        .unwrap();
    }
}
