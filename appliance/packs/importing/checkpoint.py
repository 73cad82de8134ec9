"""Reading trained weights without ever running what a file says: PyTorch's ``weights_only`` and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.errors import PackError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Beside tensors, these and no others may be rebuilt: nnU-Net's training log holds numbers of numpy.
_NUMPY_NAMES = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
)
_REQUIRED = ("network_weights", "init_args", "trainer_name")
#: What torch.compile and distributed training put in front of the names of weights.
_PREFIXES = ("_orig_mod.", "module.")
#: Under which a table of weights may lie.
_TABLES = ("model", "state_dict", "network", "net", "model_state_dict")


def require_extra(
    needed: Sequence[str] = ("torch", "dynamic_network_architectures", "onnx", "openvino"),
) -> None:
    """Check that this machine can import networks.

    Parameters
    ----------
    needed
        Modules that must be there.

    Raises
    ------
    PackError
        The extra is not installed, as on the box, where it never is.
    """
    import importlib.util

    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise PackError(
            f"Networks are imported on a workstation, not on the box, and need {', '.join(missing)}: install the "
            "extra with `pip install appliance[import]` there and copy the finished pack."
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read an nnU-Net checkpoint.

    Parameters
    ----------
    path
        Such as ``fold_0/checkpoint_final.pth``.

    Returns
    -------
    dict[str, Any]
        With at least ``network_weights``, ``init_args`` and ``trainer_name``.

    Raises
    ------
    PackError
        The file is missing, cut short, not a checkpoint of nnU-Net, or wants to run something when it is read.
    """
    import torch

    content = _load(path)
    if not isinstance(content, dict) or any(key not in content for key in _REQUIRED):
        raise PackError(f"{path}: not a checkpoint of nnU-Net version 2 (it lacks one of {', '.join(_REQUIRED)}).")
    weights = content["network_weights"]
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise PackError(f"{path}: its network_weights are not a table of tensors.")
    content["network_weights"] = _finite({_plain(name): value for name, value in weights.items()}, path)
    return content


def read_weights(path: Path) -> dict[str, Any]:
    """Read a plain table of weights, as MONAI's bundles hold it.

    Parameters
    ----------
    path
        Such as ``models/model.pt``; the table may lie under one of the usual names (``model``, ``state_dict``, …).

    Returns
    -------
    dict[str, Any]
        Name to tensor.

    Raises
    ------
    PackError
        The file is missing, cut short, a TorchScript program, no table of tensors, or wants to run something.
    """
    import torch

    if is_torchscript(path):
        raise PackError(
            f"{path}: a TorchScript program and not weights; ask for the weights, or export it to ONNX and import that "
            "with --from onnx."
        )
    content = _load(path)
    for key in _TABLES:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise PackError(f"{path}: not a table of weights.")
    return _finite({_plain(str(name)): value for name, value in content.items()}, path)


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive that holds a program."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _finite(weights: dict[str, Any], path: Path) -> dict[str, Any]:
    import torch

    bad = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise PackError(f"{path}: weights that are not numbers (NaN or infinite) in {bad[0]}; the training went wrong.")
    return weights


def _load(path: Path) -> Any:
    import pickle
    import warnings

    import torch

    if not path.is_file():
        raise PackError(f"{path}: there is no such checkpoint.")
    try:
        with torch.serialization.safe_globals(_safe()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's remarks on odd pickles; what is too odd is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _unsafe(path)
        if wanted:
            raise PackError(
                f"{path}: refused, because reading it would run {', '.join(wanted)}. A checkpoint holds numbers only; "
                "ask whoever gave it to you for one."
            ) from error
        raise PackError(f"{path}: not a checkpoint, or damaged; copy it again.") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise PackError(f"{path}: cut short or damaged ({_first_line(error)}); copy it again.") from error
    return content


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _safe() -> list[Any]:
    import numpy as np

    multiarray = np._core.multiarray  # type: ignore[attr-defined]  # noqa: SLF001  # where numpy 2 keeps them
    rebuilt = {"scalar": multiarray.scalar, "_reconstruct": multiarray._reconstruct}  # noqa: SLF001
    functions: list[Any] = [(rebuilt[name.rsplit(".", 1)[1]], name) for name in _NUMPY_NAMES]
    kinds = {type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
    return [*functions, np.dtype, np.ndarray, *kinds]


def _unsafe(path: Path) -> list[str]:
    """Name what a checkpoint would call; reading the names runs nothing."""
    import torch

    allowed = {*_NUMPY_NAMES, "numpy.dtype", "numpy.ndarray"}
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  # a file that is no archive at all has no names; the caller says so
        return []
    return sorted(name for name in names if name not in allowed and not name.startswith("numpy.dtypes."))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
