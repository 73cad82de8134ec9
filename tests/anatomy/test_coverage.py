from appliance.anatomy.coverage import regions


def part(organs, low, high):
    return type(organs)(organs.labels[low:high], organs.affine, organs.values, organs.pack)


def test_a_trunk(drawn):
    assert regions(drawn) == ("chest", "upper_abdomen")


def test_neck_when_much_is_above_the_lungs(drawn):
    drawn.labels[100:][(drawn.labels[100:] == 2) | (drawn.labels[100:] == 3)] = 1
    assert regions(drawn)[0] == "neck"


def test_a_chest_cut_at_both_ends(drawn):
    assert regions(part(drawn, 50, 90)) == ("chest",)


def test_lower_abdomen_far_below_the_lungs(drawn):
    drawn.labels[:70][(drawn.labels[:70] == 2) | (drawn.labels[:70] == 3)] = 1
    assert "lower_abdomen" in regions(drawn)


def test_nothing_is_guessed_without_lungs(drawn):
    drawn.labels[(drawn.labels == 2) | (drawn.labels == 3)] = 1
    assert regions(drawn) == ()
