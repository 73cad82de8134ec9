"""The phantom as one Enhanced CT Image Storage instance with functional groups (PS3.3 A.38.1, C.7.6.16)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage

from appliance.phantom.dicom_writer import (
    DATE_TIME,
    KERNEL_NAME,
    SeriesIdentity,
    decimal,
    derived_uid,
    file_order,
    intercept,
    patient_and_study,
    pixel_module,
    stored,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from appliance.phantom.acquisition import Scanner
    from appliance.phantom.options import PhantomOptions

_FRAME_TYPE = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]


def _one(**attributes: object) -> Sequence:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return Sequence([item])


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    return _one(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _shared(options: PhantomOptions) -> Sequence:
    anatomy = _one(AnatomicRegionSequence=_code("416550000", "SCT", "Chest and Abdomen"), FrameLaterality="U")
    geometry = _one(
        ReconstructionDiameter=options.pixel_spacing_mm * max(options.rows, options.columns),
        ReconstructionAlgorithm="FILTER_BACK_PROJ",
        ConvolutionKernel=KERNEL_NAME[options.kernel],
        ConvolutionKernelGroup="SOFT_TISSUE" if options.kernel == "soft" else "LUNG",
        ReconstructionAngle=360.0,
        ImageFilter="NONE",
        ReconstructionPixelSpacing=[options.pixel_spacing_mm] * 2,
    )
    item = Dataset()
    item.PixelMeasuresSequence = _one(
        PixelSpacing=[decimal(options.pixel_spacing_mm)] * 2, SliceThickness=decimal(options.slice_thickness_mm)
    )
    item.FrameAnatomySequence = anatomy
    item.CTImageFrameTypeSequence = _one(
        FrameType=_FRAME_TYPE, PixelPresentation="MONOCHROME", VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )  # fmt: skip
    item.PixelValueTransformationSequence = _one(
        RescaleIntercept=str(intercept(options)), RescaleSlope="1", RescaleType="HU"
    )
    item.FrameVOILUTSequence = _one(WindowCenter="40", WindowWidth="400")
    item.IrradiationEventIdentificationSequence = _one(
        IrradiationEventUID=derived_uid("irradiation", str(options.seed), options.patient_id)
    )
    item.CTAcquisitionTypeSequence = _one(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
    item.CTAcquisitionDetailsSequence = _one(
        RotationDirection="CW", RevolutionTime=0.5, SingleCollimationWidth=0.6, TotalCollimationWidth=38.4,
        TableHeight=150.0, GantryDetectorTilt=options.gantry_tilt_degrees, DataCollectionDiameter=500.0,
    )  # fmt: skip
    item.CTTableDynamicsSequence = _one(TableSpeed=40.0, TableFeedPerRotation=20.0, SpiralPitchFactor=0.52)
    item.CTReconstructionSequence = geometry
    item.CTExposureSequence = _one(
        ExposureTimeInms=500.0,
        XRayTubeCurrentInmA=200.0,
        ExposureInmAs=100.0,
        ExposureModulationType="NONE",
    )
    item.CTGeometrySequence = _one(DistanceSourceToDetector=1085.6, DistanceSourceToDataCollectionCenter=595.0)
    item.CTXRayDetailsSequence = _one(
        KVP=decimal(options.kvp), FocalSpots=[1.0], FilterType="NONE", FilterMaterial="ALUMINUM",
        CalciumScoringMassFactorPatient=1.0,
    )  # fmt: skip
    return Sequence([item])


def _frame(scanner: Scanner, index: int) -> Dataset:
    geometry = scanner.geometry
    item = Dataset()
    item.FrameContentSequence = _one(
        FrameAcquisitionNumber=1, FrameReferenceDateTime=DATE_TIME, FrameAcquisitionDateTime=DATE_TIME,
        FrameAcquisitionDuration=500.0, StackID="1", InStackPositionNumber=index + 1,
        DimensionIndexValues=[1, index + 1], TemporalPositionIndex=1,
    )  # fmt: skip
    item.PlanePositionSequence = _one(ImagePositionPatient=[decimal(v) for v in geometry.position_mm(index)])
    middle = geometry.position_mm(index) + 0.5 * geometry.pixel_spacing_mm * (
        (scanner.options.columns - 1) * geometry.row_direction + (scanner.options.rows - 1) * geometry.column_direction
    )
    centre = [float(v) for v in middle]
    item.CTPositionSequence = _one(
        TablePosition=float(middle[2]), ReconstructionTargetCenterPatient=centre, DataCollectionCenterPatient=centre
    )
    item.PlaneOrientationSequence = _one(
        ImageOrientationPatient=[decimal(v) for v in (*geometry.row_direction, *geometry.column_direction)]
    )
    return item


def _dimensions(ds: Dataset) -> None:
    organisation = derived_uid("dimension", str(ds.SOPInstanceUID))
    ds.DimensionOrganizationSequence = _one(DimensionOrganizationUID=organisation)
    items = []
    for pointer, group, label in (
        (0x00209056, 0x00209111, "Stack ID"),
        (0x00209057, 0x00209111, "In-Stack Position Number"),
    ):
        item = Dataset()
        item.DimensionOrganizationUID = organisation
        item.DimensionIndexPointer = pointer
        item.FunctionalGroupPointer = group
        item.DimensionDescriptionLabel = label
        items.append(item)
    ds.DimensionIndexSequence = Sequence(items)


def enhanced_dataset(
    options: PhantomOptions, scanner: Scanner, identity: SeriesIdentity
) -> tuple[Dataset, NDArray[Any]]:
    """Return the instance without its pixels, and the stored values ``(frames, rows, columns)``."""
    order = file_order(options, scanner.geometry.slices)
    ds = patient_and_study(options, identity)
    del ds.AcquisitionDate, ds.AcquisitionTime  # one date and time in their place
    ds.SOPClassUID = EnhancedCTImageStorage
    ds.SOPInstanceUID = identity.instance(0)
    ds.ImageType = _FRAME_TYPE
    ds.InstanceNumber = 1
    ds.AcquisitionDateTime = DATE_TIME
    ds.AcquisitionDuration = 6.0
    ds.ContentQualification = "RESEARCH"
    ds.PixelPresentation = "MONOCHROME"
    ds.VolumetricProperties = "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.PresentationLUTShape = "IDENTITY"
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    ds.AcquisitionContextSequence = Sequence([])
    pixel_module(ds, options)
    ds.NumberOfFrames = len(order)
    _dimensions(ds)
    ds.SharedFunctionalGroupsSequence = _shared(options)
    ds.PerFrameFunctionalGroupsSequence = Sequence([_frame(scanner, index) for index in order])
    pixels = np.stack([stored(image, options) for image in scanner.slices(order)])
    return ds, pixels
