"""Do two English questions ask for the same? Rules that say no wherever a word could change the answer.

Vectors cannot tell "before" from "after" or who beat whom: their cosine is .98. So everything that both questions say must be
said by both: numbers, quotations, negations, directions, names; a telling word that only one has must be a known synonym, a
derived form, or spell out the question word ("in which year" for "when"); roles must not be swapped. What is not provably
the same is different. The lists are everyday English, not taken from any set of questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import Stemmer

from ultrafast_rag.language.stopwords import STOP_WORDS
from ultrafast_rag.language.terms import detect

_TOKEN = re.compile(r"[^\W_]+(?:[.,]\d+)*(?:['’]s\b)?")
_QUOTED = re.compile(r"[\"“„«']{1}([^\"”“»']{1,80})[\"”“»']{1}(?!\w)")
NUMBER_WORDS = {
    word: str(n)
    for n, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split()
    )
    if word != "one"  # mostly a pronoun; against another number it still shows
} | {
    "first": "1st",
    "second": "2nd",
    "third": "3rd",
    "fourth": "4th",
    "fifth": "5th",
    "half": "1/2",
    "twice": "2x",
    "double": "2x",
}
# words that turn an answer round and are too common to be telling; each must stand in both or in neither
_TURNS = frozenset(
    """
    not no non nor never none neither without except unless only before after above below over under inside
    outside within beyond off down out up from against until since during between per each all least most more
    less fewer last next than other
    """.split()
)
_SAME_TURN = {"prior": "before", "cannot": "not"} | dict.fromkeys(
    "may must should will would can could any allowed permitted".split(), ""
)
_BE = frozenset("is are was were be been being".split())
_DO = frozenset("do does did".split())
_FORMS = """
    begin began begun; bring brought; build built; buy bought; catch caught; choose chose chosen; come came; draw drew
    drawn; drive drove driven; eat ate eaten; feed fed; feel felt; find found; fly flew flown; get got; give gave given;
    go went gone; grow grew grown; hold held; keep kept; know knew known; lay laid; lead led; leave left; lend lent; lose
    lost; make made; mean meant; meet met; pay paid; ride rode ridden; rise rose risen; run ran; say said; see saw seen;
    sell sold; send sent; show shown; sow sown; speak spoke spoken; spend spent; stand stood; steal stole stolen; take
    took taken; teach taught; tell told; think thought; wear wore worn; win won; write wrote written
"""
_BASE = {form: verb.split()[0] for verb in _FORMS.split(";") for form in verb.split()}
_PARTICIPLES = frozenset(verb.split()[-1] for verb in _FORMS.split(";"))
# a question word, and the nouns by which "what" or "which" asks for the same
_ASKS = {
    "when": frozenset("year date day time month moment".split()),
    "where": frozenset("place location city town country".split()),
    "who": frozenset("person people name party man woman whom whose".split()),
    "why": frozenset("reason cause causes".split()),
    "many": frozenset("number count much amount".split()),
    "how": frozenset("way steps manner method".split()),
}
_SYNONYMS = """
    far distance; tall high height; long length duration; old age; deep depth; wide width; heavy weight weigh; thick
    thickness; large big size great; fast speed quick quickly rapid; often frequently frequency; warm hot temperature;
    expensive cost price; buy purchase; begin start commence; end finish terminate conclude; allow permit; forbid
    prohibit; need require necessary; salary earn wage; made consist composed; pay bear; replace change; capacity load;
    volume capacity hold; build construct; conduct perform; discover find; resign quit; publish release issue; absorb
    take; postpone delay; complete finish; import bring; support favour back; maximum highest; minimum lowest; win victory
    victorious winner beat; lose loser; submit send; prior earlier; postal mail; shipping delivery ship; eat food meal;
    drink beverage; live reside inhabit; own possess; hurt harm; search look seek; speak talk; answer response; save
    store; connect attach link join; add insert; remove delete; create make produce; travel journey trip; direct director;
    invent inventor; design designer architect; manage manager; employ employee staff; purpose aim goal; legal lawful;
    illegal forbidden prohibited; annual yearly; location place; sick ill; rainfall rain; dissolve soluble; smoke smoking;
    cover include; charge fee fine; origin source; birthplace born birth; death die; population live inhabitants; colour
    color; ticket fare; call phone telephone; obtain get; amend change; help assist; show display; use utilise employ; get
    obtain receive; fix repair mend; choose select pick; change alter modify amend; advantage benefit; disadvantage
    drawback; author write; doctor physician; car automobile; film movie; job occupation; smallest least; enable activate;
    disable deactivate; delete erase; keep retain; reply answer; happen occur; illness disease; drug medicine medication;
    lift elevator; main head chief principal; purpose function; total sum; reduce lower decrease; increase raise; leave
    depart; near close; fall drop decline; correct right; error mistake; mean meaning signify; differ difference
    different; explain explanation describe; decide decision; safe safety; possible can; share percentage proportion;
    company firm; money funds; children kids; yearly annual
