"""Stop strings cut a text in the same place however it is split into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.replica.generator.stop_strings import StopStrings

# Two letters, so that stop strings occur, overlap and almost occur.
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)
PIECES = st.lists(st.text("ab", max_size=4), max_size=12)


def cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """The rule itself: the shortest beginning that ends with a stop string, without it."""
    for end in range(1, len(text) + 1):
        complete = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(complete)], True
    return text, False


def may_begin(text: str, stops: list[str]) -> int:
    """Length of the longest end of ``text`` that could begin a stop string."""
    lengths = range(len(text), 0, -1)
    return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in stops)), 0)


@given(STOPS, PIECES)
def test_the_text_is_cut_where_the_whole_text_would_be(stops: list[str], pieces: list[str]) -> None:
    search, sent = StopStrings(stops), ""
    for piece in pieces:
        sent += search.push(piece)
        if search.found:
            break
    else:
        sent += search.finish()
    assert (sent, search.found) == cut("".join(pieces), stops)


@given(STOPS, PIECES)
def test_nothing_is_held_back_but_what_could_begin_a_stop_string(
    stops: list[str], pieces: list[str]
) -> None:
    search, sent, text = StopStrings(stops), "", ""
    for piece in pieces:
        sent += search.push(piece)
        text += piece
        if search.found:
            break
        assert len(text) - len(sent) == may_begin(text, stops)
        assert text.startswith(sent)


@pytest.mark.parametrize(
    ("stops", "pieces", "sent"),
    [
        (["\n\n"], ["a\n", "\nb"], ["a", ""]),
        (["END"], ["an E", "N", "d"], ["an ", "", "ENd"]),
        (["abc", "b"], ["a", "bc"], ["", "a"]),
        (["aab"], ["aa", "a", "b"], ["", "a", ""]),
        (["bc", "abc", "c"], ["xabc"], ["x"]),
        (["aabaaaa"], ["aabaaab", "aaaa!"], ["aaba", ""]),
        (["é"], ["caf", "é!"], ["caf", ""]),
        ([], ["any", ""], ["any", ""]),
    ],
)
def test_examples(stops: list[str], pieces: list[str], sent: list[str]) -> None:
    search = StopStrings(stops)
    assert [search.push(piece) for piece in pieces] == sent
