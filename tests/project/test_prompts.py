"""The source prompt: kinds, media, articles, and what is refused."""

import pytest

from sine_cli.errors import UserError
from sine_cli.project import prompts


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a photo of a sks castle", "a photo of a castle"),
        ("a sks owl", "an owl"),
        ("an sks boat", "a boat"),
        ("a painting in the sks style", "a painting in the style"),
        ("sks", ""),
        ("a boat of sksons", "a boat of sksons"),
    ],
)
def test_a_prompt_without_its_token(prompt: str, plain: str) -> None:
    assert prompts.without_token(prompt, "sks") == plain


@pytest.mark.parametrize(
    ("class_noun", "kind", "token", "expected"),
    [
        ("castle", "photo", "sks", "a photo of a sks castle"),
        ("castle", "painting", "sks", "a painting of a sks castle"),
        ("castle", "photo", "olis", "a photo of an olis castle"),
        ("castle", "icon", "sks", "an icon of a sks castle"),
        ("painting", "painting", "sks", "a sks painting"),
        ("painting", "photo", "sks", "a sks painting"),
        ("Oil Painting", "painting", "olis", "an olis Oil Painting"),
        ("painting", "style", "sks", "a painting in the sks style"),
        ("  dog ", "photo", " sks ", "a photo of a sks dog"),
        ("{class} [*]", "photo", "sks", "a photo of a sks {class} [*]"),
    ],
)
def test_source_prompt(class_noun: str, kind: str, token: str, expected: str) -> None:
    assert prompts.source_prompt(class_noun, kind, token) == expected


@pytest.mark.parametrize(
    ("token", "article"),
    [
        ("sks", "a"),
        ("olis", "an"),
        ("Ella", "an"),
        ("unicorn", "a"),
        ("uninked", "an"),
        ("user", "a"),
        ("umber", "an"),
        ("euro", "a"),
        ("one", "a"),
        ("hour", "an"),
        ("house", "a"),
        ("émile", "an"),
    ],
)
def test_the_article_follows_the_sound(token: str, article: str) -> None:
    assert prompts.source_prompt("dog", "photo", token) == f"a photo of {article} {token} dog"


def test_the_default_kind_is_photo_unless_the_noun_names_a_medium() -> None:
    assert prompts.default_kind("castle") == "photo"
    assert prompts.default_kind("painting") == "painting"
    assert prompts.default_kind("pencil Sketch") == "drawing"


def test_every_kind_and_medium_makes_a_prompt_with_the_token() -> None:
    assert prompts.kinds()[0] == "photo"
    for kind in prompts.kinds():
        assert "sks" in prompts.source_prompt("castle", kind, "sks").split()
    sentences = prompts._sentences()
    assert set(sentences.media.values()) <= set(sentences.kinds)
    assert sentences.default_kind in sentences.kinds


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        prompts.source_prompt("castle", "phto", "sks")
    assert caught.value.message == 'no kind of picture called "phto"'
    assert caught.value.hint == f"did you mean `photo`? kinds: {', '.join(prompts.kinds())}"


@pytest.mark.parametrize(
    ("class_noun", "token", "message"),
    [
        ("", "sks", "--class is empty"),
        (" ", "sks", "--class is empty"),
        ("dog\n", "sks", "--class has control characters"),
        ("dog\udcff", "sks", "--class has control characters"),
        ("d" * 61, "sks", "--class has 61 characters, at most 60 are allowed"),
        ("dog", "", "--token is empty"),
        ("dog", "s ks", '--token must be one word, got "s ks"'),
        ("dog", "s\u00a0ks", '--token must be one word, got "s\u00a0ks"'),
        ("dog", "s\x00", "--token has control characters"),
        ("dog", "s" * 61, "--token has 61 characters, at most 60 are allowed"),
    ],
)
def test_unfit_words_are_refused(class_noun: str, token: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        prompts.source_prompt(class_noun, "photo", token)
    assert caught.value.message == message


def test_sixty_characters_are_allowed() -> None:
    assert prompts.check_class_noun("d" * 60) == "d" * 60


@pytest.mark.parametrize(
    ("prompt", "class_noun", "name", "expected"),
    [
        ("a sculpture of a girl", "girl", "sks girl", "a sculpture of a sks girl"),
        ("a boat", "boat", "olis boat", "an olis boat"),
        ("an owl at night", "owl", "sks owl", "a sks owl at night"),
        ("Castle, castle", "castle", "<picture>", "<picture>, castle"),
        ("the oil painting (framed)", "oil painting", "<picture>", "the <picture> (framed)"),
        ("a catalogue of cats", "cat", "sks cat", None),
        ("a desert", "castle", "sks castle", None),
        ("a c.t", "c.t", "sks c.t", "a sks c.t"),
        ("a cat", "c.t", "sks c.t", None),
    ],
)
def test_a_name_takes_the_place_of_the_noun(
    prompt: str, class_noun: str, name: str, expected: str | None
) -> None:
    assert prompts.naming(prompt, class_noun, name) == expected


def test_the_token_takes_the_place_of_its_sign() -> None:
    assert prompts.with_token("a [*] dog with a flower in mouth", "sks") == "a sks dog with a flower in mouth"
    assert prompts.with_token("a dog", "sks") == "a dog"
