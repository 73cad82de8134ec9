"""What people read in the objects, in English and in Chinese.

The screenings write English sentences with the facts of the case. In Chinese the page is made of the coded parts
instead: title, status, measurement names with their numbers, and the reason's meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.reasons import ReasonCode
from appliance.results.report import NOTICE
from appliance.results.table import title_of
from appliance.screenings.contract import Status, Urgency

if TYPE_CHECKING:
    from appliance.reasons import Reason
    from appliance.results.report import ScreeningResult
    from appliance.screenings.contract import Measurement

NOTICE_ZH = "AI 结果，未经医师审核。非认证医疗器械，不得用于诊断。"
_STATUS_EN = {
    Status.FINDING: "FINDING",
    Status.NORMAL: "nothing found",
    Status.NOT_RUN: "not run",
    Status.ABSTAINED: "abstained",
    Status.FAILED: "failed",
}
_STATUS_ZH = {
    Status.FINDING: "有发现",
    Status.NORMAL: "未发现",
    Status.NOT_RUN: "未运行",
    Status.ABSTAINED: "放弃判断",
    Status.FAILED: "失败",
}
_URGENCY_ZH = {Urgency.ROUTINE: "常规", Urgency.SOON: "尽快", Urgency.URGENT: "紧急"}
TITLES_ZH = {
    "aorta": "主动脉",
    "body_composition": "体成分",
    "bone_density": "骨密度",
    "coronary_calcium": "冠状动脉钙化",
    "emphysema": "肺气肿",
    "kidney_stone": "肾结石",
    "liver_fat": "脂肪肝",
    "pleural_effusion": "胸腔积液",
    "pulmonary_artery": "肺动脉",
    "vertebral_fracture": "椎体骨折",
}
MEASUREMENTS_ZH = {
    "laa950_percent": "低密度区（<-950 HU）比例",
    "perc15_hu": "肺密度第 15 百分位",
    "lung_volume_ml": "肺容积",
    "agatston_score": "Agatston 钙化积分",
    "calcium_volume_mm3": "钙化体积",
    "calcium_mass_mg": "钙化质量",
    "liver_mean_hu": "肝脏平均 CT 值",
    "spleen_mean_hu": "脾脏平均 CT 值",
    "liver_spleen_difference_hu": "肝脾 CT 值差",
    "liver_spleen_ratio": "肝脾 CT 值比",
    "kidney_stone_count": "结石数目",
    "kidney_stone_max_mm": "最大结石直径",
    "kidney_stone_volume_mm3": "结石体积",
    "kidney_stone_mean_hu": "结石平均 CT 值",
    "ascending_aorta_diameter_mm": "升主动脉最大直径",
    "descending_aorta_diameter_mm": "降主动脉最大直径",
    "abdominal_aorta_diameter_mm": "腹主动脉最大直径",
    "pulmonary_trunk_diameter_mm": "肺动脉干直径",
    "pa_to_aorta_ratio": "肺动脉与升主动脉直径比",
    "pleural_effusion_left_ml": "左侧胸腔积液量",
    "pleural_effusion_right_ml": "右侧胸腔积液量",
    "vertebra_trabecular_hu": "椎体松质骨 CT 值",
    "vertebral_height_loss_percent": "椎体高度丢失",
    "vertebra_anterior_height_mm": "椎体前缘高度",
    "vertebra_middle_height_mm": "椎体中部高度",
    "vertebra_posterior_height_mm": "椎体后缘高度",
    "skeletal_muscle_area_cm2": "骨骼肌面积",
    "skeletal_muscle_hu": "骨骼肌平均 CT 值",
    "skeletal_muscle_index": "骨骼肌指数",
    "visceral_fat_area_cm2": "内脏脂肪面积",
    "subcutaneous_fat_area_cm2": "皮下脂肪面积",
    "intermuscular_fat_area_cm2": "肌间脂肪面积",
}
REASONS_ZH = {
    ReasonCode.DISABLED: "已在配置中关闭",
    ReasonCode.STRUCTURE_NOT_PROVIDED: "没有模型能分割所需的器官",
    ReasonCode.CONTRAST_ENHANCED: "使用了静脉对比剂",
    ReasonCode.CONTRAST_DISAGREES: "图像与头信息对是否增强的说法不一致",
    ReasonCode.SLICE_TOO_THICK: "层厚过大",
    ReasonCode.KERNEL_TOO_SHARP: "重建核过锐",
    ReasonCode.KVP_UNSUITABLE: "管电压不适用",
    ReasonCode.AGE_OUT_OF_RANGE: "年龄不在适用范围内",
    ReasonCode.BETTER_SERIES: "同次扫描中另一序列更适合，已在该序列上进行",
    ReasonCode.REGION_NOT_COVERED: "扫描范围未包含该器官",
    ReasonCode.AIR_NOT_CALIBRATED: "空气 CT 值不准或不可见",
    ReasonCode.METAL_ARTIFACTS: "金属伪影过多",
    ReasonCode.NOISE_TOO_HIGH: "噪声过大",
    ReasonCode.ORGAN_CUT_OFF: "器官未完整包含在扫描内",
    ReasonCode.ORGAN_IMPLAUSIBLE: "器官分割结果不可信",
    ReasonCode.LEVELS_UNCERTAIN: "椎体节段无法确定",
    ReasonCode.NOT_INSPIRATORY: "非充分吸气扫描",
    ReasonCode.METAL_IN_ORGAN: "器官内有金属",
    ReasonCode.POSITION_UNSUITABLE: "患者体位不适用",
    ReasonCode.MOTION_ARTIFACTS: "心脏运动伪影过多",
    ReasonCode.SCREENING_FAILED: "程序内部错误",
}
_SITES_ZH = {"lung_left": "左肺", "lung_right": "右肺", "kidney_left": "左肾", "kidney_right": "右肾"}
_SAID_BY_THE_NAME = {"liver", "spleen"}
_UNITS = {"1": "", "%": "%", "[hnsf'U]": "HU", "mm3": "mm³", "cm2": "cm²", "cm2/m2": "cm²/m²"}
_MOST_ZH = 4


def notice(language: str) -> str:
    """Return the sentence that says what the result is."""
    return NOTICE_ZH if language == "zh" else NOTICE


def title(name: str, language: str) -> str:
    """Return a screening's title."""
    return TITLES_ZH.get(name, title_of(name)) if language == "zh" else title_of(name)


