"""A question that leans on the one before it: what it means, and what can be said to it without searching again.

"Why?" and "more" are answered from the last answer's evidence, in the documents' own sentences, without a model.
Any other question that cannot stand alone ("and who repaired it?") is rewritten with what was asked before: a rule of
words and pronouns, no model. It overshoots at worst: the topic it adds is the last question's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ultrafast_rag.answer.quotable import is_evidence
from ultrafast_rag.language.asking import plain_question
from ultrafast_rag.language.safetext import quotable
from ultrafast_rag.language.sentences import split_sentences
from ultrafast_rag.language.stopwords import STOP_WORDS
from ultrafast_rag.types import Answer, Chunk, Citation, Hit, Hits

FROM_EVIDENCE = "from the last answer's evidence"
MOST_SENTENCES = 3  # chosen: more is an answer of its own
NEAR_BEST = 0.8  # of the first hit's score: beyond those passages "more" would be about something else
_WHY = re.compile(
    r"\W*(?:(?:and|but|so|then|und|aber|et|mais|y|pero|а|но)\s+)?(?:why|how come|how so|warum|wieso|weshalb|pourquoi|por qué|"
    r"perché|почему|为什么|なぜ)(?:\s+(?:is that|was that|that|so|not|is it|das|ça))?\W*",
    re.I,
)
_MORE = re.compile(
    r"\W*(?:(?:and|please|und|et|y)\s+)?(?:more|(?:tell|show) me more|say more|go on|continue|what else|anything else|details|"
    r"more details|mehr|mehr dazu|weiter|noch etwas|encore|plus|en savoir plus|más|ещё|еще|更多|もっと)"
    r"(?:,?\s+(?:please|details|about (?:it|that|this|them)|on (?:it|that|this)|bitte))?\W*",
    re.I,
)
_CAUSE = re.compile(
    r"\b(?:because|so that|due to|owing to|therefore|thus|hence|in order to|as a result|for this reason|weil|denn|damit|"
    r"deshalb|daher|wegen|parce que|car|afin|donc|porque|para que|потому|чтобы|поэтому)\b|因为|所以|ため",
    re.I,
)
_LEANS = re.compile(
    r"\b(?:it|its|he|she|him|her|his|hers|they|them|their|theirs|that one|this one|those|these|the same|er|sie|ihm|ihr|ihn|"
    r"dessen|il|elle|ils|elles|он|она|они|его|её|их)\b|^\s*(?:and|but|or|what about|how about|und|aber|et|y|а|и)\b",
    re.I,
)
_COMMON = frozenset({"many", "much"}).union(*STOP_WORDS.values())  # of any language: a topic loses little by it
_WORD = re.compile(r"[^\W_]+")
_NUMBERING = re.compile(r"^(?:chapter|section|part)?\s*[\dA-Z]{0,3}(?:\.\d+)*[.:)]?\s+", re.I)
_LONGEST_HEADING = 60  # characters; chosen: longer ones make a question nobody asks


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What a question means beside the last one. question: as it stands alone. answer: made of what is there already, or None."""

    question: str
    answer: Answer | None = None

    def rewritten(self, asked: str) -> bool:
        """Whether other words are searched than those asked."""
        return self.answer is None and self.question != asked


def follow_up(question: str, last: Answer | None, said: Iterable[str] = ()) -> FollowUp:
    """What `question` means after `last`. said: texts of the conversation's answers, whose sentences are not said again."""
    if last is None or not question.strip():
        return FollowUp(question)
    if last.citations and _WHY.fullmatch(question):
        return FollowUp(question, _from_evidence(question, last, said, why=True))
    if last.citations and _MORE.fullmatch(question):
        return FollowUp(question, _from_evidence(question, last, said, why=False))
    plain = plain_question(question)
    known = plain.casefold()
    words = [word for word in _WORD.findall(known) if word not in _COMMON]
    if not _LEANS.search(plain) and len(words) > 1:
        return FollowUp(question)
    topic = [word for word in _content(last) if word.casefold() not in known]
    return FollowUp(f"{plain} ({' '.join(topic)})" if topic else question)


def _content(last: Answer) -> list[str]:
    """The telling words of the last question as it stood alone, in their order."""
    found = [word for word in _WORD.findall(plain_question(last.question)) if word.casefold() not in _COMMON]
    return list(dict.fromkeys(found))[:12]


