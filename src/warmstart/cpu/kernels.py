"""Kernels of a decoding step for a CPU with AVX-512, compiled by the machine's own GCC on request.

    warmstart.cpu.build()    # compiles them if they are not built yet
    kernels = cpu_kernels()  # loads them; None: use torch's operations

The tasks of ``run.py`` that generate on a CPU build the kernels. The model class only loads built kernels: it starts no
compiler and writes no file. A decoding step is limited by memory bandwidth, which torch's products do not reach for few
rows. The library is stored in ``~/.cache/warmstart/kernels-<user id>`` (or under ``$WARMSTART_CACHE``), named by a hash
of source and processor. ``WARMSTART_CPU=0`` switches the whole fast path off; ``WARMSTART_KERNELS=0`` only these
kernels.

Shapes: B batch, N heads, T queries, S keys, D head size; P memory rows; K inner size and C columns of a product.
"""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from warmstart.atomic import replacing
from warmstart.cache import cache_root
from warmstart.errors import UserError
from warmstart.locks import locked

HEAD_SIZES = (32, 64, 96, 128, 256)
_SOURCES = Path(__file__).with_name("csrc")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
_LANES = 16
_DTYPES = (torch.float32, torch.bfloat16)
_log = logging.getLogger(__name__)


class CpuKernels:
    """The compiled functions. They access raw memory, so each method checks its arguments."""

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        pointer, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)
        self._attend = loaded.warmstart_attend
        self._attend.argtypes = [ctypes.c_int, *[pointer] * 6, sizes, sizes, ctypes.c_float]
        self._in_order = loaded.warmstart_in_order
        self._in_order.argtypes = [*[pointer] * 3, *[ctypes.c_long] * 5, sizes]
        self._product = loaded.warmstart_product
        self._product.argtypes = [*[pointer] * 4, *[ctypes.c_long] * 3]
        self._product.restype = None
        self._gelu = loaded.warmstart_gelu
        self._gelu.argtypes = [ctypes.c_int, pointer, pointer, ctypes.c_long]
        self._gelu.restype = None
        self._log_softmax = loaded.warmstart_log_softmax
        self._log_softmax.argtypes = [ctypes.c_int, pointer, ctypes.c_long, pointer, ctypes.c_long, ctypes.c_long]
        self._log_softmax.restype = None

    @staticmethod
    def can_attend(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, index_BS: Tensor | None = None
    ) -> bool:
        """Return whether ``attend`` supports these tensors.

        They must be plain CPU tensors of one dtype with a head size in ``HEAD_SIZES``, adjacent elements in a head, and
        one key head for each query head. The arguments are those of ``attend``.
        """
        tensors = (query, key, value)
        return (
            all(x.dim() == 4 for x in tensors)
            and are_plain(*tensors)
            and key.shape == value.shape
            and query.shape[1] == key.shape[1]
            and query.shape[3] == key.shape[3]
            and (key.shape[0] == query.shape[0] if index_BS is None else _is_index(index_BS, query.shape[0], key.shape))
            and query.dtype in _DTYPES
            and all(x.dtype == query.dtype and x.stride(-1) == 1 for x in tensors)
            and query.shape[3] in HEAD_SIZES
            and key.shape[2] > 0
            and (mask is None or _is_mask(mask, query, key.shape[2] if index_BS is None else index_BS.shape[1]))
        )

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        index_BS: Tensor | None = None,
    ) -> Tensor | None:
        """Compute attention with scores in float32.

        Args:
            query: (B, N, T, D).
            key: (B, N, S, D), or with ``index_BS`` (P, N, S or more, D).
            value: As ``key``.
            mask: (B or 1, 1, T or 1, S), bool, True is visible; None: all keys are visible.
            scale: Factor of the scores.
            index_BS: (B, S), the memory row with the key and value of each position; None: row b for example b.

        Returns:
            (B, N, T, D), stored as (B, T, N, D), the layout that a decoder needs. None if the kernel does not support
            these tensors.

        Raises:
            ValueError: ``index_BS`` contains a row that ``key`` does not have.
        """
        if not self.can_attend(query, key, value, mask, index_BS):
            return None
        batch, heads, queries, head_size = query.shape
        keys = key.shape[2] if index_BS is None else index_BS.shape[1]
        result = query.new_empty(batch, queries, heads, head_size).transpose(1, 2)
        mask = mask if mask is None else mask.expand(batch, 1, queries, -1)
        steps = [step for x in (query, key, value) for step in x.stride()[:3]]
        steps += [0, 0, 0] if mask is None else [mask.stride(0), 0, mask.stride(2)]
        size = (ctypes.c_int64 * 6)(batch, heads, queries, keys, head_size, key.shape[0])
        step = (ctypes.c_int64 * 15)(*steps, *result.stride()[:3])
        index_BS = index_BS if index_BS is None else index_BS.contiguous()
        pointers = (x if x is None else x.data_ptr() for x in (query, key, value, index_BS, mask))
        if self._attend(query.dtype == torch.bfloat16, *pointers, result.data_ptr(), size, step, scale):
            raise ValueError(f"The index of a KV cache contains a row outside its {key.shape[0]} memory rows.")
        return result

    def in_order(self, memory: Tensor, index_BS: Tensor) -> Tensor:
        """Copy keys or values of an indexed KV cache to a plain tensor.

        Args:
            memory: (P, N, S or more, D).
            index_BS: (B, S), the memory row of each position.

        Returns:
            (B, N, S, D), contiguous.

        Raises:
            ValueError: The index does not fit the memory, or the memory is not a plain CPU tensor.
        """
        plain = memory.dim() == 4 and are_plain(memory) and memory.stride(-1) == 1
        if not plain or not _is_index(index_BS, len(index_BS), memory.shape):
            raise ValueError(f"{_described(memory)} cannot be copied by an index {_described(index_BS)}.")
        (rows, length), (held, heads, _, head_size) = index_BS.shape, memory.shape
        index_BS, result = index_BS.contiguous(), memory.new_empty(rows, heads, length, head_size)
        steps = (ctypes.c_int64 * 3)(*(step * memory.element_size() for step in memory.stride()[:3]))
        pointers = memory.data_ptr(), index_BS.data_ptr(), result.data_ptr()
        if self._in_order(*pointers, rows, heads, length, head_size * memory.element_size(), held, steps):
            raise ValueError(f"The index of a KV cache contains a row outside its {held} memory rows.")
        return result

    @staticmethod
    def prepack(weight_CK: Tensor) -> Tensor:
        """Prepack a float32 matrix (C, K): columns in groups of 16, padded with zeros to an even number of groups.

        Returns:
            (groups, K, 16).
        """
        columns, inner = weight_CK.shape
        prepacked = weight_CK.new_empty(_groups(columns), inner, _LANES)
        whole, rest = divmod(columns, _LANES)
        prepacked[:whole] = weight_CK[: whole * _LANES].unflatten(0, (whole, _LANES)).transpose(1, 2)
        prepacked[whole:] = 0
        if rest:
            prepacked[whole, :, :rest] = weight_CK[whole * _LANES :].t()
        return prepacked

    def product(self, rows: Tensor, prepacked: Tensor, bias: Tensor | None, columns: int) -> Tensor:
        """Compute ``F.linear`` in float32 with a matrix from ``prepack``.

        Args:
            rows: (..., K).
            prepacked: The prepacked matrix (groups, K, 16).
            bias: (C,), or None.
            columns: C of the original matrix.

        Returns:
            (..., C).

        Raises:
            ValueError: The sizes do not fit, or a tensor is not a plain float32 CPU tensor.
        """
        inner = rows.shape[-1]
        given = (rows, prepacked) if bias is None else (rows, prepacked, bias)
        if (
            not are_plain(*given)
            or any(x.dtype != torch.float32 for x in given)
            or prepacked.shape != (_groups(columns), inner, _LANES)
            or not prepacked.is_contiguous()
            or inner == 0
            or (bias is not None and (bias.shape != (columns,) or not bias.is_contiguous()))
        ):
            raise ValueError(f"Cannot compute a product of {columns} columns from {', '.join(map(_described, given))}.")
        rows = rows.contiguous()
        result = rows.new_empty(*rows.shape[:-1], columns)
        pointers = rows.data_ptr(), prepacked.data_ptr(), None if bias is None else bias.data_ptr(), result.data_ptr()
        self._product(*pointers, rows.numel() // inner, columns, inner)
        return result

    def gelu(self, input: Tensor) -> Tensor:
        """Compute GELU's tanh approximation.

        Args:
            input: Any shape, contiguous, float32 or bfloat16.

        Raises:
            ValueError: ``input`` is a different kind of tensor.
        """
        if not are_plain(input) or input.dtype not in _DTYPES or not input.is_contiguous():
            raise ValueError(f"The GELU kernel takes contiguous CPU tensors, not {_described(input)}.")
        result = torch.empty_like(input)
        low = input.dtype == torch.bfloat16
        self._gelu(low, input.data_ptr(), result.data_ptr(), input.numel())
        return result

    def log_softmax(self, rows_RV: Tensor) -> Tensor:
        """Compute log probabilities in float32.

        Args:
            rows_RV: (R, V), float32 or bfloat16, with adjacent elements in a row.

        Returns:
            (R, V), float32.

        Raises:
            ValueError: ``rows_RV`` is a different kind of tensor.
        """
        if not are_plain(rows_RV) or rows_RV.dtype not in _DTYPES or rows_RV.dim() != 2 or rows_RV.stride(1) != 1:
            raise ValueError(f"The log_softmax kernel takes a 2-dimensional CPU tensor, not {_described(rows_RV)}.")
        rows, vocabulary = rows_RV.shape
        result = rows_RV.new_empty(rows, vocabulary, dtype=torch.float32)
        low = rows_RV.dtype == torch.bfloat16
        self._log_softmax(low, rows_RV.data_ptr(), rows_RV.stride(0), result.data_ptr(), rows, vocabulary)
        return result


def _groups(columns: int) -> int:
    """Return the number of column groups in a prepacked matrix: even, because the kernel reads two at a time."""
    return 2 * -(-columns // (2 * _LANES))


def _is_index(index_BS: Tensor, rows: int, memory: torch.Size) -> bool:
    return (
        index_BS.dim() == 2
        and index_BS.dtype == torch.int64
        and are_plain(index_BS)
        and index_BS.shape[0] == rows
        and 0 < index_BS.shape[1] <= memory[2]
    )


def _is_mask(mask: Tensor, query: Tensor, keys: int) -> bool:
    return (
        mask.dim() == 4
        and mask.dtype == torch.bool
        and are_plain(mask)
        and mask.stride(-1) == 1
        and mask.shape[0] in (1, query.shape[0])
        and mask.shape[1] == 1
        and mask.shape[2] in (1, query.shape[2])
        and mask.shape[3] == keys
    )


def _described(tensor: Tensor) -> str:
    return f"{type(tensor).__name__}{tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}"


def are_plain(*tensors: Tensor) -> bool:
    """Return whether all are ordinary CPU tensors: not a subclass (fake, sharded), sparse or a negative view."""
    return all(
        type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and not x.is_neg()
        for x in tensors
    )


def build_cpu_kernels() -> bool:
    """Compile the kernels if they are not built yet, and load them; see ``warmstart.cpu.build``."""
    if not _enabled():
        return False
    try:
        library = _library()
        if not _is_built(library):
            compiler = shutil.which("g++")
            if compiler is None:
                _log.info("The CPU kernels were not built, because there is no g++; generation on the CPU is slower.")
                return False
            _compile(library, compiler)
    except (OSError, UserError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        _log.warning("The CPU kernels were not built, so generation on the CPU is slower: %s", reason)
        return False
    cpu_kernels.cache_clear()
    return cpu_kernels() is not None


@functools.cache
def cpu_kernels() -> CpuKernels | None:
    """Load the built kernels; None if they are not built or are disabled. Never compiles or writes a file."""
    if not _enabled():
        return None
    try:
        library = _library()
        return CpuKernels(library) if _is_built(library) else None
    except (OSError, AttributeError) as error:
        _log.warning("The CPU kernels cannot be loaded, so generation on the CPU is slower: %s", error)
        return None


def _enabled() -> bool:
    return (
        os.environ.get("WARMSTART_KERNELS") != "0"
        and sys.platform == "linux"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def _sources() -> list[Path]:
    return sorted(path for path in _SOURCES.iterdir() if path.suffix in (".cpp", ".h"))


def _library() -> Path:
    """Return the path of the compiled library for this source and processor, whether or not it exists."""
    processor = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("flags")), "")
    about = (*(path.read_text() for path in _sources()), " ".join(_FLAGS), processor)
    name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    return cache_root() / f"kernels-{os.getuid()}" / f"{name}.so"


def _is_built(library: Path) -> bool:
    """Return whether the library exists.

    Raises:
        OSError: Another user can write to its folder.
    """
    if not library.parent.is_dir():
        return False
    owner = library.parent.stat()
    if owner.st_uid != os.getuid() or owner.st_mode & 0o022:
        raise OSError(f"{library.parent} is writable by other users, so no kernels are loaded from it. Remove it.")
    return library.is_file()


def _compile(library: Path, compiler: str) -> None:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    if "Free Software Foundation" not in version:
        raise OSError(f"{compiler} is not GCC. Install GCC, because the kernels have to use torch's OpenMP library.")
    library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(library.with_name(f"{library.name}.lock")):
        if _is_built(library):  # another process has compiled it meanwhile
            return
        _log.info("Compiling CPU kernels for decoding with %s, once (up to a minute): %s", compiler, library)
        with tempfile.TemporaryDirectory() as folder:
            compiled = Path(folder) / library.name
            files = [str(path) for path in _sources() if path.suffix == ".cpp"]
            command = [compiler, *_FLAGS, *files, "-o", str(compiled)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
            with replacing(library, "wb") as file:
                file.write(compiled.read_bytes())
