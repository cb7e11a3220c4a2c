"""Builds ONNX graphs node by node. The same calls give the same bytes."""
import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

OPSET = 17
_TYPES = {"u8": TensorProto.UINT8, "f32": TensorProto.FLOAT}


class Graph:
    def __init__(self, name):
        self._name, self._nodes, self._weights, self._inputs, self._outputs = name, [], [], [], []

    def input(self, name, type_name, shape):
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[type_name], ["N", *shape]))
        return name

    def output(self, tensor, name, width):
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]))

    def weight(self, array):
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind, *inputs, **attributes):
        """Adds a node; arrays among the inputs become weights. Returns the name of its output."""
        names = [x if isinstance(x, str) else self.weight(x) for x in inputs]
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return name

    def conv(self, x, weight, bias, strides, pads, groups=1):
        return self.node("Conv", x, weight, bias, kernel_shape=list(weight.shape[2:]), strides=strides, pads=pads,
                         group=groups)

    def relu6(self, x):
        return self.node("Clip", x, np.float32(0), np.float32(6))

    def bytes(self):
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="kinodex")
        model.ir_version = 8
        checker.check_model(model)
        return model.SerializeToString(deterministic=True)


def same_pads(sizes, kernels, strides):
    """TensorFlow's SAME padding as ONNX pads: what is odd goes after."""
    before, after = [], []
    for size, kernel, stride in zip(sizes, kernels, strides):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


def fold(weight, mean, variance, beta, gamma=1.0, epsilon=1e-3):
    """Folds a batch norm into the convolution before it. In float64, so that the f32 result has one rounding."""
    w, mean, variance, beta = (np.asarray(a, np.float64) for a in (weight, mean, variance, beta))
    scale = np.asarray(gamma, np.float64) / np.sqrt(variance + epsilon)
    folded = w * scale.reshape(-1, *[1] * (w.ndim - 1))
    return folded.astype(np.float32), (beta - mean * scale).astype(np.float32)
