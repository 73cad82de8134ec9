"""A tiny writer of synthetic CT series: an analytic anatomy, sampled where the slices lie in the patient."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"

REAL_SCANS = Path(__file__).resolve().parents[3] / "shared" / "data"


def anatomy_hu(position_mm):
    """HU at LPS positions ``(…, 3)``: smooth, without any symmetry that could hide a flip."""
    x, y, z = np.moveaxis(np.asarray(position_mm, dtype=np.float64), -1, 0)
    return 260 * np.sin(x / 19 + 0.4) + 210 * np.cos(y / 17 - 0.3) + 180 * np.sin(z / 15 + x / 60) - 150 + 1.5 * x


@dataclass
class Series:
    """What to write; every field can be spoilt on purpose."""

    slices: int = 12
    rows: int = 20
    columns: int = 16
    spacing_mm: tuple[float, float] = (1.75, 2.0)
    step_mm: float = 3.0
    origin_mm: tuple[float, float, float] = (-20.0, -15.0, -40.0)
    along_row: tuple[float, float, float] = (1.0, 0.0, 0.0)
    along_column: tuple[float, float, float] = (0.0, 1.0, 0.0)
    tilt_degrees: tuple[float, float] = (0.0, 0.0)
    signed: bool = True
    bits_stored: int = 16
    slope: float = 1.0
    intercept: float = -1024.0
    series_uid: str = field(default_factory=generate_uid)
    study_uid: str = field(default_factory=generate_uid)

    @property
    def directions(self):
        """Unit vectors: row index grows, column index grows, slices are stacked."""
        column, row = np.array(self.along_row), np.array(self.along_column)
        normal = np.cross(column, row)
        first, second = np.tan(np.radians(self.tilt_degrees))
        stack = normal + first * row + second * column
        return row, column, stack / np.linalg.norm(stack)

    def position_mm(self, index):
        """Centre of the first voxel of a slice."""
        return np.array(self.origin_mm) + index * self.step_mm * self.directions[2]

    def voxels_mm(self, index):
        """Centres of all voxels of a slice, ``(rows, columns, 3)``."""
        row, column, _ = self.directions
        r, c = np.mgrid[0 : self.rows, 0 : self.columns]
        return (
            self.position_mm(index)
            + r[..., None] * self.spacing_mm[0] * row
            + c[..., None] * self.spacing_mm[1] * column
        )

    def stored(self, index, slope=None, intercept=None):
        """Stored values of a slice."""
        slope, intercept = slope or self.slope, self.intercept if intercept is None else intercept
        values = np.rint((anatomy_hu(self.voxels_mm(index)) - intercept) / slope)
        return values.astype(np.int16 if self.signed else np.uint16)

    def common(self):
        """Elements of every instance."""
        ds = Dataset()
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SOPClassUID = CT
        ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = self.study_uid, self.series_uid
        ds.FrameOfReferenceUID = "1.2.3.4"
        ds.Modality = "CT"
        ds.Manufacturer = "TEST"
        ds.PatientPosition = "HFS"
        ds.KVP = "120"
        ds.ConvolutionKernel = "STANDARD"
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.Rows, ds.Columns = self.rows, self.columns
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, self.bits_stored, self.bits_stored - 1
        ds.PixelRepresentation = int(self.signed)
        return ds

    def datasets(self):
        """One data set per slice."""
        made = []
        for index in range(self.slices):
            ds = self.common()
            ds.InstanceNumber = str(index + 1)
            ds.AcquisitionNumber = "1"
            ds.ImagePositionPatient = [f"{value:.9g}"[:16] for value in self.position_mm(index)]
            ds.ImageOrientationPatient = [f"{v:.9g}"[:16] for v in (*self.along_row, *self.along_column)]
            ds.PixelSpacing = list(self.spacing_mm)
            ds.SliceThickness = f"{self.step_mm:.4g}"
            ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = str(self.slope), str(self.intercept), "HU"
            ds.PixelData = self.stored(index).tobytes()
            made.append(ds)
        return made

    def enhanced(self, order=None):
        """One multi-frame data set with shared and per-frame functional groups."""
        ds = self.common()
        ds.SOPClassUID = ENHANCED_CT
        ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        order = list(order if order is not None else range(self.slices))
        ds.NumberOfFrames = str(len(order))
        shared = Dataset()
        shared.PlaneOrientationSequence = _one(
            ImageOrientationPatient=[f"{v:.9g}"[:16] for v in (*self.along_row, *self.along_column)]
        )
        shared.PixelMeasuresSequence = _one(PixelSpacing=list(self.spacing_mm), SliceThickness=f"{self.step_mm:.4g}")
        shared.CTReconstructionSequence = _one(ConvolutionKernel="Br40")
        ds.SharedFunctionalGroupsSequence = Sequence([shared])
        frames, pixels = [], []
        for index in order:
            frame = Dataset()
            frame.FrameContentSequence = _one(StackID="1", FrameAcquisitionNumber=1)
            position = [f"{value:.9g}"[:16] for value in self.position_mm(index)]
            frame.PlanePositionSequence = _one(ImagePositionPatient=position)
            frame.PixelValueTransformationSequence = _one(
                RescaleSlope=str(self.slope), RescaleIntercept=str(self.intercept), RescaleType="HU"
            )
            frames.append(frame)
            pixels.append(self.stored(index).tobytes())
        ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
        ds.PixelData = b"".join(pixels)
        return ds

    def write(self, folder, datasets=None):
        """Write data sets into a folder and return their paths."""
        datasets = self.datasets() if datasets is None else datasets
        folder.mkdir(parents=True, exist_ok=True)
        return [save(ds, folder / f"{number:04d}.dcm") for number, ds in enumerate(datasets)]


def _one(**elements):
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


def save(ds, path, transfer_syntax=ExplicitVRLittleEndian, preamble=True):
    """Write one data set; without preamble also without file meta information."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    if not preamble:
        buffer = io.BytesIO()
        plain = Dataset(ds)
        plain.save_as(buffer, implicit_vr=transfer_syntax.is_implicit_VR, little_endian=True)
        path.write_bytes(buffer.getvalue())
        return path
    file = FileDataset(
        str(path),
        Dataset(ds),
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=transfer_syntax.is_implicit_VR,
        is_little_endian=transfer_syntax.is_little_endian,
    )
    file.save_as(path, enforce_file_format=True)
    return path


class Tools:
    """What tests need from this module; importlib mode has no sibling imports."""

    Series = Series
    anatomy_hu = staticmethod(anatomy_hu)
    save = staticmethod(save)


@pytest.fixture(scope="session")
def tools():
    return Tools


@pytest.fixture
def series():
    return Series()


@pytest.fixture(scope="session")
def real_scans():
    if not REAL_SCANS.is_dir():
        pytest.skip("the open scans are not here")
    return REAL_SCANS
