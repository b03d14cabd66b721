"""A decoding step's kernels for a CPU with AVX-512, compiled by the machine's own GCC on request.

    warmstart.build_cpu_kernels()  # compiles them if they are not built yet
    kernels = cpu_kernels()        # loads what is built; None: torch's operations serve

The tasks of ``run.py`` that generate on a CPU build them. The model's class only loads what is built: it starts no
compiler and writes no file. A decoding step reads all weights and caches for a few rows, and torch's products reach
half to two thirds of the memory's bandwidth at that (docs/performance.md). The compiled library lies in
``~/.cache/warmstart/kernels-<user id>`` (or below ``$WARMSTART_CACHE``), named by source and processor.
``WARMSTART_KERNELS=0`` disables the kernels.

Shapes: B batch, N heads, T queries, S keys, D width of a head; M rows, K inner width, C columns of the product.
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

WIDTHS = (32, 64, 96, 128, 256)  # of a head
_SOURCES = Path(__file__).with_name("csrc")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
_LANES = 16
_log = logging.getLogger(__name__)


class CpuKernels:
    """The compiled functions, for tensors that were checked."""

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        pointer, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)
        self._attend = loaded.warmstart_attend
        self._attend.argtypes = [ctypes.c_int, *[pointer] * 6, sizes, sizes, ctypes.c_float]
        self._in_order = loaded.warmstart_in_order
        self._in_order.argtypes = [*[pointer] * 3, *[ctypes.c_long] * 4, sizes]
        self._in_order.restype = None
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
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, places: Tensor | None = None
    ) -> bool:
        """Whether :meth:`attend` is made for these, and their sizes agree: it reads memory and checks nothing itself.

        Plain CPU tensors of one type, heads of a known width whose elements lie together, keys for each head and query.
        That each place is a row of the memory is for the caller to know.
        """
        tensors = (query, key, value)
        rows, keys = (key.shape[0], key.shape[2]) if places is None else places.shape
        return (
            query.shape[:2] == (rows, key.shape[1])
            and query.shape[-1] == key.shape[-1]
            and (keys == key.shape[2] if places is None else 0 < keys <= key.shape[2])
            and key.shape == value.shape
            and query.dtype in (torch.float32, torch.bfloat16)
            and all(x.dtype == query.dtype and x.stride(-1) == 1 for x in tensors)
            and query.shape[-1] in WIDTHS
            and key.shape[2] > 0
            and (mask is None or (mask.dtype == torch.bool and mask.stride(-1) == 1))
            and (mask is None or (mask.shape[1] == 1 and mask.shape[-1] == keys))
            and are_plain(*tensors, *([] if mask is None else [mask]))
        )

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        places: Tensor | None = None,
    ) -> Tensor:
        """What (B, N, T, D) read from (B, N, S, D); ``mask`` (B, 1, T, S) is bool, True is read.

        With ``places`` (B, S) row b's key and value at position s stand in row ``places[b, s]`` of a memory
        (any, N, S or more, D).
        The result lies in memory as (B, T, N, D), as a decoder wants it next.
        """
        batch, heads, queries, width = query.shape
        read = query.new_empty(batch, queries, heads, width).transpose(1, 2)
        mask = mask if mask is None else mask.expand(batch, 1, queries, -1)
        steps = [step for x in (query, key, value) for step in x.stride()[:3]]
        steps += [0, 0, 0] if mask is None else [mask.stride(0), 0, mask.stride(2)]
        size = (ctypes.c_int64 * 5)(batch, heads, queries, key.shape[2] if places is None else places.shape[1], width)
        step = (ctypes.c_int64 * 15)(*steps, *read.stride()[:3])
        places = places if places is None else places.contiguous()
        given = (x if x is None else x.data_ptr() for x in (query, key, value, places, mask))
        unknown = self._attend(query.dtype == torch.bfloat16, *given, read.data_ptr(), size, step, scale)
        assert not unknown, f"no kernel for heads of width {width}"
        return read

    def in_order(self, memory: Tensor, places: Tensor) -> Tensor:
        """Rows (B, N, S, D) of which position s stands in row ``places[b, s]`` of ``memory`` (any, N, S or more, D)."""
        (rows, length), (_, heads, _, width) = places.shape, memory.shape
        assert memory.stride(-1) == 1
        assert length <= memory.shape[2]
        places, result = places.contiguous(), memory.new_empty(rows, heads, length, width)
        steps = (ctypes.c_int64 * 3)(*(step * memory.element_size() for step in memory.stride()[:3]))
        pointers = memory.data_ptr(), places.data_ptr(), result.data_ptr()
        self._in_order(*pointers, rows, heads, length, width * memory.element_size(), steps)
        return result

    @staticmethod
    def laid_out(weight: Tensor) -> Tensor:
        """A float32 matrix (C, K) with its columns in groups of 16: (C / 16, K, 16), zeros up to an even number."""
        columns, inner = weight.shape
        groups = 2 * -(-columns // (2 * _LANES))
        laid_out = weight.new_empty(groups, inner, _LANES)
        whole, rest = divmod(columns, _LANES)
        laid_out[:whole] = weight[: whole * _LANES].unflatten(0, (whole, _LANES)).transpose(1, 2)
        laid_out[whole:] = 0
        if rest:
            laid_out[whole, :, :rest] = weight[whole * _LANES :].t()
        return laid_out

    def product(self, rows: Tensor, laid_out: Tensor, bias: Tensor | None, columns: int) -> Tensor:
        """``F.linear`` of rows (..., K) with a matrix of so many ``columns`` from :meth:`laid_out`, in float32."""
        inner = rows.shape[-1]
        assert inner == laid_out.shape[1], f"rows of {inner} and a matrix of {laid_out.shape[1]}"
        rows = rows.contiguous()
        result = rows.new_empty(*rows.shape[:-1], columns)
        pointers = rows.data_ptr(), laid_out.data_ptr(), None if bias is None else bias.data_ptr(), result.data_ptr()
        self._product(*pointers, rows.numel() // inner, columns, inner)
        return result

    def gelu(self, input: Tensor) -> Tensor:
        """GELU's approximation by tanh, of a contiguous tensor of float32 or bfloat16."""
        assert input.is_contiguous()
        result = torch.empty_like(input)
        low = input.dtype == torch.bfloat16
        self._gelu(low, input.data_ptr(), result.data_ptr(), input.numel())
        return result

    def log_softmax(self, rows_RV: Tensor) -> Tensor:
        """Log probabilities (R, V) in float32, of rows of float32 or bfloat16 whose numbers lie together."""
        rows, width = rows_RV.shape
        assert rows_RV.stride(1) == 1
        result = rows_RV.new_empty(rows, width, dtype=torch.float32)
        low = rows_RV.dtype == torch.bfloat16
        self._log_softmax(low, rows_RV.data_ptr(), rows_RV.stride(0), result.data_ptr(), rows, width)
        return result