def status_word(result: ScreeningResult, language: str) -> str:
    """Return the outcome in a word or two, with its urgency where it matters."""
    outcome = result.outcome
    pressing = outcome.status is Status.FINDING and outcome.urgency is not Urgency.ROUTINE
    if language == "zh":
        return _STATUS_ZH[outcome.status] + (f"（{_URGENCY_ZH[outcome.urgency]}）" if pressing else "")
    return _STATUS_EN[outcome.status] + (f" ({outcome.urgency.value})" if pressing else "")


def reason_text(reason: Reason, language: str) -> str:
    """Return why there is no result."""
    return REASONS_ZH.get(reason.code, reason.text) if language == "zh" else reason.text


def summary_text(result: ScreeningResult, language: str) -> str:
    """Return the outcome in a line."""
    if language != "zh":
        return result.outcome.summary
    return "；".join(numbers_zh(result))


def numbers_zh(result: ScreeningResult) -> list[str]:
    """Return the first numbers of a screening in Chinese, the whole before its parts."""
    items = sorted(result.outcome.measurements, key=lambda item: item.site is not None)
    return [_number_zh(item) for item in items[:_MOST_ZH]]


def _number_zh(item: Measurement) -> str:
    where = item.site or ""
    place = "" if where in _SAID_BY_THE_NAME else _SITES_ZH.get(where, where.replace("vertebra_", ""))
    name = MEASUREMENTS_ZH.get(item.name, item.name)
    unit = _UNITS.get(item.unit, item.unit)
    return f"{place + ' ' if place else ''}{name} {item.value:.4g} {unit}".rstrip()


def detail(result: ScreeningResult, language: str) -> str:
    """Return what stands beside the status: the numbers, or why there are none."""
    reason = result.outcome.reason
    return reason_text(reason, language) if reason is not None else summary_text(result, language)


def plane(axis: int, number: int, count: int, language: str) -> str:
    """Return which plane a picture shows."""
    if language == "zh":
        return f"第 {number} / {count} {('层', '行', '列')[axis]}"
    return f"{('slice', 'row', 'column')[axis]} {number} of {count}"
