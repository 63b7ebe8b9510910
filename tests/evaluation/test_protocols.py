"""The rules of each protocol against the same rules written out, pair by pair."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reidlib.evaluation.protocols import PROTOCOLS, Protocol, get_protocol

FACTS = list(itertools.product([False, True], repeat=4))  # person, camera, junk, copy


def counts(name, same_person, same_camera, junk, copy):
    """As the README says it."""
    if name in ("standard", "standard-all", "market-matlab", "single-shot-torchreid",
                "single-shot-2014"):
        return not junk and not (same_person and same_camera)
    if name == "leak-free":
        return not copy
    assert name in ("all-gallery", "lat-top10")
    return True


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_keeps_what_its_rules_say(name):
    expected = [counts(name, *facts) for facts in FACTS]
    assert [bool(PROTOCOLS[name].keeps(*facts)) for facts in FACTS] == expected
    assert PROTOCOLS[name].keeps(*np.array(FACTS).T).tolist() == expected


@given(st.booleans(), st.booleans(), st.booleans(),
       st.lists(st.tuples(*[st.booleans()] * 4), min_size=1))
def test_any_protocol_equals_a_plain_loop(drop_same_camera, drop_junk, drop_copies, pairs):
    rules = Protocol("x", drop_same_camera, drop_junk, drop_copies, None, "rectangle", "test")
    expected = []
    for same_person, same_camera, junk, copy in pairs:
        keep = True
        if drop_same_camera and same_person and same_camera:
            keep = False
        if drop_junk and junk:
            keep = False
        if drop_copies and copy:
            keep = False
        expected.append(keep)
    assert rules.keeps(*np.array(pairs).T).tolist() == expected


def test_rules_that_cannot_be_kept_and_names_that_are_unknown():
    with pytest.raises(ValueError, match="'x': drawn galleries hold no junk, and copies cannot"):
        Protocol("x", True, True, True, None, "rectangle", "test", draws=10)
    with pytest.raises(ValueError, match="'x': drawn galleries hold no junk"):
        Protocol("x", True, False, False, None, "rectangle", "test", draws=10)
    with pytest.raises(ValueError, match="unknown protocol 'strict'; known: standard, "):
        get_protocol("strict")