"""
# a verb and its particle, which alone would count as a direction
_PHRASAL = (
    (re.compile(r"\b(?:turn|switch)(?:e?d|e?s|ing)?( \w+){0,3}? on\b"), "enable"),
    (re.compile(r"\b(?:turn|switch)(?:e?d|e?s|ing)?( \w+){0,3}? off\b"), "disable"),
    (re.compile(r"\b(?:carry|carried|carries|carrying) out\b"), "conduct"),
    (re.compile(r"\bset(?:s|ting)? up\b"), "install"),
    (re.compile(r"\b(?:take|took|taken|takes|taking) up\b"), "absorb"),
    (re.compile(r"\b(?:step|stepp)(?:ed|s|ing)? down\b"), "resign"),
    (re.compile(r"\b(?:come|came|comes) out\b"), "publish"),
    (re.compile(r"\b(?:go|went|goes|gone) up\b"), "rise"),
    (re.compile(r"\b(?:go|went|goes|gone) down\b"), "fall"),
    (re.compile(r"\b(?:find|found|finds) out\b"), "discover"),
    (re.compile(r"\b(?:put|puts|putting) off\b"), "postpone"),
    (re.compile(r"\b(?:fill|filled|fills) (?:in|out)\b"), "complete"),
    (re.compile(r"\b(?:bring|brought|brings) over\b"), "import"),
    (re.compile(r"\bin favou?r of\b"), "support"),
    (re.compile(r"\b(?:at most|at the most)\b"), "maximum"),
    (re.compile(r"\b(?:at least|at the least)\b"), "minimum"),
)
_stemmer = Stemmer.Stemmer("english")


@lru_cache(maxsize=1 << 16)
def stem_english(word: str) -> str:
    """The Snowball stem of a word, of an irregular verb that of its base."""
    stem: str = _stemmer.stemWord(_BASE.get(word, word))
    return stem


_MEANS: dict[str, set[int]] = {}
for _group, _words in enumerate(_SYNONYMS.split(";")):
    for _word in _words.split():
        _MEANS.setdefault(stem_english(_word), set()).add(_group)
# says nothing by itself: what a wh-word already asks, and politeness
_LIGHT = frozenset(
    "please tell know kind type exactly actually one you people there apply applies available contain contains exist exists "
    "take takes degree degrees lead leads stand".split()
)
_COMMON = frozenset(STOP_WORDS["english"]) | _LIGHT | _BE | _DO | {"much", "many"}
_SHARED_START = 4  # letters from which two words may be forms of one


def synonyms() -> dict[str, list[str]]:
    """Word -> words that may say the same, of everyday English."""
    found: dict[str, list[str]] = {}
    for group in (words.split() for words in _SYNONYMS.split(";")):
        for word in group:
            found[word] = [*found.get(word, []), *(other for other in group if other != word)]
    return found


def differs(first: str, second: str) -> str:
    """Why two questions may not ask for the same, in words; "" where they do."""
    a, b = _Question(first), _Question(second)
    if "english" not in (detect(a.words, {}), detect(b.words, {})):
        return "not English"
    if a.numbers != b.numbers:
        return "other numbers"
    if a.quoted != b.quoted:
        return "other quotations"
    if a.turns != b.turns:
        return "a word that turns it round"
    if not _ask_alike(a, b):
        return "another question word"
    only_a, only_b = a.beside(b), b.beside(a)
    if not _explained(only_a, only_b, a, b):
        return f"other words: {', '.join([*only_a, *only_b])}"
    return "other roles" if _swapped(a, b) else ""


class _Question:
    """A question's words, taken apart once."""

    def __init__(self, text: str) -> None:
        plain = text.lower().replace("n't", " not").replace("n’t", " not")
        for phrase, verb in _PHRASAL:
            plain = phrase.sub(lambda found, verb=verb: f"{verb}{found[1] or '' if found.lastindex else ''}", plain)  # type: ignore[misc]
        words = _TOKEN.findall(plain)
        self.words = words = _possessives_last(words)
        self.numbers = sorted(NUMBER_WORDS.get(word, word) for word in words if word in NUMBER_WORDS or word[0].isdigit())
        self.quoted = sorted(_QUOTED.findall(text))
        self.turns = sorted(turn for word in words if (turn := _SAME_TURN.get(word, word if word in _TURNS else "")))
        self.asks = _asks(words)
        if "how high" in " ".join(words):  # "how high is the risk" asks what it is
            words = [word for word in words if word != "high"]
        telling = [word for word in words if word not in _COMMON and word not in _TURNS and word not in _SAME_TURN]
        self.stems = {stem_english(word): word for word in telling if word not in NUMBER_WORDS and word not in _ASKS}
        self.order = [stem_english(word) for word in telling]
        self.passive = any(word in _BE for word in words) and not any(word in _DO for word in words) and _has_participle(words)
        self.agent = "by" in words

    def beside(self, other: _Question) -> list[str]:
        """Its telling words that the other lacks."""
        return [word for stem, word in self.stems.items() if stem not in other.stems]


