"""The last sample of slips was large enough, enough of it was noticed, and every survivor is judged."""

import json
from pathlib import Path

FOUND = json.loads(Path(__file__).with_name("slips.json").read_text(encoding="utf-8"))


def test_nine_of_ten_slips_of_a_sample_of_three_hundred_are_noticed() -> None:
    assert FOUND["tried"] >= 300
    assert FOUND["noticed"] >= 0.9 * FOUND["tried"]


def test_every_survivor_is_judged() -> None:
    assert len(FOUND["survivors"]) == FOUND["tried"] - FOUND["noticed"]
    assert all(survivor["judgement"] for survivor in FOUND["survivors"])