def _from_evidence(question: str, last: Answer, said: Iterable[str], *, why: bool) -> Answer:
    """Sentences around those cited that were not said yet; for "why" those that give a reason come first."""
    told = " ".join(_flat(text) for text in (*said, last.text, *(c.quote for c in last.citations)))
    cited = [citation.hit for citation in last.citations]
    near_best = [hit for hit in last.hits if hit.score >= NEAR_BEST * last.hits[0].score]
    ranked = list({hit.chunk_id: hit for hit in (*cited, *near_best)}.values())
    found = [(hit, sentence) for hit in ranked for sentence in _sentences(hit) if _flat(sentence) not in told]
    near = [(hit, sentence) for hit, sentence in found if hit in cited] or found
    reasons = [(hit, sentence) for hit, sentence in near if _CAUSE.search(sentence)]
    chosen = (reasons if why and reasons else near or found)[:MOST_SENTENCES]
    if not chosen:
        text = "There is no more about this in the passages found. Ask in other words to search again."
        return replace(last, question=question, text=text, citations=(), supported=False, support=None, **_FREE)
    lead = "" if reasons or not why else "No reason is given in so many words; around it stands: "
    return _cited(question, last, chosen, lead)


_FREE: dict[str, Any] = {
    "generator": "extractive",
    "reason": FROM_EVIDENCE,
    "timings_s": {},
    "cost_usd": 0.0,
    "notes": (),
    "cached": False,
}


def _cited(question: str, last: Answer, chosen: Sequence[tuple[Hit, str]], lead: str) -> Answer:
    numbers: dict[int, int] = {}
    quotes: dict[int, list[str]] = {}
    pieces = []
    for hit, sentence in chosen:
        number = numbers.setdefault(hit.chunk_id, len(numbers) + 1)
        quotes.setdefault(number, []).append(sentence)
        pieces.append(f"{sentence} [{number}]")
    of = {hit.chunk_id: hit for hit, _ in chosen}
    citations = tuple(Citation(n, of[chunk], " … ".join(quotes[n])) for chunk, n in numbers.items())
    rest = [hit for hit in last.hits if hit.chunk_id not in of]
    hits = Hits([*of.values(), *rest], query=last.hits.query, evidence=last.hits.evidence)
    return replace(
        last,
        question=question,
        text=lead + " ".join(pieces),
        hits=hits,
        citations=citations,
        supported=True,
        support=None,
        **_FREE,
    )


def _sentences(hit: Hit) -> list[str]:
    """Sentences of a passage and of the text after and before it, those of the passage first."""
    texts = (hit.text, hit.neighbours[1], hit.neighbours[0])
    split = (" ".join(quotable(sentence).split()) for text in texts for sentence in split_sentences(text))
    return [sentence for sentence in split if is_evidence(sentence)]


def _flat(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


# English sentences that turn into a question word for word; the subject is short and names something
_SUBJECT = r"(?P<subject>(?:The|An?|[A-Z][\w’'-]+)(?: [\w’'-]+){0,4}?)"
_YEAR = r".*\b(?:1[5-9]|20)\d\d\b"
_DONE = r"(?P<done>\w{2,}(?:ed|lt|ade|own|orn|ound|old|ept|eld))"
_MEASURED = r"(?P<how>high|long|wide|deep|tall|old|thick|heavy)"
_ASKED = (
    (rf"{_SUBJECT} (?P<be>was|were) {_DONE} {_YEAR}", "When {be} {subject} {done}?"),
    (rf"{_SUBJECT} (?:has|have|had) \d[\d,]* (?P<things>[a-z]{{3,}}s)\b", "How many {things} does {subject} have?"),
    (rf"{_SUBJECT} (?P<be>is|are|was) \d[\d.,]* \w+ {_MEASURED}\b", "How {how} {be} {subject}?"),
    (r"(?P<subject>[A-Z][a-z’'-]+ [A-Z][\w’'-]+) (?P<be>is|was) (?:the|an?) ", "Who {be} {subject}?"),
)
_TURNED = tuple((re.compile(pattern), form) for pattern, form in _ASKED)


def sample_questions(chunks: Iterable[Chunk], n: int) -> list[str]:
    """At most n things to ask, each once: sentences turned into questions, then headings. Every one has a passage here."""
    asked: dict[str, None] = {}
    headings: dict[str, None] = {}
    for chunk in chunks:
        if question := _turned(chunk.text):
            asked[question] = None
        heading = _NUMBERING.sub("", chunk.context.rsplit("\n", 1)[-1].rsplit(" > ", 1)[-1].strip())
        if " " in heading and len(heading) <= _LONGEST_HEADING:
            headings[heading if heading.endswith("?") else f"What is there about “{heading}”?"] = None
        if len(asked) == n:
            break
    return [*asked, *headings][:n]


def _turned(text: str) -> str:
    """The first sentence of a passage that makes a question, as one; "" where none does."""
    for sentence in split_sentences(text):
        words = " ".join(sentence.split())
        for pattern, form in _TURNED:
            found = pattern.match(words)
            if not found:
                continue
            first, _, rest = found["subject"].partition(" ")
            article = first in ("The", "A", "An")
            if (article and rest and not form.startswith("Who")) or first.casefold() not in _COMMON:
                named = f"{first.lower()} {rest}" if article else found["subject"]
                return form.format(**{**found.groupdict(), "subject": named})
    return ""
