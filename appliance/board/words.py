"""What the board says, in English and in Chinese; titles, outcomes and reasons come from the results' own words."""

from __future__ import annotations

from typing import Literal

from appliance.reasons import Reason, ReasonCode
from appliance.results.objects import words as of_results
from appliance.store.lifecycle import ScanState

Language = Literal["en", "zh"]
LANGUAGES: dict[Language, str] = {"en": "English", "zh": "中文"}

#: Every sentence of the templates, by name.
SENTENCES: dict[str, dict[Language, str]] = {
    # --- frame of the page ---
    "board": {"en": "Alert board", "zh": "警报看板"},
    "skip": {"en": "Skip to the alerts", "zh": "跳到警报"},
    "notice_lead": {"en": "AI results, not reviewed by a doctor.", "zh": "AI 结果，未经医师审核。"},
    "notice_rest": {
        "en": "Not a certified medical device; not for diagnosis. The radiologist decides.",
        "zh": "非认证医疗器械，不得用于诊断。以放射科医师判断为准。",
    },
    "language": {"en": "Language", "zh": "语言"},
    "log_out": {"en": "Log out", "zh": "退出"},
    "help": {"en": "What does this mean?", "zh": "使用说明"},
    "back": {"en": "Back to the board", "zh": "返回看板"},
    "no_script": {
        "en": "JavaScript is off: the page renews itself every 20 seconds and makes no sound.",
        "zh": "JavaScript 已关闭：页面每 20 秒自动刷新，不会发出声音。",
    },
    "lost": {
        "en": "No connection to the box: new alerts are not shown here. Check the network cable and the box.",
        "zh": "与设备的连接已断开：此处不会显示新警报。请检查网线和设备。",
    },
    # --- sound ---
    "sound_on": {"en": "Sound is on", "zh": "声音已开启"},
    "sound_off": {"en": "SOUND IS OFF – press here", "zh": "声音已关闭 – 点击开启"},
    "sound_blocked": {
        "en": "SOUND IS BLOCKED – press here",
        "zh": "声音被浏览器阻止 – 点击开启",
    },
    # --- alerts ---
    "alerts": {"en": "Alerts", "zh": "警报"},
    "no_alerts": {"en": "No open alerts", "zh": "没有未确认的警报"},
    "open_alerts": {"en": "Open alerts", "zh": "未确认的警报"},
    "escalated_alerts": {"en": "waited too long", "zh": "等待过久"},
    "shown": {"en": "The {shown} most urgent of {total} are shown.", "zh": "共 {total} 条，显示最紧急的 {shown} 条。"},
    "escalated": {"en": "NOT ACKNOWLEDGED IN TIME", "zh": "超时未确认"},
    "raised": {"en": "Since", "zh": "发出于"},
    "acknowledge": {"en": "Acknowledge", "zh": "确认已知悉"},
    "acknowledge_scan": {"en": "Acknowledge the alerts of {label}", "zh": "确认{label}的警报"},
    "your_name": {"en": "Your name", "zh": "您的姓名"},
    "name_hint": {
        "en": "Stays filled in. Acknowledging means: I have seen this and tell the doctor.",
        "zh": "会自动保留。确认表示：我已看到，并会通知医师。",
    },
    "name_needed": {"en": "Write your name first, then acknowledge.", "zh": "请先填写姓名，再确认。"},
    "acknowledged_now": {"en": "Acknowledged by {name}.", "zh": "已由 {name} 确认。"},
    "acknowledged_before": {
        "en": "Somebody had acknowledged this already.",
        "zh": "此警报此前已被确认。",
    },
    "not_recorded": {
        "en": "The acknowledgement could not be recorded: the box's database does not answer. Tell the doctor now, and "
        "try again in a minute.",
        "zh": "确认未能保存：设备数据库无响应。请立即通知医师，一分钟后重试。",
    },
    "recent_alerts": {"en": "Acknowledged lately", "zh": "最近已确认"},
    "acknowledged_by": {"en": "{name} at {time}", "zh": "{name}，{time}"},
    "new_alert": {"en": "New alert", "zh": "新警报"},
    # --- scans ---
    "scans": {"en": "Last scans", "zh": "最近的扫描"},
    "no_scans": {"en": "No scan has arrived yet.", "zh": "尚未收到扫描。"},
    "scan": {"en": "Scan {number}", "zh": "扫描 {number}"},
    "accession": {"en": "Accession {number}", "zh": "检查号 {number}"},
    "revision": {"en": "revision {number}", "zh": "第 {number} 版"},
    "arrived": {"en": "Arrived", "zh": "到达时间"},
    "images": {"en": "{count} images", "zh": "{count} 幅图像"},
    "result": {"en": "Result", "zh": "结果"},
    "screening": {"en": "Screening", "zh": "筛查项目"},
    "found": {"en": "What was found, or why not", "zh": "发现，或未进行的原因"},
    "nothing_found": {"en": "Nothing found", "zh": "未发现异常"},
    "and_not_run": {"en": "No answer from {count}", "zh": "{count} 项无结论"},
    "every_screening": {"en": "all of them", "zh": "全部"},
    "of_screenings": {"en": "{count} of {total} screenings ran", "zh": "{total} 项筛查中完成 {count} 项"},
    "you_can": {"en": "What you can do:", "zh": "您可以："},
    "pictures": {"en": "Pictures", "zh": "图像"},
    "picture_of": {
        "en": "Key image: {title}. The number is written below the picture.",
        "zh": "关键图像：{title}。数值写在图像下方。",
    },
    "note": {"en": "Note", "zh": "备注"},
    "deliveries": {"en": "Sending to the PACS", "zh": "发送至 PACS"},
    "sent": {"en": "sent", "zh": "已发送"},
    # --- the box ---
    "box": {"en": "This box", "zh": "设备状态"},
    "needs_help": {"en": "This box needs help", "zh": "设备需要处理"},
    "see_box": {"en": "see “This box” on the board", "zh": "请查看看板上的“设备状态”"},
    "receiving": {"en": "Receiving images", "zh": "接收图像"},
    "screening_service": {"en": "Screening", "zh": "筛查"},
    "delivering": {"en": "Sending results", "zh": "发送结果"},
    "watching": {"en": "Watching the box", "zh": "设备监控"},
    "yes": {"en": "yes", "zh": "正常"},
    "no": {"en": "NO", "zh": "异常"},
    "queue": {"en": "Waiting", "zh": "等待中"},
    "queue_none": {"en": "nothing waits", "zh": "无等待"},
    "queue_counts": {
        "en": "{arriving} arriving, {waiting} to be screened",
        "zh": "接收中 {arriving}，待筛查 {waiting}",
    },
    "pacs_nothing": {"en": "everything sent", "zh": "全部已发送"},
    "pacs_none": {"en": "no PACS is configured; results stay on the box", "zh": "未配置 PACS；结果保存在设备上"},
    "pacs_waiting": {"en": "{count} waiting, tried again by itself", "zh": "{count} 项等待中，将自动重试"},
    "pacs_parked": {
        "en": "{count} STOPPED – a setting must be changed",
        "zh": "{count} 项已停止 – 需要更改设置",
    },
    "disk": {"en": "Disk", "zh": "磁盘"},
    "disk_free": {"en": "{gib} GB free", "zh": "剩余 {gib} GB"},
    "disk_low": {"en": "{gib} GB free – getting full", "zh": "剩余 {gib} GB – 空间不足"},
    "disk_full": {
        "en": "{gib} GB free – FULL, no new images are taken",
        "zh": "剩余 {gib} GB – 已满，无法接收新图像",
    },
    "stalled": {
        "en": "Scans wait and none is finished. Restart the box; if that does not help, call for service.",
        "zh": "扫描在等待但没有完成。请重启设备；若无效，请联系维修。",
    },
    "service_silent": {
        "en": "This part of the box gives no sign of life. Restart the box; if that does not help, call for service.",
        "zh": "设备的这一部分没有响应。请重启设备；若无效，请联系维修。",
    },
    "work_problem": {
        "en": "Screening has stopped itself; call for service.",
        "zh": "筛查已自行停止；请联系维修。",
    },
    "database_gone": {
        "en": "THE BOX CANNOT READ ITS RESULTS. Alerts may be missing here: look at the images, and call for service.",
        "zh": "设备无法读取结果。此处可能缺少警报：请直接查看图像，并联系维修。",
    },
    "database_empty": {
        "en": "The box has no results yet: no scan was received since it was installed.",
        "zh": "设备尚无结果：安装后尚未收到扫描。",
    },
    "last_known": {
        "en": "What is below was read at {time} and may be out of date.",
        "zh": "以下内容读取于 {time}，可能已过时。",
    },
    # --- logging in ---
    "log_in": {"en": "Log in", "zh": "登录"},
    "log_in_lead": {
        "en": "Alerts are neither shown nor sounded until somebody logs in.",
        "zh": "登录之前，不会显示警报，也不会发出声音。",
    },
    "password": {"en": "Password of this board", "zh": "看板密码"},
    "wrong_password": {"en": "This is not the password. Try again.", "zh": "密码不正确，请重试。"},
    "wait": {
        "en": "Too many wrong passwords. Try again in {seconds} seconds.",
        "zh": "密码错误次数过多，请在 {seconds} 秒后重试。",
    },
    "no_password_yet": {
        "en": "The board's password file cannot be used. On the box, run: appliance board-password",
        "zh": "看板密码文件不可用。请在设备上运行：appliance board-password",
    },
    # --- what cannot be shown ---
    "page_old": {
        "en": "The page was too old, or it was opened elsewhere. Go back to the board and do it again.",
        "zh": "页面已过期或来自其他来源。请返回看板后重试。",
    },
    "nothing_here": {"en": "There is nothing here.", "zh": "此处没有内容。"},
    "cannot_be_shown": {
        "en": "This cannot be shown now. Try again in a minute.",
        "zh": "暂时无法显示，请一分钟后重试。",
    },
    # --- help ---
    "help_alert": {
        "en": "An alert asks a doctor to look at a scan soon. Read what was found, tell the radiologist or the doctor "
        "in charge, then press Acknowledge. An alert that nobody acknowledges in time gets a yellow mark and sounds "
        "more often.",
        "zh": "警报表示需要医师尽快查看一次扫描。请阅读发现内容，通知放射科医师或主管医师，然后点击“确认已知悉”。"
        "超时未确认的警报会标为黄色，并更频繁地发声。",
    },
    "help_not_run": {
        "en": "“Not run” means that the box gave no answer, neither good nor bad, because this scan does not suit that "
        "question. The reason is written beside it, and what can be done, where something can.",
        "zh": "“未运行”表示设备没有给出任何结论（既非正常也非异常），因为该扫描不适合此项筛查。"
        "旁边会写明原因以及可行的处理办法。",
    },
    "help_nothing": {
        "en": "“Nothing found” is no all-clear: the box looks for ten things only and misses some of them.",
        "zh": "“未发现”不等于没有问题：设备只检查十个项目，并且可能漏检。",
    },
    "help_sound": {
        "en": "Browsers make no sound until somebody has pressed something. Press the sound button after the PC was "
        "switched on; while it is yellow, this PC is silent.",
        "zh": "浏览器在有人点击之前不会发声。电脑开机后请点击声音按钮；按钮为黄色时，本机不会发声。",
    },
    "help_unreviewed": {
        "en": "Everything here comes from a program and nobody has reviewed it. The radiologist decides.",
        "zh": "此处所有内容均由程序生成，未经任何人审核。以放射科医师判断为准。",
    },
    "outcomes": {"en": "What the signs mean", "zh": "符号含义"},
    "sign_finding": {"en": "something to look at", "zh": "需要查看"},
    "sign_normal": {"en": "looked for, and not found", "zh": "已检查，未发现"},
    "sign_abstained": {
        "en": "looked, but the answer would not be safe to give",
        "zh": "已检查，但结论不可靠，因此不给出",
    },
    "sign_not_run": {"en": "no answer: the scan does not suit the question", "zh": "无结论：扫描不适合此项筛查"},
    "sign_failed": {"en": "no answer: an error in the box", "zh": "无结论：设备内部错误"},
}