def _possessives_last(words: Sequence[str]) -> list[str]:
    """The order of "the total revenue of apple" for "apple's total revenue"."""
    out: list[str] = []
    waiting: list[str] = []
    for word in words:
        if word.endswith(("'s", "’s")):
            waiting.append(word[:-2])
            continue
        if waiting and word in _COMMON:
            out += waiting
            waiting = []
        out.append(word)
    return out + waiting


def _asks(words: Sequence[str]) -> str:
    """The question's kind by its question word; "yes" for one without."""
    for n, word in enumerate(words):
        if word in ("who", "whom", "whose"):
            return "who"
        if word == "how":
            after = words[n + 1] if n + 1 < len(words) else ""
            return "many" if after in ("many", "much") else "how" if after in _COMMON or after in ("can", "do") else "what"
        if word in ("when", "where", "why"):
            return word
        if word in ("what", "which"):
            return "how" if list(words[n + 1 : n + 4]) in (["do", "i", "do"], ["should", "i", "do"]) else "what"
    return "yes"


def _ask_alike(a: _Question, b: _Question) -> bool:
    if a.asks == b.asks:
        return True
    kind = a.asks if b.asks == "what" else b.asks if a.asks == "what" else ""
    asked = b if b.asks == "what" else a
    if kind == "many":  # "how many X has Y" and "what is the size of Y": the words decide
        return True
    return kind in _ASKS and bool(_ASKS[kind] & set(asked.words))


def _explained(only_a: Sequence[str], only_b: Sequence[str], a: _Question, b: _Question) -> bool:
    """Whether every word that one question alone has is another form or name of one in the other, or its question word's."""
    asked = frozenset().union(*(_ASKS.get(kind, frozenset()) for kind in {a.asks, b.asks} - {"what", "yes"}))
    left_a, left_b = ([word for word in words if word not in asked] for words in (only_a, only_b))
    for word in list(left_a):
        match = next((other for other in left_b if same_word(word, other)), None)
        if match is not None:
            left_a.remove(word)
            left_b.remove(match)
    return not left_a and not left_b


def same_word(word: str, other: str) -> bool:
    """Whether two words, in lower case, are synonyms, or forms of one."""
    if _MEANS.get(stem_english(word), set()) & _MEANS.get(stem_english(other), set()):
        return True
    shorter, longer = sorted((word, other), key=len)
    start = next((n for n, (x, y) in enumerate(zip(shorter, longer)) if x != y), len(shorter))
    return start >= max(_SHARED_START, len(shorter) - 2) and not shorter.isdigit()


def _swapped(a: _Question, b: _Question) -> bool:
    """Whether what they share comes in another order with nothing to explain it, or in the same with who does it turned round."""
    shared = [stem for stem in a.order if stem in b.stems and stem in a.stems]
    other = [stem for stem in b.order if stem in set(shared)]
    one_passive = a.passive != b.passive
    if shared == other:
        return one_passive and len(shared) >= 2 and (a.agent if a.passive else b.agent)
    if one_passive or _has(a) != _has(b):  # "the office of the firm", "the office that the firm has"
        return False
    return not (len(shared) <= 2 and _is_only(a) and _is_only(b))


def _has(question: _Question) -> bool:
    return bool({"have", "has", "had"} & set(question.words)) and "of" not in question.words


def _is_only(question: _Question) -> bool:
    """A mere "is", with no verb, comparison or relation in which two things could change places."""
    words = set(question.words)
    return (
        bool(words & _BE) and not words & {"of", "than", "to", "from", "by", "for", *_DO} and not _has_participle(question.words)
    )


def _has_participle(words: Sequence[str]) -> bool:
    return any(word in _PARTICIPLES or word.endswith(("ed", "wn", "en")) for word in words)
