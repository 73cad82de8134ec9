"""The phantom as DICOM: CT Image Storage, one file per slice, or one Enhanced CT Image Storage instance.

Follows PS3.3 A.3 (CT Image IOD) and A.38 (Enhanced CT Image IOD).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from appliance.phantom.texture import generator
from appliance.phantom.truth import plain_options

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.phantom.acquisition import Scanner
    from appliance.phantom.options import PhantomOptions
    from appliance.phantom.truth import Truth

SYNTAXES: dict[str, UID] = {
    "explicit_little_endian": ExplicitVRLittleEndian,
    "implicit_little_endian": ImplicitVRLittleEndian,
    "explicit_big_endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle_lossless": RLELossless,
    "jpeg_ls_lossless": JPEGLSLossless,
    "jpeg_2000_lossless": JPEG2000Lossless,
}
KERNEL_NAME: dict[str, str] = {"soft": "B30f", "medium": "B45f", "sharp": "B70f"}
_CHARACTER_SET = {"gb18030": "GB18030", "utf-8": "ISO_IR 192"}
_DATE, _TIME = "20260105", "083000"
DATE_TIME = _DATE + _TIME
_INTERCEPT_UNSIGNED = -1024
IMPLEMENTATION_CLASS_UID = UID("2.25.302163447520918455912430270414216081925")
IMPLEMENTATION_VERSION = "PHANTOM_1"


def derived_uid(*parts: str) -> str:
    """Return a UID under 2.25 that follows from its parts (PS3.5 B.2, with a digest in the place of a random UUID)."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()[:16]
    return f"2.25.{int.from_bytes(digest, 'big')}"


class SeriesIdentity:
    """UIDs of a series: the patient and its seed make the study, all options together make the series."""

    def __init__(self, options: PhantomOptions) -> None:
        everything = json.dumps(plain_options(options), sort_keys=True)
        visit = f"{options.seed}/{options.patient_id}"
        self.study = derived_uid("study", visit)
        self.frame_of_reference = derived_uid("frame", visit)
        self.series = derived_uid("series", everything)
        self._everything = everything

    def instance(self, index: int) -> str:
        """Return the SOP Instance UID of a slice."""
        return derived_uid("instance", self._everything, str(index))


def file_order(options: PhantomOptions, slices: int) -> list[int]:
    """Return slice indices (from the feet) in the order of Instance Number, the missing one left out."""
    order = list(range(slices))
    if options.slice_order == "descending":
        order.reverse()
    elif options.slice_order == "shuffled":
        order = [int(k) for k in generator(options.seed, "slice order").permutation(slices)]
    if options.missing_slice is not None:
        if not 0 <= options.missing_slice < slices:
            raise ValueError(f"there is no slice {options.missing_slice} to leave out; the series has {slices}")
        order.remove(options.missing_slice)
    return order


def decimal(value: float) -> str:
    """Write a Decimal String (16 characters at most)."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def patient_and_study(options: PhantomOptions, identity: SeriesIdentity) -> Dataset:
    """Return the modules that do not depend on the kind of image: patient, study, series, equipment, contrast."""
    ds = Dataset()
    if options.character_set != "ascii":  # the default repertoire is declared by saying nothing
        ds.SpecificCharacterSet = _CHARACTER_SET[options.character_set]
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = _DATE
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = _TIME
    ds.AccessionNumber = f"PH{options.seed:06d}"
    ds.Modality = "CT"
    ds.Manufacturer = "Appliance Phantom"
    ds.ManufacturerModelName = "Digital Patient"
    ds.DeviceSerialNumber = "1"
    ds.SoftwareVersions = "1"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Chest and abdomen"
    ds.SeriesDescription = f"Phantom {KERNEL_NAME[options.kernel]} {decimal(options.slice_thickness_mm)} mm"
    ds.PatientName = options.patient_name
    ds.PatientID = options.patient_id
    ds.PatientBirthDate = ""
    ds.PatientSex = options.sex
    ds.PatientAge = f"{options.age_years:03d}Y"
    ds.PatientSize = decimal(options.patient_height_m)
    ds.BodyPartExamined = "CHEST"
    ds.ProtocolName = "Phantom trunk"
    ds.PatientPosition = options.patient_position
    ds.StudyInstanceUID = identity.study
    ds.SeriesInstanceUID = identity.series
    ds.StudyID = "1"
    ds.SeriesNumber = 2
    ds.AcquisitionNumber = 1
    ds.FrameOfReferenceUID = identity.frame_of_reference
    ds.PositionReferenceIndicator = ""
    if options.contrast_in_header:
        ds.ContrastBolusAgent = "Iohexol 350"
        ds.ContrastBolusRoute = "IV"
    return ds


def pixel_module(ds: Dataset, options: PhantomOptions) -> None:
    """Describe the stored values (Image Pixel module, PS3.3 C.7.6.3)."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = options.rows, options.columns
    ds.BitsAllocated = 16
    ds.PixelRepresentation = 0 if options.unsigned_pixels else 1
    ds.BitsStored = 12 if options.unsigned_pixels else 16
    ds.HighBit = ds.BitsStored - 1