URGENCIES: dict[str, dict[Language, str]] = {
    "urgent": {"en": "URGENT", "zh": "紧急"},
    "soon": {"en": "SOON", "zh": "尽快"},
    "routine": {"en": "ROUTINE", "zh": "常规"},
}

#: Where a scan stands that has no result yet.
STATES: dict[ScanState, dict[Language, str]] = {
    ScanState.RECEIVING: {"en": "images are arriving", "zh": "正在接收图像"},
    ScanState.COMPLETE: {"en": "waits to be screened", "zh": "等待筛查"},
    ScanState.PLANNED: {"en": "is being screened", "zh": "正在筛查"},
    ScanState.SCREENING: {"en": "is being screened", "zh": "正在筛查"},
    ScanState.SCREENED: {"en": "screened", "zh": "已筛查"},
    ScanState.DELIVERING: {"en": "screened, results are being sent", "zh": "已筛查，正在发送结果"},
    ScanState.DONE: {"en": "done", "zh": "完成"},
    ScanState.REFUSED: {"en": "cannot be screened", "zh": "无法筛查"},
    ScanState.FAILED: {"en": "screening failed", "zh": "筛查失败"},
    ScanState.PARKED: {"en": "screened, sending stopped", "zh": "已筛查，发送已停止"},
}

