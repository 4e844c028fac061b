"""Invented tables and report sentences with questions about one figure: what SQuAD's paragraphs never show a reader.

Values, companies and measurements are drawn at random; nothing is taken from a real document. A third of the
questions ask for a row or a column that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple


class Example(NamedTuple):
    """A question about a passage. start: where `answer` begins in `text`; -1 where the passage does not answer."""

    question: str
    lead: str
    text: str
    answer: str
    start: int


MONEY = """Net sales|Total revenue|Cost of sales|Gross profit|Operating income|Operating expenses|Income before taxes|
Provision for income taxes|Net income|Net earnings per share|Research and development|Selling, general and administrative|
Depreciation and amortization|Interest expense|Total assets|Total liabilities|Cash and cash equivalents|Accounts receivable|
Inventories|Goodwill|Long-term debt|Stockholders' equity|Capital expenditures|Dividends paid|Free cash flow|Deferred revenue|
Accounts payable|Property, plant and equipment|Retained earnings|Share-based compensation|Effective tax rate|Backlog"""
TECHNICAL = """Accuracy|Precision|Recall|F1 score|Latency|Throughput|Training time|Parameters|Peak memory|Word error rate|BLEU|
Perplexity|Batch size|Learning rate|Number of layers|Hidden size|Sampling rate|Operating temperature|Supply voltage|Weight|
Range|Maximum load|Flow rate|Response time|Error rate|Resolution|Battery life|Storage|Clock frequency|Noise level|
Sensitivity|Specificity|Mean age|Sample size|Dropout rate|Half-life"""
REGIONS = """Americas|Europe|Asia Pacific|Japan|North America|Latin America|Germany|Canada|China|Middle East|
Services|Products|Software|Hardware"""
MODELS = (
    "Baseline|Small|Base|Large|Model A|Model B|Ours|Proposed|Control|Treatment|Placebo|Type I|Type II|X-200|X-300|Standard|Pro"
)
COMPANIES = "Northwind|Alder|Contora|Bluefield|Marlin|Quarry Hill|Tessel|Ostrava|Fenwick|Halcyon|Ridgeline|Sundial"
KINDS = "Inc.|Corp.|plc|AG|Holdings|Group"
UNITS = ("in millions", "in thousands", "in millions, except per share data", "USD millions", "in billions")

_MONEY, _TECHNICAL, _REGIONS, _MODELS, _COMPANIES, _KINDS = (
    [word.strip() for word in words.split("|")] for words in (MONEY, TECHNICAL, REGIONS, MODELS, COMPANIES, KINDS)
)
_YEAR_QUESTIONS = (
    "What was {row} in {column}?",
    "What were {row} in {column}?",
    "How much was {row} in {column}?",
    "How high was {row} in fiscal {column}?",
    "{row} {column}",
    "What did the company report as {row} for {column}?",
    "What is the FY{column} {row}?",
    "How much did {row} come to in {column}?",
)
_COLUMN_QUESTIONS = (
    "What is the {row} of {column}?",
    "What {row} does {column} have?",
    "How high is the {row} for {column}?",
    "What is {column}'s {row}?",
    "{row} {column}",
    "Which {row} was measured for {column}?",
)
_PROSE = (
    "{Row} was {a} in {x}, compared with {b} in {y}.",
    "{Row} increased to {a} in fiscal {x} from {b} in fiscal {y}, mainly because of higher volumes.",
    "In {x}, {row} amounted to {a}; a year earlier, in {y}, it had been {b}.",
    "{Row} for {y} and {x} were {b} and {a}, respectively.",
)
_FILLER = (
    "The change reflects the acquisition completed during the year.",
    "See Note {n} to the consolidated financial statements for further information.",
    "Management reviews these figures every quarter.",
    "We do not expect this to recur.",
    "Exchange rates had only a small effect.",
)


def examples(count: int, *, seed: int) -> Iterator[Example]:
    """`count` questions, about two in three over tables."""
    random = Random(seed)
    for _ in range(count):
        yield _prose(random) if random.random() < 0.3 else _table(random)


def _value(random: Random, money: bool) -> str:
    form = random.random()
    if not money and form < 0.5:
        return f"{random.uniform(0, 100):.{random.choice((1, 2))}f}" + random.choice(("", " %", " ms", "%", " MB"))
    if form < 0.7:
        return random.choice(("", "", "$ ", "$")) + f"{random.randint(11, 99_999):,}"
    if form < 0.85:
        return f"({random.randint(11, 9_999):,})"
    return f"{random.uniform(0.01, 60):.2f}"


def _asked(random: Random, row: str) -> str:
    return row if random.random() < 0.3 else row[0].lower() + row[1:]


def _lead(random: Random, years: list[str]) -> str:
    name = f"{random.choice(_COMPANIES)} {random.choice(_KINDS)}"
    return random.choice(("", name, f"{name} annual report {years[0]}", "Consolidated statements of income", "Results"))


def _table(random: Random) -> Example:
    money = random.random() < 0.6
    first = random.randint(2005, 2024)
    years = [str(first - n) for n in range(random.randint(2, 4))]
    columns = years if money or random.random() < 0.2 else random.sample(_MODELS, random.randint(2, 4))
    if money and random.random() < 0.15:
        columns = random.sample(_REGIONS, random.randint(2, 4))
    rows = random.sample(_MONEY if money else _TECHNICAL, random.randint(4, 9))
    missing = rows.pop()
    cells = {row: [_value(random, money) for _ in columns] for row in rows}
    corner = (
        random.choice(("", "", "Year ended December 31", *UNITS)) if money else random.choice(("", "Metric", "Item", "Model"))
    )
    lines = [" | ".join([corner, *columns]), *(" | ".join([row, *cells[row]]) for row in rows)]
    at = random.randrange(len(columns))
    row, column = random.choice(rows), columns[at]
    no_column = columns is years and random.random() < 0.5
    answerable = random.random() < 0.67
    asked = row if answerable or no_column else missing
    when = column if answerable or not no_column else str(first + random.choice((1, 2, -5)))
    question = random.choice(_YEAR_QUESTIONS if columns is years else _COLUMN_QUESTIONS).format(
        row=_asked(random, asked), column=when
    )
    text = "\n".join(lines)
    lead = _lead(random, years)
    if not answerable:
        return Example(question, lead, text, "", -1)
    start = text.index("\n" + row + " | ") + 1 + len(row) + 3 + sum(len(cell) + 3 for cell in cells[row][:at])
    return Example(question, lead, text, cells[row][at], start)


def _prose(random: Random) -> Example:
    first = random.randint(2005, 2024)
    x, y = str(first), str(first - 1)
    rows = random.sample(_MONEY, 4)
    missing, sentences, places = rows.pop(), list[str](), list[tuple[str, str, str, int]]()
    for row in rows:
        a, b = (
            random.choice(("$", "€", "")) + f"{random.randint(2, 9_999):,}" + random.choice(("", " million")) for _ in range(2)
        )
        sentence = random.choice(_PROSE).format(Row=row, row=_asked(random, row), a=a, b=b, x=x, y=y)
        places += [(row, year, value, len(sentences)) for year, value in ((x, a), (y, b)) if sentence.count(value) == 1]
        sentences += [sentence, random.choice(_FILLER).format(n=random.randint(2, 24))]
    text, lead = " ".join(sentences), _lead(random, [x])
    if not places or random.random() < 0.33:
        asked, when = random.choice(((missing, x), (rows[0], str(first + 3))))
        return Example(random.choice(_YEAR_QUESTIONS).format(row=_asked(random, asked), column=when), lead, text, "", -1)
    row, year, value, at = random.choice(places)
    start = len(" ".join(sentences[:at])) + (1 if at else 0) + sentences[at].index(value)
    return Example(random.choice(_YEAR_QUESTIONS).format(row=_asked(random, row), column=year), lead, text, value, start)
