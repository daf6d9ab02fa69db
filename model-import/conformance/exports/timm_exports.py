"""Small variants of known architectures, from torchvision's and timm's classes, by both exporters of torch."""

from timm.models.convnext import ConvNeXt
from timm.models.edgenext import EdgeNeXt
from timm.models.efficientformer import EfficientFormer
from timm.models.levit import Levit
from timm.models.regnet import RegNet, RegNetCfg
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import Block
from torchvision.models import ShuffleNetV2

from torch_exports import dynamo, legacy

CLASSES = 6
LARGER = [1, 3, 64, 64]


def shufflenet():
    return ShuffleNetV2([1, 2, 1], [8, 8, 16, 24, 32], num_classes=CLASSES)


def edgenext():
    return EdgeNeXt(
        num_classes=CLASSES,
        dims=(8, 8, 16, 16),
        depths=(1, 1, 2, 1),
        global_block_counts=(0, 1, 1, 1),
        heads=(2, 2, 2, 2),
        d2_scales=(2, 2, 3, 4),
        expand_ratio=2,
    )


def deit():
    return VisionTransformer(
        img_size=32, patch_size=8, num_classes=CLASSES, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2
    )


def levit():
    return Levit(
        img_size=64,
        num_classes=CLASSES,
        embed_dim=(16, 16, 24),
        key_dim=8,
        depth=(1, 1, 1),
        num_heads=(1, 2, 2),
        attn_ratio=2,
        mlp_ratio=2,
    )


def efficientformer():
    return EfficientFormer(
        depths=(1, 1, 1, 2), embed_dims=(8, 8, 16, 16), num_classes=CLASSES, mlp_ratios=2, num_vit=1, resolution=2
    )


def resnet():
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=CLASSES, stem_width=8, channels=(4, 8, 8, 16))


def convnext():
    return ConvNeXt(num_classes=CLASSES, depths=(1, 1, 2, 1), dims=(8, 8, 16, 16))


def regnet():
    return RegNet(RegNetCfg(depth=4, w0=8, wa=4.0, wm=2.0, group_size=4, se_ratio=0.25, stem_width=8), num_classes=CLASSES)
