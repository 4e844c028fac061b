"""A whole annual report on Form 10-K: cover, contents, Items 1 to 15, statements and notes, from a company's books."""

# ruff: noqa: E501  (what filings say is long)
from __future__ import annotations

from functools import partial
from random import Random

from filing_pages import Filing, Grid
from filing_texts import DRIVERS, PLACES, POLICIES, RISK_SENTENCES, RISKS, USES

_ITEMS = (
    ("Item 1.", "Business"), ("Item 1A.", "Risk Factors"), ("Item 1B.", "Unresolved Staff Comments"), ("Item 2.", "Properties"), ("Item 3.", "Legal Proceedings"),
    ("Item 4.", "Mine Safety Disclosures"), ("Item 5.", "Market for Registrant’s Common Equity, Related Stockholder Matters and Issuer Purchases of Equity Securities"),
    ("Item 6.", "Selected Financial Data"), ("Item 7.", "Management’s Discussion and Analysis of Financial Condition and Results of Operations"),
    ("Item 7A.", "Quantitative and Qualitative Disclosures About Market Risk"), ("Item 8.", "Financial Statements and Supplementary Data"),
    ("Item 9.", "Changes in and Disagreements With Accountants on Accounting and Financial Disclosure"), ("Item 9A.", "Controls and Procedures"),
    ("Item 10.", "Directors, Executive Officers and Corporate Governance"), ("Item 11.", "Executive Compensation"),
    ("Item 14.", "Principal Accounting Fees and Services"), ("Item 15.", "Exhibits, Financial Statement Schedules"),
)  # fmt: skip


def money(value, *, sign=False, places=0):
    """(1,234) for what is negative, a dash for nothing; sign: with the "$" that first and last rows have."""
    if not value:
        return "$—" if sign else "—"
    shown = f"{abs(value):,.{places}f}"
    return f"{'$' if sign else ''}{f'({shown})' if value < 0 else shown}"


def percent(value):
    return f"({abs(value):.1f})%" if value < 0 else f"{value:.1f}%"


def facilities(company, rng_year=0):
    """(town, use, square feet, owned or leased, segment) of each; the same in every year but for the area."""
    rng = Random(f"{company.stem} facilities")
    towns = rng.sample(PLACES, 11)
    found = [
        (town, rng.choice(USES), rng.randrange(40, 1900) * 1000, rng.choice(["Owned", "Leased"]), rng.choice(company.segments))
        for town in towns
    ]
    return [
        (town, use, feet + 12_000 * (rng_year - 2016) * (n % 3 == 0), kind, seg)
        for n, (town, use, feet, kind, seg) in enumerate(found)
    ]


def drivers(company, year):
    """What is said to have raised and lowered margins, and the segment that grew least."""
    rng = Random(f"{company.stem} {year} drivers")
    return rng.sample(DRIVERS, 2)


