"""Odd texts: each kind is found, and ordinary texts are left in peace."""

import pytest

from distilora.data.oddities import find_oddities, mojibake

USUAL = [f"an ordinary sentence about film number {i} with some more words in it" for i in range(40)]


def oddity(text: str) -> str:
    found = find_oddities([*USUAL, text])
    assert {i for i, _ in found} <= {len(USUAL)}
    return found[0][1] if found else ""


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ("Brilliant!", "too short (1 word)"),
        ("aaaaaaaaaaa b", "one character repeated ('a', 11 times)"),
        ("Это очень хороший фильм, правда", "in another script (cyrillic) than the others (latin)"),
        ("the cafÃ© was closed", "mojibake ('Ã©' is 'é' read in another encoding)"),
        ("it\x92s a film about it", "mojibake (the character U+0092)"),
        ("word " * 500, "far longer than the others (500 words; median 13)"),
        ("the café — “naïve”, déjà vu, 20 °C: ½ of it", ""),
        ("a film called Сталкер, and more about it", ""),
        ("10 / 10", ""),
    ],
)
def test_oddities(text: str, odd: str) -> None:
    assert oddity(text) == odd


def test_a_table_of_words_is_not_too_short() -> None:
    assert find_oddities(["good", "bad"] * 30) == []


def test_a_table_of_two_scripts_has_no_other() -> None:
    assert find_oddities(["a good film it is", "хороший это фильм"] * 20) == []


@pytest.mark.parametrize("text", ["日本語テキスト", "ÀÉÎ õü", "naïve", "“quoted” – dashes…", "😀😀", "São João"])
def test_text_that_is_no_mojibake(text: str) -> None:
    assert mojibake(text) == ""
    assert mojibake(text.encode().decode("latin-1"))


def test_the_rarest_kind_comes_first() -> None:
    texts = ["it\x92s one", *USUAL, "it\x92s two", "zzzzzzzzzzzz"]
    assert [i for i, _ in find_oddities(texts)] == [42, 0, 41]