#: Reasons of whole scans; those of single screenings are in the results' words.
SCAN_REASONS_ZH: dict[ReasonCode, str] = {
    ReasonCode.NO_DICOM: "不是 DICOM 文件",
    ReasonCode.UNREADABLE_FILE: "文件无法读取",
    ReasonCode.ARCHIVE_UNSAFE: "压缩包不安全",
    ReasonCode.ARCHIVE_TOO_LARGE: "压缩包过大",
    ReasonCode.NOT_CT: "不是 CT 序列",
    ReasonCode.LOCALIZER: "定位像",
    ReasonCode.NOT_ORIGINAL_AXIAL: "不是原始轴位图像",
    ReasonCode.TOO_FEW_SLICES: "层数太少",
    ReasonCode.MISSING_SLICE: "缺少层面",
    ReasonCode.IRREGULAR_SPACING: "层间距不均匀",
    ReasonCode.MIXED_ORIENTATION: "层面方向不一致",
    ReasonCode.MIXED_GEOMETRY: "序列中的几何参数不一致",
    ReasonCode.CONFLICTING_DUPLICATES: "同一位置有两幅不同的图像",
    ReasonCode.MISSING_GEOMETRY: "缺少位置、方向或像素间距",
    ReasonCode.NOT_HOUNSFIELD: "像素值不是 CT 值",
    ReasonCode.PIXEL_DATA_UNREADABLE: "图像数据无法读取",
    ReasonCode.TOO_LARGE: "序列过大",
    ReasonCode.IMAGES_DELETED: "图像已按保留期限删除",
    ReasonCode.WORKER_LOST: "筛查过程中断",
    ReasonCode.MEMORY_LIMIT: "内存不足",
    ReasonCode.TIME_LIMIT: "超过时间限制",
    ReasonCode.ATTEMPTS_EXHAUSTED: "多次尝试均失败",
    ReasonCode.DELIVERY_PARKED: "结果无法送达，需要更改设置",
}

