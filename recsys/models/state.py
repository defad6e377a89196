"""What the state of a model must look like, declared by each model and checked in one place.

A state is a dictionary of named tensors: what `get_state` returns and `weights.safetensors` holds. It may come from a
damaged or a crafted file, so nothing in it is used before `check_state` has compared it with the model's declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.errors import DataError


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor must be.

    Parameters
    ----------
    shape : tuple of int or str
        A number is that size. A name is any size, the same wherever the name occurs in the state of the model.
    dtype : torch.dtype
        Exactly this type.
    low : float
        Smallest value allowed.
    infinite : bool
        Whether infinity is a value. NaN never is.
    """

    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float32
    low: float = -float("inf")
    infinite: bool = False


@dataclass(frozen=True)
class CsrSpec:
    """What the three tensors `data`, `indices` and `indptr` of a CSR matrix must be.

    Row pointers rise from 0 to the number of cells; the columns of a row are in range, sorted and distinct.
    """

    rows: int | str
    columns: int
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class StateSpec:
    """The whole state of a model: tensors by name, CSR matrices by the prefix of their three names."""

    tensors: Mapping[str, TensorSpec] = field(default_factory=dict)
    matrices: Mapping[str, CsrSpec] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Names of all tensors, those of matrices included."""
        return {*self.tensors, *(prefix + part for prefix in self.matrices for part in _PARTS)}

    def prefixed(self, prefix: str) -> StateSpec:
        """Return the same declaration with a prefix before every name, sizes included."""

        def renamed(size: int | str) -> int | str:
            return prefix + size if isinstance(size, str) else size

        tensors = {
            prefix + name: TensorSpec(tuple(map(renamed, spec.shape)), spec.dtype, spec.low, spec.infinite)
            for name, spec in self.tensors.items()
        }
        matrices = {
            prefix + name: CsrSpec(renamed(spec.rows), spec.columns, spec.dtype) for name, spec in self.matrices.items()
        }
        return StateSpec(tensors, matrices)

    def __or__(self, other: StateSpec) -> StateSpec:
        return StateSpec({**self.tensors, **other.tensors}, {**self.matrices, **other.matrices})


USERS = "users"  # the name of a size that is the number of training users
_PARTS = ("data", "indices", "indptr")
_INTEGERS = (torch.int32, torch.int64)


def module_spec(network: nn.Module) -> StateSpec:
    """Return the declaration of a network's parameters and buffers; the network may be on the meta device."""
    return StateSpec({name: TensorSpec(tuple(t.shape), t.dtype) for name, t in network.state_dict().items()})


def check_state(state: Mapping[str, Tensor], spec: StateSpec) -> None:
    """Compare a state with its declaration.

    Parameters
    ----------
    state : mapping of str to Tensor
    spec : StateSpec

    Raises
    ------
    DataError
        With the name of the first tensor that is missing, not expected, of another type or shape, not finite, out of
        its range, or not a valid part of a CSR matrix.
    """
    for name in sorted(spec.names - state.keys()):
        raise DataError(f"Expected the tensor {name!r} in the state, found {', '.join(sorted(state)) or 'none'}.")
    for name in sorted(state.keys() - spec.names):
        raise DataError(f"Expected no tensor {name!r} in the state; this model has {', '.join(sorted(spec.names))}.")
    sizes: dict[str, int] = {}
    for name, expected in spec.tensors.items():
        _check_tensor(name, state[name], expected, sizes)
    for prefix, matrix in spec.matrices.items():
        _check_csr(prefix, state, matrix, sizes)


def _check_tensor(name: str, tensor: Tensor, spec: TensorSpec, sizes: dict[str, int]) -> None:
    if tensor.dtype != spec.dtype:
        raise DataError(f"Expected {name!r} of type {spec.dtype}, found {tensor.dtype}.")
    _check_shape(name, tensor, spec.shape, sizes)
    if tensor.numel() and tensor.is_floating_point():
        low, high = (float(bound) for bound in tensor.detach().aminmax())  # without a copy; NaN comes through
        if low != low or (not spec.infinite and not (np.isfinite(low) and np.isfinite(high))):
            raise DataError(f"Expected finite numbers in {name!r}, found NaN or infinity.")
        if low < spec.low:
            raise DataError(f"Expected numbers of at least {spec.low:g} in {name!r}, found {low:g}.")


def _check_shape(name: str, tensor: Tensor, shape: tuple[int | str, ...], sizes: dict[str, int]) -> None:
    """Sizes that are names take the first size found under the name."""
    if tensor.dim() == len(shape):
        wanted = [
            sizes.setdefault(size, found) if isinstance(size, str) else size
            for size, found in zip(shape, tensor.shape, strict=True)
        ]
        if list(tensor.shape) == wanted:
            return
    raise DataError(f"Expected {name!r} of shape {_written(shape, sizes)}, found {tuple(tensor.shape)}.")


def _written(shape: tuple[int | str, ...], sizes: Mapping[str, int]) -> str:
    return f"({', '.join(str(sizes.get(size, size) if isinstance(size, str) else size) for size in shape)})"


def _check_csr(prefix: str, state: Mapping[str, Tensor], spec: CsrSpec, sizes: dict[str, int]) -> None:
    data, indices, indptr = (state[prefix + part] for part in _PARTS)
    for name, tensor in ((f"{prefix}indices", indices), (f"{prefix}indptr", indptr)):
        if tensor.dtype not in _INTEGERS:
            raise DataError(f"Expected {name!r} of type int32 or int64, found {tensor.dtype}.")
    cells = f"{prefix}cells"
    _check_tensor(f"{prefix}data", data, TensorSpec((cells,), spec.dtype), sizes)
    _check_shape(f"{prefix}indices", indices, (cells,), sizes)
    rows = spec.rows + 1 if isinstance(spec.rows, int) else f"{spec.rows} + 1"
    _check_shape(f"{prefix}indptr", indptr, (rows,), sizes)
    pointers, columns = indptr.numpy(force=True).astype(np.int64), indices.numpy(force=True)
    if not len(pointers) or pointers[0] != 0 or pointers[-1] != len(columns) or (np.diff(pointers) < 0).any():
        raise DataError(f"Expected '{prefix}indptr' to rise from 0 to the {len(columns)} cells of the matrix.")
    if len(columns) and (columns.min() < 0 or columns.max() >= spec.columns):
        raise DataError(f"Expected '{prefix}indices' in 0..{spec.columns - 1}, found {columns.min()}..{columns.max()}.")
    rises = np.diff(columns) > 0
    starts = pointers[1:-1]
    rises[starts[(starts > 0) & (starts < len(columns))] - 1] = True  # a new row may begin anywhere
    if not rises.all():
        raise DataError(f"Expected '{prefix}indices' sorted and distinct within each row.")


def csr_state(matrix: csr_matrix, prefix: str = "") -> dict[str, Tensor]:
    """Return the three arrays of a CSR matrix as tensors by name."""
    return {prefix + part: torch.as_tensor(getattr(matrix, part)) for part in _PARTS}


def csr_from_state(state: Mapping[str, Tensor], columns: int, prefix: str = "") -> csr_matrix:
    """Return the CSR matrix (rows, columns) of a checked state; the inverse of `csr_state`."""
    data, indices, indptr = (state[prefix + part].numpy(force=True) for part in _PARTS)
    return csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, columns))
