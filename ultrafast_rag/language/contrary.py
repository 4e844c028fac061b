"""What a sentence denies, or says the opposite of: English words in pairs, prefixes that turn a word round, and "not"."""

from __future__ import annotations

import re

from ultrafast_rag.language.sameness import stem_english

# of two such words a sentence that says only the other answers another question
_OPPOSITES = """
    largest smallest; biggest smallest; most least; first last; highest lowest; longest shortest; oldest newest; oldest youngest
    fastest slowest; best worst; maximum minimum; earliest latest; heaviest lightest; richest poorest; higher lower; older younger
    more fewer; north south; east west; northern southern; eastern western; male female; internal external; upper lower
    softest hardest; weakest strongest; weaker stronger; weak strong; weak powerful; soft hard
    simple complex; hot cold; rich poor; early late; earlier later; before after; above below; inside outside; indoor outdoor
    public private; formal informal; direct indirect; positive negative; majority minority; open closed; success failure
    increase decrease; increase reduce; accept reject; win lose; won lost; gain lose; rise fall; rose fell; include exclude
    allow prohibit; allow forbid; add subtract; addition subtraction; addition multiplication; attract repel; support oppose
    import export; parallel perpendicular; temporary permanent; urban rural; domestic foreign; visible invisible; finite infinite
    summer winter
"""
_OPPOSITE: dict[str, set[str]] = {}
for _pair in _OPPOSITES.strip().replace("\n", ";").split(";"):
    _one, _other = map(stem_english, _pair.split())
    _OPPOSITE.setdefault(_one, set()).add(_other)
    _OPPOSITE.setdefault(_other, set()).add(_one)
# "non-Muslims", "unofficial", "motionless": the opposite of what is left without it; not "income", "discount", "uniform"
_TURNED = re.compile(
    r"(?:(?:non-?|dis-|de-|off-|on-|un-?(?!der|i[fointv]|til|less))([a-z]{4,})"
    r"|(?:in|im|ir|il)([a-z]{3,}(?:[ai]ble|[ae]nt|[ae]nce|ency|ive|[ae]te|al|ly|ity))"
    r"|dis((?:like|appear|agree|connect|allow|approv|continu|satisf|honest|abilit|similar|advantag|trust|loyal)[a-z]*)"
    r"|(?!regard|neverthe|nonethe)([a-z]{4,})less)"
)
_HYPHENED = re.compile(r"[a-z]+(?:-[a-z]+)*")
# what a question denies, unless it asks "whether or not"; and what denies anything in a sentence, in whatever words
_OR_NOT = re.compile(r"\b(?:or(?: \w+)? not|or \w+n['’]t|why not|not only)\b", re.I)
_DENIED = re.compile(r"\b(?:not|never|cannot|no(?!\.)|without|neither|none|nor|\w+n['’]t)\b", re.I)
_DENYING = re.compile(
    r"\b(?:nobody|nothing|lack\w*|fail\w*|refus\w*|reject\w*|except\w*|exclud\w*|unlike|rather than|instead|prevent\w*|"
    r"prohibit\w*|avoid\w*|oppos\w*|den(?:y|ies|ied)|few|little|hardly|rarely|seldom|against|only|absen\w*|far from|stop\w*|"
    r"ceas\w*|ban\w*|forb\w*|"
    r"un(?!der|i[ointv]|til)[a-z]{4,}|in(?:dependen|valid|capab|suffic|effect|form|act)\w*|non\w*|im(?:possib|pract)\w*|free|\w+less)\b",
    re.I,
)


def denial_in(question: str) -> str:
    """The question's "not", as it writes it; "" where it denies nothing, or only asks "whether or not"."""
    found = _DENIED.search(_OR_NOT.sub(" ", question))
    return found[0] if found else ""


def is_denial(term: str) -> bool:
    """Whether a word is nothing but a denial."""
    return _DENIED.fullmatch(term) is not None


def denies(text: str) -> bool:
    """Whether a sentence denies something, in whatever words."""
    return bool(_DENIED.search(text) or _DENYING.search(text))


def turned(question: str, text: str) -> list[str]:
    """The question's words of which the text says the opposite, and not the word; of which it may deny the opposite, none."""
    asked, said = (set(_HYPHENED.findall(words.lower())) for words in (question, text))
    stems, held = ({stem_english(word): word for word in words} for words in (asked, said))
    missing = {stem: word for stem, word in stems.items() if stem not in held}
    found = [word for stem, word in missing.items() if _OPPOSITE.get(stem, set()) & held.keys() - stems.keys()]
    if not _DENIED.search(question) and not _DENIED.search(text):
        found += [word for word in missing.values() if _straight(word) & held.keys()]
        found += [missing[root] for word in said - asked for root in _straight(word) & missing.keys()]
    return sorted(set(found))


def _straight(word: str) -> set[str]:
    """The stem of what a word is the opposite of, by its prefix or suffix."""
    found = _TURNED.fullmatch(word)
    return {stem_english(next(filter(None, found.groups())))} if found else set()