#: What the radiographer can do about a reason; where nothing is named, nothing can be done in the scanner room.
HINTS: dict[ReasonCode, dict[Language, str]] = {
    ReasonCode.SLICE_TOO_THICK: {"en": "send the thin slices too", "zh": "请同时发送薄层序列"},
    ReasonCode.KERNEL_TOO_SHARP: {"en": "send the soft reconstruction too", "zh": "请同时发送软组织重建序列"},
    ReasonCode.NOISE_TOO_HIGH: {
        "en": "send a smoother or thicker reconstruction too",
        "zh": "请发送更平滑或更厚的重建序列",
    },
    ReasonCode.ORGAN_CUT_OFF: {"en": "next time, cover the whole organ", "zh": "下次请覆盖整个器官"},
    ReasonCode.AIR_NOT_CALIBRATED: {
        "en": "have the scanner's calibration checked",
        "zh": "请检查扫描仪的校准",
    },
    ReasonCode.LEVELS_UNCERTAIN: {
        "en": "next time, include the lower ribs or the pelvis",
        "zh": "下次请包含下部肋骨或骨盆",
    },
    ReasonCode.CONTRAST_DISAGREES: {
        "en": "correct what the protocol says about contrast",
        "zh": "请更正协议中有关对比剂的信息",
    },
    ReasonCode.NOT_ORIGINAL_AXIAL: {"en": "send the original axial images", "zh": "请发送原始轴位图像"},
    ReasonCode.TOO_FEW_SLICES: {"en": "send the whole series", "zh": "请发送完整序列"},
    ReasonCode.MISSING_SLICE: {"en": "send the series again", "zh": "请重新发送该序列"},
    ReasonCode.IRREGULAR_SPACING: {"en": "reconstruct with even spacing and send that", "zh": "请以均匀间距重建后发送"},
    ReasonCode.MIXED_ORIENTATION: {
        "en": "send each orientation as its own series",
        "zh": "请将不同方向分别作为独立序列发送",
    },
    ReasonCode.MIXED_GEOMETRY: {"en": "send one reconstruction per series", "zh": "每个序列只发送一种重建"},
    ReasonCode.CONFLICTING_DUPLICATES: {"en": "send only the right reconstruction", "zh": "请只发送正确的重建"},
    ReasonCode.NOT_HOUNSFIELD: {"en": "send the original CT images", "zh": "请发送原始 CT 图像"},
    ReasonCode.PIXEL_DATA_UNREADABLE: {"en": "send the series again, uncompressed", "zh": "请以不压缩方式重新发送"},
    ReasonCode.TOO_LARGE: {"en": "send a series with thicker slices", "zh": "请发送层厚较大的序列"},
    ReasonCode.IMAGES_DELETED: {"en": "send the whole series again", "zh": "请重新发送完整序列"},
    ReasonCode.ATTEMPTS_EXHAUSTED: {"en": "report it; the other scans go on", "zh": "请报告维修；其他扫描不受影响"},
    ReasonCode.DELIVERY_PARKED: {
        "en": "tell the PACS administrator the sentence beside",
        "zh": "请将旁边的原文告知 PACS 管理员",
    },
}


def say(name: str, language: Language, /, **facts: object) -> str:
    """Return a sentence with its facts."""
    return SENTENCES[name][language].format(**facts)


def why(reason: Reason, language: Language) -> str:
    """Return a reason, of a screening or of a whole scan; in Chinese its meaning, without the case's numbers."""
    if language == "zh" and reason.code in SCAN_REASONS_ZH:
        return SCAN_REASONS_ZH[reason.code]
    return of_results.reason_text(reason, language)


def hint(reason: Reason, language: Language) -> str:
    """Return what the radiographer can do about a reason, empty where nothing can be done."""
    found = HINTS.get(reason.code)
    return found[language] if found else ""
