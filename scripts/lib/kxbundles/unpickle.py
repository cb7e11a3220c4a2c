"""Reads weights out of pickles without running what a pickle could ask for: only the names listed here exist."""
import collections
import pickle

import numpy as np

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Tensor:
    """What torch._utils._rebuild_tensor_v2 was called with; the bytes come later in the file."""

    def __init__(self, storage, offset, shape, strides, *_):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


class _TorchUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")

    def persistent_load(self, saved):
        kind, dtype, key, _device, count, view = saved
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unexpected storage {saved!r}")
        return key, dtype, count


def read_torch(file):
    """The state_dict of a legacy (not zip) torch file as numpy arrays."""

    def load():
        return _TorchUnpickler(file).load()

    if load() != _TORCH_MAGIC or load() != 1001 or not load()["little_endian"]:
        raise ValueError("not a legacy torch file")
    tensors = load()
    dtypes = {t.storage[0]: t.storage[1] for t in tensors.values()}
    storages = {}
    for key in load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(count * dtypes[key].itemsize), dtypes[key], count)
    return {name: _view(t, storages[t.storage[0]]) for name, t in tensors.items()}


def _view(tensor, storage):
    # The weights were converted from TensorFlow: most are permuted views of its layout, so strides matter.
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides))
    if last >= len(storage) or min(tensor.strides, default=0) < 0 or tensor.offset < 0:
        raise ValueError("a tensor reaches outside its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view)


class _NumpyUnpickler(pickle.Unpickler):
    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"): ("numpy", "ndarray"),
        ("numpy", "dtype"): ("numpy", "dtype"),
    }

    def find_class(self, module, name):
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")
        return super().find_class(*self._ALLOWED[(module, name)])


def read_numpy(file):
    """A pickle of nested dicts of numpy arrays."""
    return _NumpyUnpickler(file).load()