class Writer:
    """One report. years: the books; year: the fiscal year reported on."""

    def __init__(self, company, years, year):
        self.c, self.b, self.year = company, years, year
        self.rng = Random(f"{company.stem} {year} prose")
        self.f = Filing(f"{company.stem}_{year}_10K", f"{company.full} {year} Form 10-K")
        self.unit = f"(In {company.scale}, except per share amounts)"
        self.three, self.two = [year, year - 1, year - 2], [year, year - 1]
        self.word = {"millions": "million", "thousands": "thousand"}[company.scale]

    def usd(self, value):
        """As prose says it: $32,765 million, $1.2 billion."""
        if self.c.scale == "thousands":
            return f"${value / 1000:,.1f} million"
        return f"${value / 1000:,.2f} billion" if value >= 3000 and self.rng.random() < 0.4 else f"${value:,.0f} million"

    def periods(self, years=None, kind="Years"):
        """Heads in two lines: what ends when, over the years."""
        years = years or self.three
        fiscal = self.c.ends in ("sat", "may")
        over = (
            f"Fiscal {kind}"
            if fiscal
            else f"{kind} Ended December {'31,' if self.c.ends == 'dec' else self.c.end(self.year).split()[1]}"
        )
        return [[(over, len(years))], [(str(y), 1) for y in years]]

    def dates(self):
        return (
            [[(self.c.end(y).rsplit(" ", 1)[0], 1) for y in self.two], [(self.c.end(y).rsplit(" ", 1)[1], 1) for y in self.two]]
            if self.c.ends != "dec"
            else [[("December 31,", 2)], [(str(y), 1) for y in self.two]]
        )

    def row(self, label, key, *, indent=0, total=False, sign=False, minus=False, years=None, places=0):
        cells = [money(-self.b[y][key] if minus else self.b[y][key], sign=sign, places=places) for y in years or self.three]
        return (label, indent, cells, total)

    def fill(self, text):
        y = self.b[self.year]
        r = self.rng
        spots = {
            "who": self.c.short,
            "goods": self.c.goods,
            "year": self.year,
            "last": self.year - 1,
            "before": self.year - 2,
            "next": self.year + 1,
            "segment": r.choice(self.c.segments),
            "n": r.randrange(11, 70),
            "n2": r.randrange(2, 9),
            "n3": r.randrange(4, 15),
            "n4": r.randrange(20, 900),
            "p": r.randrange(20, 60),
            "p2": r.randrange(11, 40),
            "quarter": ("fourth", "third")[len(self.c.stem) % 2],
            "scale": self.word,
            "end": self.c.end(self.year),
            "lastend": self.c.end(self.year - 1),
            "unrec": money(y["unrec"]),
            "wavg": y["wavg"],
            "rou": money(y["rou"]),
        }
        for key in ("adv", "war", "hedge"):
            spots |= {f"{key}{n}": money(self.b[self.year - n][key]) for n in range(3)}
        return text.format(**spots)

    def prose(self, sentences):
        self.f.add("text", " ".join(self.fill(s) for s in sentences))

    def filler(self, paragraphs):
        for _ in range(paragraphs if self.c.printed else 2 * paragraphs):  # a drawn page holds more
            self.prose(self.rng.sample(RISK_SENTENCES, self.rng.randrange(4, 8)))

    def item(self, n):
        self.f.add("page")
        self.f.add("head", " ".join(_ITEMS[n]))

    def whole(self):
        """The filing."""
        self.front()
        self.business()
        self.item(1)
        self.prose(["The following risks, and others that we do not know or consider immaterial today, may affect {who}."])
        for risk in RISKS:
            self.f.add("sub", risk + ".")
            self.filler(5)
        self.item(2)
        self.f.add("text", "None.")
        self.properties()
        self.five_years()
        self.discussion()
        self.market_risk()
        self.statements()
        self.notes()
        self.back()
        return self.f

    def front(self):
        f, c = self.f, self.c
        for text in ("UNITED STATES", "SECURITIES AND EXCHANGE COMMISSION", "Washington, D.C. 20549", "FORM 10-K"):
            f.add("title", text)
        f.add(
            "text", "☒ ANNUAL REPORT PURSUANT TO SECTION 13 OR 15(d) OF THE SECURITIES EXCHANGE ACT OF 1934".replace("☒", "[X]")
        )
        f.add("text", f"For the fiscal year ended {c.end(self.year)}")
        f.add("text", "[ ] TRANSITION REPORT PURSUANT TO SECTION 13 OR 15(d) OF THE SECURITIES EXCHANGE ACT OF 1934")
        f.add("title", c.full.upper())
        f.add("text", f"(Exact name of registrant as specified in its charter) {c.town} (Address of principal executive offices)")
        for words in (
            "Indicate by check mark if the registrant is a well-known seasoned issuer, as defined in Rule 405 of the Securities Act. Yes [X] No [ ]",
            "Indicate by check mark whether the registrant is a shell company (as defined in Rule 12b-2 of the Act). Yes [ ] No [X]",
        ):
            f.add("text", words)
        y = self.b[self.year]
        shown = y["basic"] * (1 if c.scale == "millions" else 1 / 1000)
        f.add("text", f"Shares of common stock outstanding at January 31, {self.year + 1}: {shown:,.1f} million.")
        f.add("page")
        f.add("title", "TABLE OF CONTENTS")
        rows = [(" ".join(item), 0, [str(3 + 4 * n)], False) for n, item in enumerate(_ITEMS)]
        f.add("grid", Grid([[("Page", 1)]], rows))

    def business(self):
        self.item(0)
        y, c, f = self.b[self.year], self.c, self.f
        f.add(
            "text",
            f"{c.full} (“{c.short}” or the “Company”) develops, makes and sells {c.goods}. Its principal executive offices are in {c.town}. The Company manages its operations in {len(c.segments)} segments: {', '.join(c.segments)}.",
        )
        f.add(
            "text",
            f"The Company employed {y['employees']:,.0f} people at {c.end(self.year)} (full-time equivalents), {y['employees'] * 0.41:,.0f} of them in the United States. "
            + self.fill("Some {p}% of them are covered by collective bargaining agreements."),
        )
        for n, segment in enumerate(c.segments):
            f.add("sub", f"{segment} Business")
            f.add(
                "text",
                f"The {segment} segment accounted for {100 * y[f'seg{n}'] / y['sales']:.1f}% of {c.labels['sales'].lower()} in {self.year}, compared with {100 * self.b[self.year - 1][f'seg{n}'] / self.b[self.year - 1]['sales']:.1f}% in {self.year - 1}. "
                + self.fill(self.rng.choice(RISK_SENTENCES)),
            )
            self.filler(2)
        f.add("sub", "Backlog")
        f.add(
            "text",
            f"Backlog of unfilled orders believed to be firm was {self.usd(y['backlog'])} at {c.end(self.year)}, and {self.usd(self.b[self.year - 1]['backlog'])} a year earlier.",
        )
        if c.research:
            f.add("sub", "Research and Patents")
            f.add(
                "text",
                f"Research and product development is important to the Company. Expenses for research and development totaled {self.usd(y['rd'])} in {self.year}, {self.usd(self.b[self.year - 1]['rd'])} in {self.year - 1} and {self.usd(self.b[self.year - 2]['rd'])} in {self.year - 2}.",
            )
        if c.stem == "LARKSPUR":
            f.add(
                "text",
                f"At the end of fiscal {self.year} we operated {y['stores']:.0f} stores, of which {y['stores'] * 0.83:.0f} were in the United States.",
            )
        self.filler(4)

    def properties(self):
        self.item(3)
        self.f.add(
            "text",
            "The Company’s principal facilities at the end of the year are listed below. Management believes that they are suitable and adequate for present needs.",
        )
        rows = [
            (town, 0, [use, segment, f"{feet:,}", kind], False)
            for town, use, feet, kind, segment in facilities(self.c, self.year)
        ]
        self.f.add(
            "grid",
            Grid(
                [[("Principal use", 1), ("Segment", 1), ("Approximate square feet", 1), ("Owned or leased", 1)]],
                rows,
                corner="Location",
                words=True,
            ),
        )
        self.item(4)
        self.f.add(
            "text", "Discussion of legal matters is incorporated by reference from Note 14, “Commitments and Contingencies.”"
        )
        self.item(6)
        y = self.b[self.year]
        self.f.add(
            "text",
            "The Company’s common stock is listed on the New York Stock Exchange. Quarterly high and low sales prices and dividends declared per share were:",
        )
        rows = [
            (
                f"{name} Quarter",
                0,
                [f"${self.b[k][f'q{q}high']:.2f}", f"{self.b[k][f'q{q}low']:.2f}", f"{self.b[k]['dps'] / 4:.3f}"],
                False,
            )
            for k in self.two
            for q, name in enumerate(("First", "Second", "Third", "Fourth"))
        ]
        half = [(row[0], 0, row[2] + rows[n + 4][2], False) for n, row in enumerate(rows[:4])]
        self.f.add(
            "grid", Grid([[(str(self.year), 3), (str(self.year - 1), 3)], [("High", 1), ("Low", 1), ("Dividend", 1)] * 2], half)
        )
        self.f.add("sub", "Issuer Purchases of Equity Securities")
        rows = []
        for month in ("October 1-31", "November 1-30", "December 1-31"):
            bought = self.rng.randrange(200, 2900) * 1000
            rows.append(
                (
                    month,
                    0,
                    [
                        f"{bought:,}",
                        f"${y['q3low'] * self.rng.uniform(1, 1.1):.2f}",
                        f"{bought - self.rng.randrange(1, 90) * 100:,}",
                        f"${self.rng.randrange(1000, 9000):,}",
                    ],
                    False,
                )
            )
        self.f.add(
            "grid",
            Grid(
                [
                    [
                        ("Total Number of Shares Purchased", 1),
                        ("Average Price Paid per Share", 1),
                        ("Shares Purchased as Part of Announced Plans", 1),
                        ("Maximum Value That May Yet Be Purchased (Millions)", 1),
                    ]
                ],
                rows,
                corner="Period",
            ),
        )

    def five_years(self):
        self.item(7)
        five = [self.year - n for n in range(5)]
        L = self.c.labels
        rows = [
            self.row(L["sales"], "sales", years=five, sign=True),
            self.row(L["ni"], "ni", years=five),
            self.row("Per share — diluted", "epsd", years=five, places=2),
            self.row("Dividends declared per common share", "dps", years=five, places=2),
            self.row("Total assets", "assets", years=five, sign=True),
            self.row("Long-term debt (excluding portion due within one year)", "longdebt", years=five),
            self.row("Capital expenditures", "capex", years=five),
        ]
        self.f.add(
            "grid",
            Grid(
                [[(str(y), 1) for y in five]],
                rows,
                unit=f"(Dollars in {self.c.scale}, except per share amounts)",
                corner="Years ended",
            ),
        )

    def discussion(self):
        self.item(8)
        c, f, L = self.c, self.f, self.c.labels
        y, p = self.b[self.year], self.b[self.year - 1]
        name = f"fiscal {self.year}" if c.ends in ("sat", "may") else str(self.year)
        prior = f"fiscal {self.year - 1}" if c.ends in ("sat", "may") else str(self.year - 1)
        (cost, charge), (other, other2) = drivers(c, self.year)
        amount = self.usd(y["restructuring"])
        f.add("head", "OVERVIEW")
        f.add(
            "text",
            f"{c.short} is a diversified provider of {c.goods}. Management’s discussion should be read together with the consolidated financial statements. All amounts are in {c.scale}, except per share amounts and percentages, unless otherwise noted.",
        )
        up = "increased" if y["sales"] > p["sales"] else "decreased"
        f.add(
            "text",
            f"{L['sales']} {up} {abs(100 * (y['sales'] / p['sales'] - 1)):.1f}% to {self.usd(y['sales'])} in {name} from {self.usd(p['sales'])} in {prior}. Diluted earnings per share were ${y['epsd']:.2f}, compared with ${p['epsd']:.2f}.",
        )
        self.filler(3)
        f.add("head", "RESULTS OF OPERATIONS")
        f.add("sub", L["sales"] + ":")
        grow = [100 * (y[f"seg{n}"] / p[f"seg{n}"] - 1) for n in range(len(c.segments))]
        rows = [
            (
                s,
                0,
                [
                    money(y[f"seg{n}"], sign=n == 0),
                    money(p[f"seg{n}"], sign=n == 0),
                    percent(y[f"organic{n}"]),
                    percent(grow[n] - y[f"organic{n}"] - y[f"fx{n}"]),
                    percent(y[f"fx{n}"]),
                    percent(grow[n]),
                ],
                False,
            )
            for n, s in enumerate(c.segments)
        ]
        rows.append(
            (
                f"Total {L['sales'].lower()}",
                0,
                [
                    money(y["sales"], sign=True),
                    money(p["sales"], sign=True),
                    "",
                    "",
                    "",
                    percent(100 * (y["sales"] / p["sales"] - 1)),
                ],
                True,
            )
        )
        f.add(
            "grid",
            Grid(
                [
                    [(str(self.year), 1), (str(self.year - 1), 1), ("% change", 4)],
                    [("", 1), ("", 1), ("Organic", 1), ("Acquisitions", 1), ("Translation", 1), ("Total", 1)],
                ],
                rows,
                unit=f"({c.scale.title()})",
            ),
        )
        for n, segment in enumerate(c.segments):
            word = "increased" if grow[n] > 0 else "decreased"
            f.add(
                "text",
                f"{segment} {L['sales'].lower()} {word} {abs(grow[n]):.1f}% to {self.usd(y[f'seg{n}'])}. Excluding acquisitions and translation, sales {'grew' if y[f'organic{n}'] > 0 else 'declined'} {abs(y[f'organic{n}']):.1f}%. "
                + self.fill("Growth was strongest in {goods} for {segment} customers."),
            )
        worst = min(range(len(grow)), key=grow.__getitem__)
        f.add(
            "text",
            f"Excluding the effect of mergers, overall growth was held back by the {c.segments[worst]} segment, where sales {'fell' if grow[worst] < 0 else 'rose only'} {abs(grow[worst]):.1f}%.",
        )
        f.add("sub", "Operating expenses:")
        share = [
            ("Cost of sales" if L["cogs"] == "Cost of sales" else L["cogs"], "cogs"),
            (L["sga"], "sga"),
            *([("Research, development and related expenses", "rd")] if c.research else []),
            ("Restructuring", "restructuring"),
            (f"{L['opinc']} margin", "opinc"),
        ]
        rows = [
            (
                label,
                0,
                [percent(100 * self.b[k][key] / self.b[k]["sales"]) for k in self.three]
                + [percent(100 * (y[key] / y["sales"] - p[key] / p["sales"]))],
                key == "opinc",
            )
            for label, key in share
        ]
        f.add(
            "grid",
            Grid(
                [
                    [(f"{'Fiscal ' if c.ends != 'dec' else ''}Years", 3), ("Change", 1)],
                    [(str(k), 1) for k in self.three] + [(f"{self.year} versus {self.year - 1}", 1)],
                ],
                rows,
                unit=f"(Percent of {L['sales'].lower()})",
            ),
        )
        margin = 100 * (y["opinc"] / y["sales"] - p["opinc"] / p["sales"])
        f.add(
            "text",
            f"Operating margin was {100 * y['opinc'] / y['sales']:.1f}% in {name}, {'up' if margin > 0 else 'down'} {abs(margin):.1f} percentage points from {prior}. The {'increase' if margin > 0 else 'decrease'} was primarily driven by {cost.format(amount=amount)} and {charge}, partially offset by {other.format(amount=amount)} and {other2}.",
        )
        f.add(
            "text",
            f"Restructuring and other charges were {amount} in {name} and relate to the reorganization of the {c.segments[-1]} segment.",
        )
        self.filler(3)
        f.add("sub", "Interest and taxes:")
        f.add(
            "text",
            f"Interest expense was {self.usd(y['interest'])} in {name} and {self.usd(p['interest'])} in {prior}. The effective tax rate was {y['rate']:.1f}% in {self.year}, compared with {p['rate']:.1f}% in {self.year - 1}.",
        )
        f.add("head", "PERFORMANCE BY BUSINESS SEGMENT")
        for n, segment in enumerate(c.segments):
            f.add("sub", f"{segment}:")
            rows = [
                ("Sales (" + c.scale + ")", 0, [money(self.b[k][f"seg{n}"], sign=True) for k in self.three], False),
                ("Operating income (" + c.scale + ")", 0, [money(self.b[k][f"segop{n}"], sign=True) for k in self.three], False),
                (
                    "Percent of sales",
                    1,
                    [percent(100 * self.b[k][f"segop{n}"] / self.b[k][f"seg{n}"]) for k in self.three],
                    False,
                ),
            ]
            f.add("grid", Grid([[(str(k), 1) for k in self.three]], rows))
            self.filler(2)
        f.add("head", "FINANCIAL CONDITION AND LIQUIDITY")
        f.add(
            "text",
            f"At {c.end(self.year)} the Company had {self.usd(y['cash'])} of cash and cash equivalents. Working capital totaled {self.usd(y['currentassets'] - y['currentliabilities'])}, compared with {self.usd(p['currentassets'] - p['currentliabilities'])} at {c.end(self.year - 1)}. The Company has a {y['line'] / 1000:,.1f} {'billion' if c.scale == 'millions' else 'million'} dollar five-year revolving credit facility that expires in March {self.year + 3}; nothing was drawn at year-end.",
        )
        debt = [(k, self.b[k]["shortdebt"] + self.b[k]["longdebt"]) for k in self.two]
        rows = [
            (
                "Short-term borrowings and current portion of long-term debt",
                0,
                [money(self.b[k]["shortdebt"], sign=True) for k in self.two],
                False,
            ),
            ("Long-term debt", 0, [money(self.b[k]["longdebt"]) for k in self.two], False),
            ("Total debt", 0, [money(v, sign=True) for _, v in debt], True),
            (
                "Less: cash, cash equivalents and marketable securities",
                0,
                [money(self.b[k]["cash"] + self.b[k]["securities"]) for k in self.two],
                False,
            ),
            ("Net debt", 0, [money(v - self.b[k]["cash"] - self.b[k]["securities"], sign=True) for k, v in debt], True),
        ]
        f.add("grid", Grid(self.dates(), rows, unit=f"({c.scale.title()})"))
        free = [(k, self.b[k]["cfo"] - self.b[k]["capex"]) for k in self.three]
        rows = [
            ("Net cash provided by operating activities", 0, [money(self.b[k]["cfo"], sign=True) for k in self.three], False),
            (L["capex"], 0, [money(-self.b[k]["capex"]) for k in self.three], False),
            ("Free cash flow", 0, [money(v, sign=True) for _, v in free], True),
        ]
        f.add("grid", Grid(self.periods(), rows, unit=f"({c.scale.title()})"))
        f.add("sub", "Contractual Obligations")
        kinds = (
            ("Long-term debt, including current portion", "longdebt"),
            ("Interest on long-term debt", "interest"),
            ("Operating leases", "rent"),
            ("Purchase obligations", "otherassets"),
        )
        rows = []
        for label, key in kinds:
            parts = [round(y[key] * self.rng.uniform(0.1, 0.9)) for _ in range(4)]
            rows.append((label, 0, [money(sum(parts)), *map(money, parts)], False))
        f.add(
            "grid",
            Grid(
                [
                    [("", 1), ("Payments due by year", 4)],
                    [
                        ("Total", 1),
                        (str(self.year + 1), 1),
                        (f"{self.year + 2}–{self.year + 3}", 1),
                        (f"{self.year + 4}–{self.year + 5}", 1),
                        ("After", 1),
                    ],
                ],
                rows,
                unit=f"({c.scale.title()})",
            ),
        )
        self.filler(4)
        f.add("head", "CRITICAL ACCOUNTING ESTIMATES")
        self.filler(5)

    def market_risk(self):
        self.item(9)
        y = self.b[self.year]
        self.f.add(
            "text",
            f"A hypothetical 10 percent strengthening of the U.S. dollar would reduce pre-tax income by {self.usd(y['otherassets'] * 0.1)}. A hypothetical increase of 100 basis points in interest rates would increase annual interest expense by {self.usd(y['cp'] * 0.01 + 1)}.",
        )
        self.filler(3)

    def titled(self, *lines):
        self.f.add("page")
        for line in lines:
            self.f.add("title", line)

    def statements(self):
        self.item(10)
        self.f.add("head", "REPORT OF INDEPENDENT REGISTERED PUBLIC ACCOUNTING FIRM")
        self.f.add(
            "text",
            f"To the Stockholders and Board of Directors of {self.c.full}: We have audited the accompanying consolidated balance sheets of {self.c.full} and its subsidiaries as of {self.c.end(self.year)} and {self.c.end(self.year - 1)}, and the related consolidated statements of {self.c.labels['operations'].lower()}, comprehensive income, changes in equity and cash flows for each of the three years in the period. In our opinion, they present fairly, in all material respects, the financial position of the Company.",
        )
        self.filler(2)
        c, L, unit = self.c, self.c.labels, self.unit
        who = f"{c.full.upper()} AND SUBSIDIARIES"
        self.titled(who, f"CONSOLIDATED STATEMENTS OF {L['operations']}")
        R = self.row
        rows = [
            R(L["sales"], "sales", sign=True),
            ("Operating expenses", 0, ["", "", ""], False),
            R(L["cogs"], "cogs", indent=1),
            R(L["sga"], "sga", indent=1),
        ]
        rows += [R("Research, development and related expenses", "rd", indent=1)] if c.research else []
        rows += [
            R("Amortization of intangible assets", "amort", indent=1),
            R("Restructuring and other charges", "restructuring", indent=1),
        ]
        rows += [
            ("Total operating expenses", 2, [money(self.b[k]["sales"] - self.b[k]["opinc"]) for k in self.three], True),
            R(L["opinc"], "opinc"),
            ("Other expense (income), net:", 0, ["", "", ""], False),
            R("Interest expense", "interest", indent=1),
            R("Interest and other income", "otherinc", indent=1, minus=True),
            R("Income before income taxes", "pretax", total=True),
            R("Provision for income taxes", "tax"),
            R("Net income including noncontrolling interest", "income", total=True, sign=True),
            R("Less: Net income attributable to noncontrolling interest", "nci"),
            R(L["ni"], "ni", total=True, sign=True),
            ("Weighted average shares outstanding:", 0, ["", "", ""], False),
            R("Basic", "basic", indent=1, places=1),
            R("Diluted", "diluted", indent=1, places=1),
            ("Earnings per share attributable to common shareholders:", 0, ["", "", ""], False),
            R("Basic", "epsb", indent=1, sign=True, places=2),
            R("Diluted", "epsd", indent=1, sign=True, places=2),
            R("Cash dividends declared per common share", "dps", sign=True, places=2),
        ]
        self.f.add("grid", Grid(self.periods(), rows, unit=unit))
        self.f.add(
            "text", "The accompanying Notes to Consolidated Financial Statements are an integral part of these statements."
        )
        self.titled(who, "CONSOLIDATED STATEMENTS OF COMPREHENSIVE INCOME")
        total = [self.b[k]["income"] + self.b[k]["oci"] for k in self.three]
        rows = [
            R("Net income including noncontrolling interest", "income", sign=True),
            ("Other comprehensive income (loss), net of tax:", 0, ["", "", ""], False),
            R("Cumulative translation adjustment", "oci_fx", indent=1),
            R("Defined benefit pension and postretirement plans adjustment", "oci_pension", indent=1),
            R("Total other comprehensive income (loss), net of tax", "oci", total=True),
            ("Comprehensive income including noncontrolling interest", 0, [money(v, sign=True) for v in total], True),
        ]
        self.f.add("grid", Grid(self.periods(), rows, unit=f"(In {c.scale})"))
        self.titled(who, "CONSOLIDATED BALANCE SHEETS")
        B = partial(self.row, years=self.two)
        blank = ["", ""]
        rows = [
            ("ASSETS", 0, blank, False),
            ("Current assets", 0, blank, False),
            B("Cash and cash equivalents", "cash", indent=1, sign=True),
            B("Marketable securities — current", "securities", indent=1),
            B(
                f"{L['ar']}, less allowances of {money(self.b[self.year]['allowance'], sign=True)} and {money(self.b[self.year - 1]['allowance'], sign=True)}",
                "ar",
                indent=1,
            ),
            B(
                "Total inventories"
                if c.stem == "MERIDIANCONTROLS"
                else "Merchandise inventories"
                if c.stem == "LARKSPUR"
                else "Inventories",
                "inventory",
                indent=1,
            ),
            B("Prepaid expenses and other current assets", "prepaid", indent=1),
            B("Total current assets", "currentassets", indent=2, total=True),
            B("Property, plant and equipment, at cost", "gross_ppe"),
            B("Less: Accumulated depreciation", "accdep", minus=True),
            B(L["ppe"], "ppe", indent=1, total=True),
            B("Goodwill", "goodwill"),
            B("Intangible assets — net", "intangibles"),
            B("Other assets", "otherassets"),
            B("Total assets", "assets", sign=True, total=True),
            ("LIABILITIES", 0, blank, False),
            ("Current liabilities", 0, blank, False),
            B("Short-term borrowings and current portion of long-term debt", "shortdebt", indent=1, sign=True),
            B("Accounts payable", "ap", indent=1),
            B("Accrued payroll", "payroll", indent=1),
            B("Accrued income taxes", "taxdue", indent=1),
            B("Other current liabilities", "othercurrent", indent=1),
            B("Total current liabilities", "currentliabilities", indent=2, total=True),
            B("Long-term debt", "longdebt"),
            B("Pension and postretirement benefits", "pension"),
            B("Other liabilities", "otherliabilities"),
            B("Total liabilities", "liabilities", total=True, sign=True),
            ("Commitments and contingencies (Note 14)", 0, blank, False),
            ("EQUITY", 0, blank, False),
            B("Common stock, par value $.01 per share", "common", sign=True),
            B("Additional paid-in capital", "apic"),
            B("Retained earnings", "retained"),
            B("Treasury stock, at cost", "treasury"),
            B("Accumulated other comprehensive income (loss)", "aoci"),
            B(f"Total {c.full} shareholders’ equity", "parentequity", indent=1),
            B("Noncontrolling interest", "ncibalance", indent=1),
            B("Total equity", "equity", sign=True, total=True),
            ("Total liabilities and equity", 0, [money(self.b[k]["assets"], sign=True) for k in self.two], True),
        ]
        self.f.add("grid", Grid(self.dates(), rows, unit=f"(Dollars in {c.scale}, except per share amount)"))
        self.titled(who, "CONSOLIDATED STATEMENTS OF CASH FLOWS")
        n3 = ["", "", ""]
        rows = [
            ("Cash Flows from Operating Activities", 0, n3, False),
            R("Net income including noncontrolling interest", "income", sign=True),
            ("Adjustments to reconcile net income to net cash provided by operating activities", 0, n3, False),
            R("Depreciation and amortization", "da", indent=1),
            R("Stock-based compensation expense", "sbc", indent=1),
            R("Deferred income taxes", "deferred", indent=1),
            ("Changes in assets and liabilities", 1, n3, False),
            R("Accounts receivable", "dar", indent=2),
            R("Inventories", "dinv", indent=2),
            R("Accounts payable", "dap", indent=2),
            R("Other — net", "dother", indent=2),
            R("Net cash provided by operating activities", "cfo", total=True),
            ("Cash Flows from Investing Activities", 0, n3, False),
            R(L["capex"], "capex", minus=True, indent=1),
            R("Proceeds from sale of property and other assets", "disposed", indent=1),
            R("Acquisitions, net of cash acquired", "acquired", minus=True, indent=1),
            R("Purchases of marketable securities and investments", "secbuy", minus=True, indent=1),
            R("Proceeds from maturities and sale of marketable securities and investments", "secsell", indent=1),
            R("Net cash used in investing activities", "cfi", total=True),
            ("Cash Flows from Financing Activities", 0, n3, False),
            R("Proceeds from debt (maturities greater than 90 days)", "issued", indent=1),
            R("Repayment of debt (maturities greater than 90 days)", "repaid", minus=True, indent=1),
            R(
                "Purchases of treasury stock" if c.stem != "LARKSPUR" else "Repurchase of common stock",
                "buyback",
                minus=True,
                indent=1,
            ),
            R("Proceeds from issuance of stock under benefit plans", "optioncash", indent=1),
            R("Dividends paid to shareholders", "dividends", minus=True, indent=1),
            R("Net cash used in financing activities", "cff", total=True),
            R("Effect of exchange rate changes on cash and cash equivalents", "fx"),
            R("Net increase (decrease) in cash and cash equivalents", "dcash", total=True),
            R("Cash and cash equivalents at beginning of year", "cash0"),
            R("Cash and cash equivalents at end of period", "cash", total=True, sign=True),
        ]
        self.f.add("grid", Grid(self.periods(), rows, unit=f"({c.scale.title()})"))
        self.titled(who, "CONSOLIDATED STATEMENTS OF CHANGES IN EQUITY")
        rows = []
        for k in reversed(self.two):
            rows.append(
                (
                    f"Balance at {c.end(k - 1)}",
                    0,
                    [
                        money(self.b[k - 1]["equity"], sign=True),
                        money(self.b[k - 1]["apic"]),
                        money(self.b[k - 1]["retained"]),
                        money(self.b[k - 1]["treasury"]),
                        money(self.b[k - 1]["aoci"]),
                    ],
                    True,
                )
            )
            rows += [
                ("Net income", 1, [money(self.b[k]["income"]), "", money(self.b[k]["ni"]), "", ""], False),
                (
                    "Other comprehensive income (loss), net of tax",
                    1,
                    [money(self.b[k]["oci"]), "", "", "", money(self.b[k]["oci"])],
                    False,
                ),
                (
                    f"Dividends declared (${self.b[k]['dps']:.2f} per share)",
                    1,
                    [money(-self.b[k]["dividends"]), "", money(-self.b[k]["dividends"]), "", ""],
                    False,
                ),
                ("Reacquired stock", 1, [money(-self.b[k]["buyback"]), "", "", money(-self.b[k]["buyback"]), ""], False),
            ]
        rows.append(
            (
                f"Balance at {c.end(self.year)}",
                0,
                [
                    money(self.b[self.year]["equity"], sign=True),
                    money(self.b[self.year]["apic"]),
                    money(self.b[self.year]["retained"]),
                    money(self.b[self.year]["treasury"]),
                    money(self.b[self.year]["aoci"]),
                ],
                True,
            )
        )
        self.f.add(
            "grid",
            Grid(
                [
                    [
                        ("Total", 1),
                        ("Additional Paid-in Capital", 1),
                        ("Retained Earnings", 1),
                        ("Treasury Stock", 1),
                        ("Accumulated Other Comprehensive Income (Loss)", 1),
                    ]
                ],
                rows,
                unit=f"({c.scale.title()})",
            ),
        )

    def note(self, number, title, *sentences):
        self.f.add("head", f"NOTE {number}. {title}")
        for text in sentences:
            self.f.add("text", self.fill(text))

    def grid(self, heads, rows, **more):
        self.f.add("grid", Grid(heads, rows, unit=f"({self.c.scale.title()})", **more))

    def notes(self):
        c, y, R = self.c, self.b[self.year], self.row
        self.titled("NOTES TO CONSOLIDATED FINANCIAL STATEMENTS")
        self.note(1, "Significant Accounting Policies")
        for title, text in POLICIES.items():
            self.f.add("sub", title)
            self.f.add("text", self.fill(text))
            self.filler(1)
        after = self.year + 1
        B = partial(self.row, years=self.two)
        self.note(2, "Inventories and Other Balance Sheet Components", "Inventories consisted of the following:")
        self.grid(
            self.dates(),
            [
                B("Finished goods", "finished", sign=True),
                B("Work in process", "wip"),
                B("Raw materials and supplies", "raw"),
                B("Total inventories", "inventory", sign=True, total=True),
            ],
        )
        self.note(
            3,
            "Goodwill and Intangible Assets",
            "Amortization expense for acquired intangible assets was as below. Expected amortization expense for acquired intangible assets recorded as of {end} follows:",
        )
        self.grid(self.periods(), [R("Amortization expense", "amort", sign=True)])
        self.grid(
            [[(str(after + n), 1) for n in range(5)] + [(f"After {after + 4}", 1)]],
            [("Amortization expense", 0, [money(y[f"am{n}"], sign=True) for n in range(6)], False)],
        )
        self.filler(2)
        self.note(
            4,
            "Accumulated Other Comprehensive Income",
            "The components are shown in the consolidated statements of changes in equity.",
        )
        self.filler(2)
        self.note(5, "Income Taxes", "A reconciliation of the effective income tax rates with the U.S. statutory rate follows.")

        def rate(label, key, total=False):
            return (label, 0, [percent(self.b[k][key]) for k in self.three], total)

        self.f.add(
            "grid",
            Grid(
                self.periods(),
                [
                    rate("Statutory U.S. tax rate", "federal"),
                    rate("International income taxes — net", "foreign"),
                    rate("U.S. research and development credit", "credits"),
                    rate("Tax Cuts and Jobs Act (TCJA) impacts", "reform"),
                    rate("All other — net", "othertax"),
                    rate("Effective worldwide tax rate", "rate", total=True),
                ],
                unit="(Percent of pre-tax income)",
            ),
        )
        paid = [(k, round(self.b[k]["tax"] * 0.9)) for k in self.three]
        self.grid(
            self.periods(),
            [
                ("Federal", 1, [money(round(self.b[k]["tax"] * 0.5), sign=True) for k in self.three], False),
                ("State", 1, [money(round(self.b[k]["tax"] * 0.1)) for k in self.three], False),
                ("International", 1, [money(round(self.b[k]["tax"] * 0.4)) for k in self.three], False),
                R("Total provision for income taxes", "tax", sign=True, total=True),
                ("Cash paid for income taxes", 0, [money(v, sign=True) for _, v in paid], False),
            ],
        )
        self.note(6, "Debt and Short-Term Borrowings", "Long-term debt consisted of the following:")
        rows = []
        for n in range(6):
            coupon, due = (2.25 + 0.375 * n, after + 1 + 2 * n)
            rows.append(
                (
                    f"{coupon:.3f}% notes due {due}",
                    0,
                    [f"{coupon + 0.02 * n:.2f}%", money(y[f"due{n}"]), money(self.b[self.year - 1][f"due{n}"])],
                    False,
                )
            )
        rows.append(
            (
                "Total long-term debt, including current portion",
                0,
                ["", money(sum(y[f"due{n}"] for n in range(6))), money(sum(self.b[self.year - 1][f"due{n}"] for n in range(6)))],
                True,
            )
        )
        self.grid([[("Effective Interest Rate", 1), (str(self.year), 1), (str(self.year - 1), 1)]], rows, corner="Description")
        self.f.add("text", "Maturities of long-term debt for the next five years are as follows:")
        self.grid(
            [[(str(after + n), 1) for n in range(5)] + [("Thereafter", 1)]],
            [("Long-term debt", 0, [money(y[f"due{n}"], sign=True) for n in range(6)], False)],
        )
        self.f.add(
            "text",
            f"Commercial paper outstanding was {self.usd(y['cp'])} at {c.end(self.year)}, with a weighted-average rate of {y['discount'] - 1.4:.2f}%.",
        )
        self.filler(3)
        self.note(
            7,
            "Pension and Postretirement Benefit Plans",
            "Components of net periodic benefit cost and the assumptions used were:",
        )
        net = [self.b[k]["service"] + self.b[k]["intcost"] - self.b[k]["exreturn"] for k in self.three]
        self.grid(
            self.periods(),
            [
                R("Service cost", "service", sign=True),
                R("Interest cost", "intcost"),
                R("Expected return on plan assets", "exreturn", minus=True),
                ("Net periodic benefit cost", 0, [money(v, sign=True) for v in net], True),
                ("Discount rate", 0, [f"{self.b[k]['discount']:.2f}%" for k in self.three], False),
                (
                    "Expected long-term rate of return on plan assets",
                    0,
                    [f"{self.b[k]['plan_return']:.2f}%" for k in self.three],
                    False,
                ),
            ],
        )
        self.grid(
            self.dates(),
            [
                B("Benefit obligation at end of year", "obligation", sign=True),
                B("Fair value of plan assets at end of year", "planassets"),
                (
                    "Funded status at end of year",
                    0,
                    [money(self.b[k]["planassets"] - self.b[k]["obligation"], sign=True) for k in self.two],
                    True,
                ),
            ],
        )
        self.f.add(
            "text",
            f"Contributions to the plans were {self.usd(y['contribution'])} in {self.year}; the Company expects to contribute {self.usd(y['contribution'] * 1.1)} in {after}.",
        )
        self.filler(3)
        self.note(8, "Derivatives and Fair Value Measurements", "The notional amounts of hedges outstanding are given in Note 1.")
        self.filler(4)
        self.note(
            9,
            "Leases",
            "Rental expense under operating leases was ${} {{scale}} in {{year}}. Minimum lease payments under operating leases with terms over one year at {{end}} were:".format(
                money(y["rent"])
            ),
        )
        self.grid(
            [[("Operating Leases", 1)]],
            [
                (str(after + n) if n < 5 else f"After {after + 4}", 0, [money(y[f"lease{n}"], sign=n == 0)], False)
                for n in range(6)
            ]
            + [("Total", 0, [money(sum(y[f"lease{n}"] for n in range(6)), sign=True)], True)],
        )
        self.note(10, "Stock-Based Compensation", "Stock option activity under the plans during {year} (options in millions):")
        start = self.b[self.year - 1]["outstanding"]
        self.f.add(
            "grid",
            Grid(
                [[("Number of Options", 1), ("Weighted Average Exercise Price", 1)]],
                [
                    ("Under option — beginning of year", 0, [f"{start:.1f}", f"${self.b[self.year - 1]['strike']:.2f}"], False),
                    ("Granted", 1, [f"{y['granted']:.1f}", f"{y['strike'] * 1.17:.2f}"], False),
                    ("Exercised", 1, [f"({start * 0.12:.1f})", f"{y['strike'] * 0.61:.2f}"], False),
                    ("Canceled or forfeited", 1, [f"({start * 0.01:.1f})", f"{y['strike'] * 1.05:.2f}"], False),
                    ("Outstanding at end of year", 0, [f"{y['outstanding']:.1f}", f"${y['strike']:.2f}"], True),
                ],
            ),
        )
        self.grid(
            self.periods(),
            [
                ("Cost of sales", 1, [money(round(self.b[k]["sbc"] * 0.2), sign=True) for k in self.three], False),
                (
                    "Selling, general and administrative",
                    1,
                    [money(self.b[k]["sbc"] - round(self.b[k]["sbc"] * 0.2)) for k in self.three],
                    False,
                ),
                R("Stock-based compensation expense", "sbc", sign=True, total=True),
            ],
        )
        self.filler(3)
        self.note(
            11,
            "Business Segments and Geographic Information",
            "The Company discloses sales, operating income, assets, depreciation and capital expenditures by segment below.",
        )
        for title, key, total in (
            (c.labels["sales"], "seg", "sales"),
            ("Operating Income", "segop", None),
            ("Assets", "segass", "assets"),
            ("Depreciation and Amortization", "segda", "da"),
            ("Capital Expenditures", "segcap", "capex"),
        ):
            years = self.two if key == "segass" else self.three
            rows = [(s, 0, [money(self.b[k][f"{key}{n}"], sign=n == 0) for k in years], False) for n, s in enumerate(c.segments)]
            of = [sum(self.b[k][f"{key}{n}"] for n in range(len(c.segments))) for k in years]
            whole = [self.b[k][total] if total else self.b[k]["opinc"] for k in years]
            rows.append(("Corporate and Unallocated", 0, [money(w - o) for w, o in zip(whole, of)], False))
            rows.append(("Total Company", 0, [money(w, sign=True) for w in whole], True))
            self.f.add("sub", title)
            self.grid([[(str(k), 1) for k in years]], rows)
        self.f.add("sub", "Geographic areas")
        self.grid(
            self.periods(),
            [
                R("United States", "us", sign=True),
                R("Europe, Middle East and Africa", "emea"),
                R("Asia Pacific", "asia"),
                R("Latin America and Canada", "latin"),
                R("Worldwide", "sales", sign=True, total=True),
            ],
        )
        self.note(12, "Quarterly Data (Unaudited)")
        names = ("First Quarter", "Second Quarter", "Third Quarter", "Fourth Quarter")
        for k in self.two:
            k_rows = [
                (
                    c.labels["sales"],
                    0,
                    [money(self.b[k][f"q{q}sales"], sign=True) for q in range(4)] + [money(self.b[k]["sales"], sign=True)],
                    False,
                ),
                ("Gross profit", 0, [money(self.b[k][f"q{q}gross"]) for q in range(4)] + [money(self.b[k]["gross"])], False),
                (c.labels["ni"], 0, [money(self.b[k][f"q{q}ni"]) for q in range(4)] + [money(self.b[k]["ni"])], False),
                (
                    "Earnings per share — diluted",
                    0,
                    [money(self.b[k][f"q{q}eps"], places=2) for q in range(4)] + [money(self.b[k]["epsd"], places=2)],
                    False,
                ),
            ]
            self.f.add(
                "grid",
                Grid(
                    [[(name, 1) for name in names] + [(f"Year {k}", 1)]],
                    k_rows,
                    unit=f"({c.scale.title()}, except per share amounts)",
                    corner=str(k),
                ),
            )
        self.note(13, "Restructuring", "Activity in accrued restructuring liabilities was as follows:")
        begin = self.b[self.year - 1]["restructuring"]
        self.grid(
            [[("Employee-Related", 1), ("Asset-Related", 1), ("Total", 1)]],
            [
                (
                    f"Accrued at {c.end(self.year - 1)}",
                    0,
                    [money(round(begin * 0.4), sign=True), "$—", money(round(begin * 0.4), sign=True)],
                    False,
                ),
                (
                    "Expense incurred",
                    1,
                    [
                        money(round(y["restructuring"] * 0.7)),
                        money(y["restructuring"] - round(y["restructuring"] * 0.7)),
                        money(y["restructuring"]),
                    ],
                    False,
                ),
                ("Cash payments", 1, [money(-round(begin * 0.35)), "—", money(-round(begin * 0.35))], False),
            ],
        )
        self.note(
            14,
            "Commitments and Contingencies",
            "{who} is a defendant in {n} proceedings concerning product liability and environmental matters. The accrued liability for environmental remediation was $"
            + money(y["taxdue"] + 7)
            + " {scale} at {end}.",
        )
        self.filler(8)

    def back(self):
        for n in (11, 12, 13, 14, 15):
            self.item(n) if n in (11, 14) else self.f.add("head", " ".join(_ITEMS[n]))
            if n == 15:
                fees = self.rng.randrange(9, 30)
                self.f.add(
                    "text", f"Audit fees were ${fees}.4 million in {self.year} and ${fees - 1}.9 million in {self.year - 1}."
                )
            else:
                self.prose(
                    [
                        "Information required by this item is incorporated by reference from the proxy statement of {who} for its {next} annual meeting."
                    ]
                )
                self.filler(1)
        self.item(16)
        for n in range(24):
            self.f.add(
                "text",
                f"10.{n + 1} {self.rng.choice(['Form of Stock Option Agreement', 'Indenture', 'Deferred Compensation Plan', 'Five-Year Credit Agreement', 'Employment Agreement'])} dated {self.rng.choice(['May', 'June', 'November'])} {self.rng.randrange(1, 28)}, {self.year - self.rng.randrange(1, 12)}, incorporated by reference from the Form 8-K of that date.",
            )
        self.f.add(
            "text",
            f"Pursuant to the requirements of Section 13 of the Securities Exchange Act of 1934, {self.c.full} has duly caused this report to be signed on its behalf.",
        )