def stored(image: NDArray[np.int16], options: PhantomOptions) -> NDArray[Any]:
    """Turn HU into stored values: signed as they are, or unsigned above the intercept."""
    if not options.unsigned_pixels:
        return image
    return (image.astype(np.int32) - _INTERCEPT_UNSIGNED).astype(np.uint16)


def intercept(options: PhantomOptions) -> int:
    """Return the Rescale Intercept."""
    return _INTERCEPT_UNSIGNED if options.unsigned_pixels else 0


def _file_meta(sop_class: UID, instance_uid: UID, syntax: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance_uid
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return meta


def _save(ds: Dataset, pixels: NDArray[Any], options: PhantomOptions, path: Path) -> None:
    """Encode the pixels in the chosen transfer syntax and write the file."""
    syntax = SYNTAXES[options.transfer_syntax]
    ds.file_meta = _file_meta(ds.SOPClassUID, ds.SOPInstanceUID, syntax)
    if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        _compress(ds, pixels, syntax)
    else:
        kind: Literal[">", "<"] = ">" if syntax == ExplicitVRBigEndian else "<"
        ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(kind)).tobytes()
        ds["PixelData"].VR = "OW"
    ds.save_as(path, enforce_file_format=True)


def _compress(ds: Dataset, pixels: NDArray[Any], syntax: UID) -> None:
    if syntax == JPEG2000Lossless:
        # pydicom's own path to this encoder needs a package that the appliance does not otherwise use.
        from openjpeg.utils import encode_array

        frames = pixels if pixels.ndim == 3 else pixels[None]  # (frames, rows, columns)
        encoded = [encode_array(frame, bits_stored=ds.BitsStored, photometric_interpretation=2) for frame in frames]
        ds.PixelData = encapsulate(encoded)
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        return
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(syntax, pixels, generate_instance_uid=False)


def write_files(options: PhantomOptions, scanner: Scanner, truth: Truth, folder: Path) -> None:
    """Write the series and its truth; see :func:`appliance.phantom.write_series`."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = SeriesIdentity(options)
    if options.multi_frame:
        from appliance.phantom.enhanced_ct import enhanced_dataset

        ds, pixels = enhanced_dataset(options, scanner, identity)
        _save(ds, pixels, options, folder / "CT0001.dcm")
    else:
        _write_single_frames(options, scanner, identity, folder)
    text = json.dumps(truth.to_json(), ensure_ascii=False, indent=1, sort_keys=True)
    (folder / "truth.json").write_text(text + "\n", encoding="utf-8")


def _write_single_frames(options: PhantomOptions, scanner: Scanner, identity: SeriesIdentity, folder: Path) -> None:
    geometry = scanner.geometry
    ds = _series_header(options, scanner, identity)
    order = file_order(options, geometry.slices)
    for number, (index, image) in enumerate(zip(order, scanner.slices(order), strict=True), start=1):
        position = geometry.position_mm(index)
        ds.SOPInstanceUID = identity.instance(index)
        ds.InstanceNumber = number
        ds.ImagePositionPatient = [decimal(v) for v in position]
        ds.SliceLocation = decimal(float(position[2]))
        _save(ds, stored(image, options), options, folder / f"CT{number:04d}.dcm")


def _series_header(options: PhantomOptions, scanner: Scanner, identity: SeriesIdentity) -> Dataset:
    """Everything that all instances of the series share."""
    geometry = scanner.geometry
    ds = patient_and_study(options, identity)
    ds.SOPClassUID = CTImageStorage
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SliceThickness = decimal(options.slice_thickness_mm)
    ds.KVP = decimal(options.kvp)
    ds.DataCollectionDiameter = "500"
    ds.ReconstructionDiameter = decimal(options.pixel_spacing_mm * max(options.rows, options.columns))
    ds.GantryDetectorTilt = decimal(options.gantry_tilt_degrees)
    ds.TableHeight = "150"
    ds.ExposureTime = 500
    ds.XRayTubeCurrent = 200
    ds.Exposure = 100
    ds.ConvolutionKernel = KERNEL_NAME[options.kernel]
    ds.ImageOrientationPatient = [decimal(v) for v in (*geometry.row_direction, *geometry.column_direction)]
    ds.PixelSpacing = [decimal(options.pixel_spacing_mm)] * 2
    pixel_module(ds, options)
    if options.circular_padding_hu is not None:
        value = int(stored(np.array([options.circular_padding_hu], dtype=np.int16), options)[0])
        ds.add_new(0x00280120, "SS" if not options.unsigned_pixels else "US", value)
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    ds.RescaleIntercept = str(intercept(options))
    ds.RescaleSlope = "1"
    ds.RescaleType = "HU"
    return ds
