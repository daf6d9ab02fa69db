"""Small variants of known architectures, from torchvision's and timm's classes, by both exporters of torch."""

from functools import partial

from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.byobnet import ByobNet, ByoBlockCfg, ByoModelCfg
from timm.models.convnext import ConvNeXt
from timm.models.edgenext import EdgeNeXt
from timm.models.efficientformer import Attention, EfficientFormer
from timm.models.efficientnet import EfficientNet
from timm.models.ghostnet import GhostNet
from timm.models.levit import Levit
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet, RegNetCfg
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import ShuffleNetV2

from torch_exports import SHAPE, dynamo, legacy

CLASSES = 6
LARGER = [1, 3, 64, 64]
# timm rounds channels to multiples of 8 unless told otherwise.
ROUND_CHANNELS = partial(round_channels, divisor=4)


def shufflenet():
    return ShuffleNetV2([1, 2, 1], [8, 8, 16, 24, 32], num_classes=CLASSES)


def edgenext():
    return EdgeNeXt(
        num_classes=CLASSES,
        dims=(8, 8, 12, 16),
        depths=(1, 1, 1, 1),
        global_block_counts=(0, 1, 1, 0),
        heads=(2, 2, 2, 2),
        expand_ratio=2,
    )


def mobilevit():
    residual = {"bottle_in": True, "linear_out": True}
    attention = {"transformer_dim": 16, "transformer_depth": 1, "patch_size": 2}
    blocks = (
        ByoBlockCfg(type="bottle", d=1, c=8, s=2, gs=1, br=2.0, block_kwargs=residual),
        (
            ByoBlockCfg(type="bottle", d=1, c=12, s=2, gs=1, br=2.0, block_kwargs=residual),
            ByoBlockCfg(type="mobilevit", d=1, c=12, s=1, block_kwargs=attention),
        ),
    )
    stem = {"stem_chs": 8, "stem_type": "3x3", "stem_pool": "", "downsample": ""}
    return ByobNet(ByoModelCfg(blocks=blocks, act_layer="silu", num_features=24, **stem), num_classes=CLASSES)


def deit():
    return VisionTransformer(
        img_size=32, patch_size=8, num_classes=CLASSES, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2
    )


def levit():
    dimensions = {"embed_dim": (16, 16), "key_dim": 8, "depth": (1, 1), "num_heads": (1, 2)}
    return Levit(img_size=64, num_classes=CLASSES, **dimensions)


def efficientformer():
    model = EfficientFormer(
        depths=(1, 1, 1, 2), embed_dims=(8, 8, 12, 16), num_classes=CLASSES, mlp_ratios=2, num_vit=1
    )
    # The class fixes the attention for images of 224x224 pixels and for 8 heads.
    model.stages[-1].blocks[-1].token_mixer = Attention(16, key_dim=8, num_heads=2, attn_ratio=2, resolution=2)
    return model


def resnet():
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=CLASSES, stem_width=4, channels=(4, 8, 8, 12))


def convnext():
    return ConvNeXt(num_classes=CLASSES, depths=(1, 1, 2, 1), dims=(8, 8, 12, 16))


def efficientnet():
    blocks = ["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r2_k3_s2_e3_c8_se0.25"], ["ir_r1_k5_s2_e3_c12_se0.25"]
    sizes = {"num_features": 24, "stem_size": 8, "round_chs_fn": ROUND_CHANNELS}
    return EfficientNet(decode_arch_def(blocks), num_classes=CLASSES, act_layer=nn.SiLU, **sizes)


def mobilenetv3():
    blocks = ["ds_r1_k3_s2_e1_c8_se0.25_nre"], ["ir_r1_k5_s2_e3_c12_se0.25", "ir_r1_k5_s1_e3_c12"], ["cn_r1_k1_s1_c24"]
    sizes = {"num_features": 32, "stem_size": 8, "round_chs_fn": ROUND_CHANNELS}
    layers = {"act_layer": nn.Hardswish, "se_layer": partial(SqueezeExcite, gate_layer=nn.Hardsigmoid)}
    return MobileNetV3(decode_arch_def(blocks), num_classes=CLASSES, **layers, **sizes)


def regnet():
    config = RegNetCfg(depth=4, w0=8, wa=8.0, wm=1.35, group_size=4, se_ratio=0.25, stem_width=8)
    return RegNet(config, num_classes=CLASSES)


def ghostnet():
    stages = [[[3, 8, 8, 0, 1]], [[3, 16, 12, 0, 2]], [[5, 24, 16, 0.25, 2]]]
    model = GhostNet(stages, num_classes=CLASSES)
    # The class fixes the width of the head at 1280 channels.
    model.conv_head = nn.Conv2d(24, 32, 1)
    model.classifier = nn.Linear(32, CLASSES)
    return model


BOTH = (("dynamo", dynamo), ("legacy", legacy))
DYNAMO_ONLY, LEGACY_ONLY = BOTH[:1], BOTH[1:]
# Exercises, the network, the shape of its input, and the exporters.
ARCHITECTURES = {
    "shufflenet": ("torchvision's ShuffleNetV2: channel shuffle by reshape and transpose", shufflenet, SHAPE, BOTH),
    "edgenext": ("timm's EdgeNeXt: cross-covariance attention, positional encoding", edgenext, SHAPE, BOTH),
    "mobilevit": ("timm's MobileViT: pixels unfolded to patches and back", mobilevit, SHAPE, BOTH),
    "deit": ("timm's VisionTransformer: class token, fused attention", deit, SHAPE, BOTH),
    "levit": ("timm's LeViT: attention with biases per offset, subsampling", levit, LARGER, BOTH),
    "efficientformer": ("timm's EfficientFormer: pooling as mixer, attention", efficientformer, LARGER, BOTH),
    "resnet": ("timm's ResNet with basic blocks", resnet, SHAPE, DYNAMO_ONLY),
    "convnext": ("timm's ConvNeXt: 7x7 depthwise convolutions, LayerNorm, GELU", convnext, SHAPE, DYNAMO_ONLY),
    "efficientnet": ("timm's EfficientNet: squeeze and excitation, SiLU", efficientnet, SHAPE, DYNAMO_ONLY),
    "mobilenetv3": ("timm's MobileNetV3: hard-swish, hard-sigmoid gates", mobilenetv3, SHAPE, LEGACY_ONLY),
    "regnet": ("timm's RegNetY: grouped convolutions, squeeze and excitation", regnet, SHAPE, DYNAMO_ONLY),
    "ghostnet": ("timm's GhostNet: concatenation and slices", ghostnet, SHAPE, LEGACY_ONLY),
}
EXPORTS = [
    describe(f"{name}-{exporter}", exercises, create, shape)
    for name, (exercises, create, shape, exporters) in ARCHITECTURES.items()
    for exporter, describe in exporters
]
