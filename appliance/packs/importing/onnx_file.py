"""Import of a plain ONNX file: what the file does not say of itself stands in a specification beside it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.errors import PackError
from appliance.packs.importing.checkpoint import require_extra
from appliance.packs.importing.terms import structure_channels
from appliance.packs.importing.write import Declaration, Draft, write_pack
from appliance.packs.manifest import NetworkInput  # noqa: TC001  # pydantic reads it
from appliance.packs.new_folder import new_folder, refuse_existing
from appliance.packs.pack import load, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.packs.pack import Pack


class Scaling(BaseModel):
    """What is done to Hounsfield units before the network sees them: clip, subtract, divide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low_hu: float | None = Field(None, title="Lower end of the clipping")
    high_hu: float | None = Field(None, title="Upper end of the clipping")
    subtract: float = Field(0.0, title="Subtracted after clipping")
    divide: float = Field(1.0, title="Divided by", gt=0)


class Spec(BaseModel):
    """The whole of a specification."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: NetworkInput
    scaling: Scaling = Scaling()
    classes: dict[str, int] = Field(title="Class name to output channel; channel 0 is background", min_length=1)
    structures: dict[str, str] = Field(default={}, title="Class name to structure, or to nothing to leave it out")


def import_onnx(source: Path, spec: Path, out: Path, declaration: Declaration, *, half: bool = True) -> Pack:
    """Make a pack of an ONNX file.

    Parameters
    ----------
    source
        Takes ``(1, 1, slices, rows, columns)`` float32 and gives logits ``(1, channels, slices, rows, columns)``.
    spec
        TOML: ``[input]`` as in a pack's manifest, ``[scaling]``, ``[classes]`` and ``[structures]``.
    out
        Folder of the pack; it must not exist yet.
    declaration
        Licence, intended use and all else that the file does not say.
    half
        Store the weights of OpenVINO's form in half precision.

    Raises
    ------
    PackError
        With a sentence for whatever does not fit: no ONNX, several inputs, another shape, unknown operators, NaN.
    """
    require_extra()
    refuse_existing(out)
    wanted = _read_spec(spec)
    channels = structure_channels(wanted.classes, wanted.structures)
    model = _read_model(source)
    with new_folder(out) as work:
        from appliance.packs.importing.graph import write_ir

        _put_in_hounsfield(model, wanted.scaling)
        _write(model, wanted.input.patch, work / "network.onnx", source)
        write_ir(work / "network.onnx", work / "network.xml", half=half)
        draft = Draft(
            declaration,
            wanted.input,
            _intensity(wanted.scaling),
            channels,
            (
                {"engine": "openvino", "precisions": ["f32"], "path": "network.xml"},
                {"engine": "onnxruntime", "precisions": ["f32"], "path": "network.onnx"},
            ),
            f"ONNX file {source.name}",
            (f"{source.name}: SHA-256 {sha256_of(source)}", f"Axes: {wanted.input.orientation}. The caller said so."),
        )
        write_pack(work, draft)
    return load(out)


def _read_spec(path: Path) -> Spec:
    try:
        return Spec.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PackError(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PackError(f"{path}: not a TOML file: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise PackError(f"{path}: {where}: {first['msg']}.") from error


def _read_model(path: Path) -> Any:
    import onnx

    if not path.is_file():
        raise PackError(f"{path}: there is no such file.")
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's errors and the checker's share no base class but this one
        said = " ".join(str(error).split())[:300]
        raise PackError(f"{path}: not an ONNX file, or damaged: {said}") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise PackError(
            f"{path}: has {len(inputs)} inputs and {len(model.graph.output)} outputs; packs need one of each."
        )
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise PackError(f"{path}: its input is not float32.")
    return model


def _put_in_hounsfield(model: Any, scaling: Scaling) -> None:
    """Put clipping and scaling before the network's first node, so that it takes Hounsfield units."""
    from onnx import TensorProto, helper

    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    entry = next(item for item in graph.input if item.name not in weights)
    inside, steps, current = entry.name, [], "appliance_hu"
    entry.name = current
    figures = (
        ("Max", scaling.low_hu),
        ("Min", scaling.high_hu),
        ("Sub", scaling.subtract or None),
        ("Div", scaling.divide if scaling.divide != 1.0 else None),
    )
    for operator, figure in figures:
        if figure is not None:
            constant, after = f"appliance_{operator.lower()}_by", f"appliance_{operator.lower()}"
            graph.initializer.append(helper.make_tensor(constant, TensorProto.FLOAT, [], [figure]))
            steps.append(helper.make_node(operator, [current, constant], [after]))
            current = after
    steps.append(helper.make_node("Identity", [current], [inside]))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(steps + nodes)


def _write(model: Any, patch: tuple[int, int, int], path: Path, source: Path) -> None:
    """Fix the input's shape and write the file."""
    import onnx

    shape = model.graph.input[[item.name for item in model.graph.input].index("appliance_hu")].type.tensor_type.shape
    wanted = (1, 1, *patch)
    fixed = [dim.dim_value for dim in shape.dim]
    if len(fixed) != len(wanted) or any(have and have != want for have, want in zip(fixed, wanted, strict=True)):
        raise PackError(f"{source}: takes shape {fixed} (0 is free), which is not {list(wanted)} of the specification.")
    for dim, want in zip(shape.dim, wanted, strict=True):
        dim.dim_value = want
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def _intensity(scaling: Scaling) -> dict[str, Any]:
    if scaling.low_hu is None and scaling.high_hu is None:
        return {"kind": "network"}
    known = {
        "low_hu": scaling.low_hu,
        "high_hu": scaling.high_hu,
        "mean_hu": scaling.subtract,
        "deviation_hu": scaling.divide,
    }
    return {"kind": "window", **{key: value for key, value in known.items() if value is not None}}
