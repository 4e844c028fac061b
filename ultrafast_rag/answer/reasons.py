"""Questions for a reason, and sentences that give one: told by their words, in English."""

from __future__ import annotations

import re

_WHY = re.compile(r"^\W*(?:why|for (?:what|which) reason|what (?:is|was) the reason)\b", re.I)
_REASON = re.compile(
    r"\b(?:because|since|due to|owing to|thanks to|reasons?|so that|in order to|to (?:avoid|prevent|ensure|allow|keep|reduce)|"
    r"therefore|thus|hence|consequently|as a result|leads?|leading|led|caus(?:e|es|ed|ing)|explain(?:s|ed)?|otherwise|means that|"
    r"as (?:it|they|we|he|she|there|this|these|the|an?|no)|for (?:it|they|he|she|there)|so (?:it|they|he|she)|cannot)\b",
    re.I,
)
_CAUSE_ASKED = re.compile(r"\b(?:why|drove|drivers?|driven|drives?|reasons?|causes?|caused|led to|explains?)\b", re.I)
_CAUSE = re.compile(
    r"\b(?:because|due to|driven by|as a result of|resulting from|reflect(?:s|ed|ing)|attributable to|owing to|caused by)\b", re.I
)


def asks_why(question: str) -> bool:
    """Whether a reason is asked for, in English."""
    return bool(_WHY.match(question))


def gives_reason(text: str) -> bool:
    """Whether a sentence shows by its words that it says why."""
    return bool(_REASON.search(text))


def asks_cause(question: str) -> bool:
    """Whether it asks why, or what drove or caused something: accounts say that in the sentence after the figures."""
    return bool(_CAUSE_ASKED.search(question))


def names_cause(text: str) -> bool:
    """Whether a sentence names the cause in so many words; fewer than give any reason."""
    return bool(_CAUSE.search(text))
