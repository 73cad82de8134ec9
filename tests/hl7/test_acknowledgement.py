"""What receivers answer, in every shape that they use."""

import pytest

from appliance.hl7.acknowledgement import AckCode, read_acknowledgement

MSH = "MSH|^~\\&|HIS|H|A|B|2026||ACK|1|P|2.5.1"


@pytest.mark.parametrize(
    ("text", "code", "control_id", "error", "said"),
    [
        (f"{MSH}\rMSA|AA|X1\r", AckCode.ACCEPT, "X1", "", ""),
        (f"{MSH}\nMSA|CA|X1\n", AckCode.COMMIT_ACCEPT, "X1", "", ""),
        (f"{MSH}\r\nMSA|AE|X1|no such patient\r\n", AckCode.ERROR, "X1", "", "no such patient"),
        (f"{MSH}\rMSA|AR|X1||||203^v^HL70357\r", AckCode.REJECT, "X1", "203", ""),
        (f"{MSH}\rMSA|AE|X1\rERR|||207^x|E||||a\\F\\b\x07\r", AckCode.ERROR, "X1", "207", "a|b"),
        ("MSH#*~\\&#H#H#A#B#2026##ACK\rMSA#AA#X1\r", AckCode.ACCEPT, "X1", "", ""),
        (f"{MSH}\rMSA|ZZ|X1\r", None, "X1", "", ""),
        (f"{MSH}\rMSA|AA\r", AckCode.ACCEPT, "", "", ""),
        (f"{MSH}\rMSA\r", None, "", "", ""),
    ],
)
def test_an_answer_is_read(text, code, control_id, error, said):
    answer = read_acknowledgement(text)
    assert (answer.code, answer.control_id, answer.error, answer.text) == (code, control_id, error, said)


@pytest.mark.parametrize("text", ["", "MSH", "MSA|AA|X1\r", MSH, "HTTP/1.1 200 OK", "\ufffd" * 100])
def test_what_is_no_answer_is_none(text):
    assert read_acknowledgement(text) is None
