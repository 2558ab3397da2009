"""The source prompt: the words that describe the picture while tuning, "a photo of a sks castle".

The sentences come from `templates/prompts.yaml`; `[*]` stands for the token that names this very picture.
What a target prompt must be is checked here too.
"""

import difflib
import functools
import re
import unicodedata
from dataclasses import dataclass

import yaml

from sine_cli.errors import UserError
from sine_cli.project.files import printable
from sine_cli.project.templates import template_path

LONGEST_PROMPT = 10_000
"""Characters; no base reads that many."""

_LONGEST = 60
_PLACEHOLDER = re.compile(r"(?:\b(?P<article>an?) )?(?P<name>\[\*\]|\{class\})", re.IGNORECASE)

# The first sound decides between "a" and "an": a vowel letter (unless spoken "you" or "w"), or a silent h.
_VOWEL_SOUND = re.compile(
    r"(?!eu|ewe|uni(?![ndm])|us[aeiu]|ut[ei]|ubi|ur[aei]|one\b|once\b|one-|ouija)[aeiouàáâäèéêëìíîïòóôöùúûü]"
    r"|hour|heir|honest|honou?r",
    re.IGNORECASE,
)


TOKEN = "[*]"
"""What stands for the token in a prompt."""


@dataclass(frozen=True)
class _Sentences:
    default_kind: str
    kinds: dict[str, str]  # kind: sentence
    medium_sentence: str
    media: dict[str, str]  # a noun that names a medium: its kind


@functools.cache
def _sentences() -> _Sentences:
    content = yaml.safe_load(template_path("prompts.yaml").read_text(encoding="utf-8"))
    return _Sentences(**content)


def kinds() -> list[str]:
    """The kinds of picture that have a sentence, in the order of the file; the first is the default."""
    return list(_sentences().kinds)


def default_kind(class_noun: str) -> str:
    """The kind of a picture when none is given: `photo`, or that of the medium which the noun names."""
    return _kind_of_medium(class_noun) or _sentences().default_kind


def source_prompt(class_noun: str, kind: str, token: str) -> str:
    """The sentence of `kind` for a noun and a token, `source_prompt("castle", "photo", "sks")`.

    A noun that itself names a medium is not put into another one: "a sks painting", never "a photo of
    a sks painting". "a" becomes "an" before a token or noun that is spoken with a vowel.

    Raises:
        UserError: no such kind; the noun or the token is not fit (see `check_class_noun`, `check_token`).
    """
    words = {"{class}": check_class_noun(class_noun), "[*]": check_token(token)}
    sentence = _sentence(kind)
    if "{class}" in sentence and _kind_of_medium(class_noun):
        sentence = _sentences().medium_sentence
    return _PLACEHOLDER.sub(lambda match: _with_article(match, words[match["name"]]), sentence)


def naming(prompt: str, class_noun: str, name: str) -> str | None:
    """The prompt with `name` where it first has the class noun; None where it does not have it.

    "a" and "an" before it follow the name: `naming("a boat", "boat", "olis boat")` is "an olis boat".
    """
    noun = re.compile(rf"(?:\b(?P<article>an?) )?(?<!\w){re.escape(class_noun)}(?!\w)", re.IGNORECASE)
    if noun.search(prompt) is None:
        return None
    return noun.sub(lambda match: _with_article(match, name), prompt, count=1)


def without_token(prompt: str, token: str) -> str:
    """The prompt without the token, for models that do not know it.

    "a" and "an" before it follow the next word: `without_token("a sks owl", "sks")` is "an owl".
    """
    named = re.compile(
        rf"(?<!\S)(?:(?P<article>an?)\s+)?{re.escape(token)}(?:\s+(?P<next>\S+))?(?!\S)", re.IGNORECASE
    )
    plain = named.sub(lambda match: _with_article(match, match["next"] or ""), prompt)
    return " ".join(plain.split())


def with_token(prompt: str, token: str) -> str:
    """The prompt with the token in place of `[*]`, "a [*] dog"; as it is where it has none."""
    return prompt.replace(TOKEN, token)


def check_class_noun(class_noun: str) -> str:
    """The noun, trimmed: 1 to 60 characters, no control characters. Raises UserError."""
    return _checked(class_noun, "--class", "castle")


def check_token(token: str) -> str:
    """The token, trimmed: one word of 1 to 60 characters, no control characters. Raises UserError."""
    token = _checked(token, "--token", "sks")
    if len(token.split()) > 1 or TOKEN in token:
        raise UserError(f'--token must be one word, got "{token}"', "type a rare word: `--token sks`")
    return token


def check_prompt(prompt: str) -> str:
    """The source prompt, trimmed: 1 to 10,000 characters, no control characters. Raises UserError."""
    return _checked(prompt, "--prompt", '"a photo of a sks castle"', LONGEST_PROMPT)


def check_target_prompts(
    prompts: list[str], source: str | None = None, example: str = 'sine edit "a sculpture of a girl"'
) -> None:
    """Refuse target prompts that are empty, `-`, too long or no text, and such a source prompt.

    `example` is a command with a prompt, for the hint. Raises UserError.
    """
    if not all(prompt.strip() for prompt in prompts):
        raise UserError("the prompt is empty", f"say what the picture shall become: `{example}`")
    if "-" in prompts:
        raise UserError('"-" is no prompt here', "`sine edit -` reads prompts from stdin, one a line")
    if source is not None and not source.strip():
        raise UserError("--source-prompt is empty", "leave it out for the one in sine.yaml")
    for prompt in (*prompts, source or ""):
        check_text(prompt, "the prompt")


def check_text(text: str, what: str) -> None:
    """Refuse text that no model reads and no record keeps; lines and tabs are text. Raises UserError."""
    begin = printable(text[:_LONGEST]) + ("…" if len(text) > _LONGEST else "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # bytes of another encoding, as the shell handed them on
        raise UserError(f'{what} "{begin}" is not UTF-8 text', "type it anew") from error
    if any(unicodedata.category(character) == "Cc" and character not in "\t\n\r" for character in text):
        raise UserError(f'{what} "{begin}" has control characters', "type it anew")
    if len(text) > LONGEST_PROMPT:
        raise UserError(
            f"{what} has {len(text)} characters, at most {LONGEST_PROMPT} are allowed",
            "a base reads some 75 words: say it in fewer",
        )


def _checked(text: str, option: str, example: str, longest: int = _LONGEST) -> str:
    hint = f"type, for example, `{option} {example}`"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise UserError(f"{option} has control characters", hint)
    text = text.strip()
    if not text:
        raise UserError(f"{option} is empty", hint)
    if len(text) > longest:
        raise UserError(f"{option} has {len(text)} characters, at most {longest} are allowed", hint)
    return text


def _sentence(kind: str) -> str:
    sentences = _sentences().kinds
    if kind not in sentences:
        close = difflib.get_close_matches(kind, sentences, n=1)
        guess = f"did you mean `{close[0]}`? " if close else ""
        raise UserError(f'no kind of picture called "{kind}"', f"{guess}kinds: {', '.join(sentences)}")
    return sentences[kind]


def _kind_of_medium(class_noun: str) -> str | None:
    """The kind of the medium that the noun names by its last word ("oil painting"), or None."""
    words = class_noun.casefold().split()
    return _sentences().media.get(words[-1]) if words else None


def _with_article(match: re.Match[str], word: str) -> str:
    """The word, with the "a" or "an" that suits it where the match has one."""
    if match["article"] is None or not word:
        return word
    return f"{'an' if _VOWEL_SOUND.match(word) else 'a'} {word}"
