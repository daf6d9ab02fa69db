//! Builds small networks similar to MobileNetV2, in the styles of three exporters.
//!
//! The networks classify 32x32 images into ten classes. They have three inverted residual blocks. The second
//! block halves height and width, and the other two have a residual addition. The weights are pseudo-random.

mod builder;
pub(crate) mod random;

use model_import::graph::proto::NodeExt as _;
use onnx_proto::ModelProto;

use builder::{Conv, GraphBuilder};

/// Height and width of the input.
pub(crate) const SIDE: i64 = 32;
/// Number of classes at the output.
pub(crate) const CLASS_COUNT: i64 = 10;

/// Number of channels after the first convolution.
const STEM_CHANNELS: usize = 8;
/// Number of channels within a block.
const EXPANDED_CHANNELS: usize = 24;
/// Number of channels after the block that halves height and width.
const WIDE_CHANNELS: usize = 12;
/// Number of channels after the last convolution.
const LAST_CHANNELS: usize = 40;

/// Builds the network of each style, and returns it with the name of the style.
pub(crate) fn build_all() -> [(&'static str, ModelProto); 3] {
    [("zoo", zoo()), ("torch", torch()), ("tf2onnx", tf2onnx())]
}

/// Adds an inverted residual block: expand, depthwise, project, and a residual addition if the block does not
/// change the shape.
///
/// `channels` holds the number of input channels and the number of output channels. `adapt` and `after_conv` are
/// those of [`body`].
fn block(
    graph: &mut GraphBuilder,
    input: &str,
    channels: (usize, usize),
    depthwise: Conv,
    adapt: impl Fn(Conv) -> Conv,
    after_conv: impl Fn(&mut GraphBuilder, &str, usize, bool) -> String,
) -> String {
    let (input_channels, output_channels) = channels;
    let expanded = graph.conv(input, &adapt(Conv::pointwise(input_channels, EXPANDED_CHANNELS)));
    let expanded = after_conv(graph, &expanded, EXPANDED_CHANNELS, true);
    let filtered = graph.conv(&expanded, &adapt(depthwise));
    let filtered = after_conv(graph, &filtered, EXPANDED_CHANNELS, true);
    let projected = graph.conv(&filtered, &adapt(Conv::pointwise(EXPANDED_CHANNELS, output_channels)));
    let projected = after_conv(graph, &projected, output_channels, false);
    if depthwise.stride == 1 && input_channels == output_channels {
        graph.node("Add", &[input, &projected], |node| node)
    } else {
        projected
    }
}

/// Adds every layer before the head: a convolution, three blocks, and a pointwise convolution.
///
/// `adapt` changes the parameters of each convolution to the exporter's style. `after_conv` adds the nodes that
/// the exporter writes after a convolution. The parameters of `after_conv` are the convolution's output, the
/// number of output channels, and true if there is an activation.
fn body(
    graph: &mut GraphBuilder,
    input: &str,
    adapt: impl Fn(Conv) -> Conv,
    after_conv: impl Fn(&mut GraphBuilder, &str, usize, bool) -> String,
) -> String {
    let stem = graph.conv(input, &adapt(Conv::stem(STEM_CHANNELS)));
    let mut value = after_conv(graph, &stem, STEM_CHANNELS, true);
    for (input_channels, output_channels, stride) in [
        (STEM_CHANNELS, STEM_CHANNELS, 1),
        (STEM_CHANNELS, WIDE_CHANNELS, 2),
        (WIDE_CHANNELS, WIDE_CHANNELS, 1),
    ] {
        let depthwise = Conv::depthwise(EXPANDED_CHANNELS, stride);
        value = block(graph, &value, (input_channels, output_channels), depthwise, &adapt, &after_conv);
    }
    let last = graph.conv(&value, &adapt(Conv::pointwise(WIDE_CHANNELS, LAST_CHANNELS)));
    after_conv(graph, &last, LAST_CHANNELS, true)
}

/// Builds a network in the style of the opset 7 file of the ONNX Model Zoo.
///
/// BatchNormalization follows every convolution except the classifier, a 1x1 convolution. The bounds of Clip
/// are attributes, and initializers are among the inputs. The last node is a Reshape to a constant shape with
/// batch size 1.
pub(crate) fn zoo() -> ModelProto {
    let mut graph = GraphBuilder::new(7);
    let after_conv = |graph: &mut GraphBuilder, value: &str, channels: usize, has_activation: bool| {
        let normalised = graph.batch_norm(value, channels);
        if has_activation {
            graph.node("Clip", &[&normalised], |node| node.with_float("min", 0.0).with_float("max", 6.0))
        } else {
            normalised
        }
    };
    let unchanged = |conv: Conv| conv;
    let mut value = body(&mut graph, "data", unchanged, after_conv);
    value = graph.node("GlobalAveragePool", &[&value], |node| node);
    value = graph.conv(&value, &Conv::pointwise(LAST_CHANNELS, 10));
    let shape = graph.int_constant(&[2], &[1, -1]);
    graph.node("Reshape", &[&value, &shape], |node| node);
    graph.finish(
        7,
        ("data", &[Some(1), Some(3), Some(SIDE), Some(SIDE)]),
        ("mobilenetv20_output_flatten0_reshape0", &[Some(1), Some(CLASS_COUNT)]),
    )
}

/// Builds a network in the style of a PyTorch export.
///
/// Convolutions have a bias, and the bounds of Clip are inputs. The head has a Reshape to a shape that Shape,
/// Gather, Unsqueeze and Concat compute.
pub(crate) fn torch() -> ModelProto {
    let mut graph = GraphBuilder::new(11);
    let after_conv = |graph: &mut GraphBuilder, value: &str, _: usize, has_activation: bool| {
        if has_activation {
            let (low, high) = (graph.float_constant(&[], &[0.0]), graph.float_constant(&[], &[6.0]));
            graph.node("Clip", &[value, &low, &high], |node| node)
        } else {
            value.into()
        }
    };
    let with_bias = |conv: Conv| Conv { has_bias: true, ..conv };
    let mut value = body(&mut graph, "input", with_bias, after_conv);
    value = graph.node("GlobalAveragePool", &[&value], |node| node);

    let shape = graph.node("Shape", &[&value], |node| node);
    let zero = graph.int_constant(&[], &[0]);
    let batch = graph.node("Gather", &[&shape, &zero], |node| node.with_int("axis", 0));
    let batch = graph.node("Unsqueeze", &[&batch], |node| node.with_ints("axes", &[0]));
    let minus_one = graph.int_constant(&[1], &[-1]);
    let target = graph.node("Concat", &[&batch, &minus_one], |node| node.with_int("axis", 0));
    value = graph.node("Reshape", &[&value, &target], |node| node);
    let weights = graph.random_constant(&[10, LAST_CHANNELS], -0.4, 0.4);
    let bias = graph.random_constant(&[10], -0.5, 0.5);
    graph.node("Gemm", &[&value, &weights, &bias], |node| {
        node.with_float("alpha", 1.0).with_float("beta", 1.0).with_int("transB", 1)
    });
    graph.finish(
        12,
        ("input", &[None, Some(3), Some(SIDE), Some(SIDE)]),
        ("output", &[None, Some(CLASS_COUNT)]),
    )
}

/// Builds a network in the style of a Keras model that tf2onnx exported.
///
/// The input is channels-last and normalised by Mul and Add before the Transpose. Convolutions with stride 2
/// pad only at the bottom and right. Some batch normalisations are Mul and Add. The head is ReduceMean,
/// MatMul, Add and Softmax.
pub(crate) fn tf2onnx() -> ModelProto {
    let mut graph = GraphBuilder::new(23);
    let after_conv = |graph: &mut GraphBuilder, value: &str, channels: usize, has_activation: bool| {
        let normalised = if has_activation {
            let scale = graph.random_constant(&[1, channels, 1, 1], 0.5, 1.5);
            let shift = graph.random_constant(&[channels, 1, 1], -0.5, 0.8);
            let scaled = graph.node("Mul", &[value, &scale], |node| node);
            graph.node("Add", &[&shift, &scaled], |node| node)
        } else {
            graph.batch_norm(value, channels)
        };
        if has_activation {
            let (low, high) = (graph.float_constant(&[], &[0.0]), graph.float_constant(&[], &[6.0]));
            graph.node("Clip", &[&normalised, &low, &high], |node| node)
        } else {
            normalised
        }
    };
    let pad_like_keras = |conv: Conv| {
        if conv.stride == 2 { Conv { pads: [0, 0, 1, 1], ..conv } } else { conv }
    };
    let scale = graph.float_constant(&[3], &[2.1, 1.9, 2.3]);
    let shift = graph.float_constant(&[3], &[-1.1, -0.9, -1.0]);
    let scaled = graph.node("Mul", &["input_1", &scale], |node| node);
    let shifted = graph.node("Add", &[&scaled, &shift], |node| node);
    let image = graph.node("Transpose", &[&shifted], |node| node.with_ints("perm", &[0, 3, 1, 2]));
    let mut value = body(&mut graph, &image, pad_like_keras, after_conv);
    value = graph.node("Transpose", &[&value], |node| node.with_ints("perm", &[0, 2, 3, 1]));
    value =
        graph.node("ReduceMean", &[&value], |node| node.with_ints("axes", &[1, 2]).with_int("keepdims", 0));
    let weights = graph.random_constant(&[LAST_CHANNELS, 10], -0.4, 0.4);
    let bias = graph.random_constant(&[10], -0.5, 0.5);
    value = graph.node("MatMul", &[&value, &weights], |node| node);
    value = graph.node("Add", &[&value, &bias], |node| node);
    graph.node("Softmax", &[&value], |node| node.with_int("axis", -1));
    graph.finish(
        13,
        ("input_1", &[None, Some(SIDE), Some(SIDE), Some(3)]),
        ("predictions", &[None, Some(CLASS_COUNT)]),
    )
}