def are_plain(*tensors: Tensor) -> bool:
    """Whether all have memory of their own on a CPU: no subclass (fake, sharded), no negative view."""
    return all(
        type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and not x.is_neg()
        for x in tensors
    )


def build_cpu_kernels() -> bool:
    """Compile the CPU kernels for decoding if they are not built yet (10 to 30 s, logged), and enable them.

    Needs Linux, AVX-512 and GCC (``g++``). The library is kept in ``~/.cache/warmstart`` (or ``$WARMSTART_CACHE``), so
    it is compiled once for each user and processor. Call it once before ``generate``; without it, ``generate`` uses
    the kernels only if an earlier call built them. ``WARMSTART_KERNELS=0`` disables them.

    Returns:
        Whether ``generate`` uses the kernels in this process. If they cannot be built, the reason is logged and
        torch's operations serve.
    """
    if not _enabled():
        return False
    try:
        library = _library()
        if not _is_built(library):
            compiler = shutil.which("g++")
            if compiler is None:
                _log.info("There is no g++ to build the CPU kernels with: torch's operations serve (slower).")
                return False
            _compile(library, compiler)
    except (OSError, UserError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        _log.warning("The CPU kernels were not built, torch's operations serve (slower): %s", reason)
        return False
    cpu_kernels.cache_clear()
    return cpu_kernels() is not None


@functools.cache
def cpu_kernels() -> CpuKernels | None:
    """Load the kernels that :func:`build_cpu_kernels` built; None where there are none, or they are disabled.

    Starts no compiler and writes nothing.
    """
    if not _enabled():
        return None
    try:
        library = _library()
        return CpuKernels(library) if _is_built(library) else None
    except (OSError, AttributeError) as error:
        _log.warning("The CPU kernels cannot be loaded, torch's operations serve (slower): %s", error)
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
    """Where the compiled kernels of this source and processor are kept, whether or not they are built."""
    processor = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("flags")), "")
    about = (*(path.read_text() for path in _sources()), " ".join(_FLAGS), processor)
    name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    return cache_root() / f"kernels-{os.getuid()}" / f"{name}.so"


def _is_built(library: Path) -> bool:
    """Whether it is there.

    Raises:
        OSError: another user could have written it.
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
        raise OSError(f"{compiler} is not GCC, whose OpenMP torch uses too.")
    library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(library.with_name(f"{library.name}.lock")):
        if _is_built(library):  # another process has compiled it meanwhile
            return
        _log.info("Compiling CPU kernels for decoding with %s (10 to 30 s, once): %s", compiler, library)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / library.name
            files = [str(path) for path in _sources() if path.suffix == ".cpp"]
            command = [compiler, *_FLAGS, *files, "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
            with replacing(library, "wb") as file:
                file.write(made.read_bytes())
