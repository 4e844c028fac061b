"""The figures of an invented company over seven years: statements that add up, and what the notes and tables take apart."""

from __future__ import annotations

from random import Random

FIRST, LAST = 2012, 2018
Year = dict[str, float]


def books(company) -> dict[int, Year]:
    """Fiscal year -> key -> figure in the company's scale; seeded by its name."""
    rng = Random(company.stem)
    loss = company.stem == "CORVANE"
    ratio = {"cogs": rng.uniform(0.58, 0.66), "sga": rng.uniform(0.16, 0.19), "rd": 0.155 if loss else rng.uniform(0.03, 0.06)}
    shares = rng.uniform(300, 700) * (1 if company.scale == "millions" else 1000) * min(1, company.base / 9000)
    sales, cash, debt, ppe, years = float(company.base), company.base * 0.09, company.base * 0.22, company.base * 0.27, {}
    weights = [rng.uniform(0.6, 1.6) for _ in company.segments]
    options = 0.021 * shares
    for year in range(FIRST, LAST + 1):
        y: Year = {}
        sales = round(sales * (1 + rng.gauss(0.035, 0.045)))
        y["sales"] = sales
        y["cogs"] = round(sales * (ratio["cogs"] + rng.gauss(0, 0.012)))
        y["gross"] = sales - y["cogs"]
        y["sga"] = round(sales * (ratio["sga"] + rng.gauss(0, 0.006)))
        y["rd"] = round(sales * (ratio["rd"] + rng.gauss(0, 0.003))) if company.research else 0
        y["amort"] = round(sales * rng.uniform(0.006, 0.01))
        y["restructuring"] = round(sales * rng.uniform(0.001, 0.012))
        y["opinc"] = y["gross"] - y["sga"] - y["rd"] - y["amort"] - y["restructuring"]
        y["interest"] = round(debt * rng.uniform(0.03, 0.042))
        y["otherinc"] = round(sales * rng.uniform(0.001, 0.004))
        y["pretax"] = y["opinc"] - y["interest"] + y["otherinc"]
        y["rate"] = round(rng.uniform(17, 31), 1)
        y["tax"] = round(y["pretax"] * y["rate"] / 100)
        y["income"] = y["pretax"] - y["tax"]
        y["nci"] = round(abs(sales) * rng.uniform(0.0005, 0.001))
        y["ni"] = y["income"] - y["nci"]
        shares *= rng.uniform(0.96, 0.995)
        y["basic"], y["diluted"] = round(shares, 1), round(shares * 1.018, 1)
        y["epsb"], y["epsd"] = round(y["ni"] / y["basic"], 2), round(y["ni"] / y["diluted"], 2)
        y["dps"] = round(max(0.4, 0.42 * abs(y["epsd"])) * (1 + 0.05 * (year - FIRST)), 2)
        # cash flows
        y["da"] = round(sales * rng.uniform(0.036, 0.05))
        y["sbc"] = round(sales * rng.uniform(0.006, 0.012))
        y["deferred"] = round(sales * rng.uniform(-0.006, 0.006))
        for key in ("dar", "dinv", "dap", "dother"):
            y[key] = round(sales * rng.uniform(-0.012, 0.012))
        y["cfo"] = sum(y[key] for key in ("income", "da", "sbc", "deferred", "dar", "dinv", "dap", "dother"))
        y["capex"] = round(sales * rng.uniform(0.035, 0.062))
        y["acquired"] = round(sales * rng.choice([0.0, 0.004, 0.02]))
        y["secbuy"], y["secsell"] = round(sales * rng.uniform(0.03, 0.06)), round(sales * rng.uniform(0.03, 0.06))
        y["disposed"] = round(sales * rng.uniform(0.001, 0.004))
        y["cfi"] = y["disposed"] + y["secsell"] - y["capex"] - y["acquired"] - y["secbuy"]
        y["dividends"] = round(y["dps"] * y["basic"])
        y["issued"], y["repaid"] = round(sales * rng.uniform(0.02, 0.06)), round(sales * rng.uniform(0.01, 0.04))
        y["buyback"] = round(
            max(0.0, cash + y["cfo"] + y["cfi"] + y["issued"] - y["repaid"] - y["dividends"] - sales * rng.uniform(0.05, 0.1))
        )
        y["optioncash"] = round(sales * rng.uniform(0.001, 0.006))
        y["cff"] = y["issued"] + y["optioncash"] - y["repaid"] - y["buyback"] - y["dividends"]
        y["fx"] = round(sales * rng.uniform(-0.003, 0.003))
        y["cash0"] = round(cash)
        y["dcash"] = y["cfo"] + y["cfi"] + y["cff"] + y["fx"]
        cash = y["cash"] = y["cash0"] + y["dcash"]
        # balance sheet
        y["securities"] = round(sales * rng.uniform(0.01, 0.03))
        y["ar"], y["inventory"] = round(sales * rng.uniform(0.11, 0.15)), round(sales * rng.uniform(0.1, 0.13))
        y["prepaid"] = round(sales * rng.uniform(0.015, 0.03))
        y["currentassets"] = sum(y[key] for key in ("cash", "securities", "ar", "inventory", "prepaid"))
        ppe = round(ppe + y["capex"] - 0.8 * y["da"] - y["disposed"])
        y["ppe"], y["accdep"] = ppe, round(ppe * rng.uniform(1.3, 1.5))
        y["gross_ppe"] = y["ppe"] + y["accdep"]
        y["goodwill"], y["intangibles"] = round(sales * rng.uniform(0.28, 0.31)), round(sales * rng.uniform(0.06, 0.09))
        y["otherassets"] = round(sales * rng.uniform(0.03, 0.05))
        y["assets"] = sum(y[key] for key in ("currentassets", "ppe", "goodwill", "intangibles", "otherassets"))
        y["shortdebt"] = round(sales * rng.uniform(0.01, 0.05))
        debt = debt + y["issued"] - y["repaid"]
        y["longdebt"] = round(max(debt, sales * 0.12))
        y["ap"], y["payroll"] = round(sales * rng.uniform(0.06, 0.08)), round(sales * rng.uniform(0.02, 0.03))
        y["taxdue"], y["othercurrent"] = round(sales * rng.uniform(0.008, 0.015)), round(sales * rng.uniform(0.05, 0.08))
        y["currentliabilities"] = sum(y[key] for key in ("shortdebt", "ap", "payroll", "taxdue", "othercurrent"))
        y["pension"], y["otherliabilities"] = round(sales * rng.uniform(0.06, 0.09)), round(sales * rng.uniform(0.03, 0.05))
        y["liabilities"] = y["currentliabilities"] + y["longdebt"] + y["pension"] + y["otherliabilities"]
        y["parentequity"], y["ncibalance"] = y["assets"] - y["liabilities"] - round(sales * 0.004), round(sales * 0.004)
        y["equity"] = y["assets"] - y["liabilities"]
        y["common"], y["apic"], y["aoci"] = 9, round(sales * rng.uniform(0.15, 0.18)), -round(sales * rng.uniform(0.1, 0.2))
        y["treasury"] = -round(sales * rng.uniform(0.4, 0.5))
        y["retained"] = y["parentequity"] - y["common"] - y["apic"] - y["aoci"] - y["treasury"]
        y["oci_fx"], y["oci_pension"] = round(sales * rng.uniform(-0.02, 0.02)), round(sales * rng.uniform(-0.02, 0.02))
        y["oci"] = y["oci_fx"] + y["oci_pension"]
        y["allowance"] = round(y["ar"] * rng.uniform(0.01, 0.03))
        y["raw"], y["wip"] = round(y["inventory"] * rng.uniform(0.2, 0.3)), round(y["inventory"] * rng.uniform(0.15, 0.25))
        y["finished"] = y["inventory"] - y["raw"] - y["wip"]
        # the segments
        weights = [w * rng.uniform(0.93, 1.09) for w in weights]
        left, profit = sales, y["opinc"] + y["restructuring"]
        for n, w in enumerate(weights):
            last = n == len(weights) - 1
            y[f"seg{n}"] = left if last else round(sales * w / sum(weights))
            left -= y[f"seg{n}"]
            y[f"segop{n}"] = round(profit * w / sum(weights) * rng.uniform(0.7, 1.3)) * (-1 if loss and n == 2 else 1)
            y[f"segda{n}"], y[f"segcap{n}"] = round(y["da"] * w / sum(weights)), round(y["capex"] * w / sum(weights))
            y[f"segass{n}"] = round(y["assets"] * w / sum(weights) * rng.uniform(0.8, 1.0))
            y[f"organic{n}"], y[f"fx{n}"] = round(rng.gauss(2, 3), 1), round(rng.gauss(0, 1.5), 1)
        for place in ("us", "emea", "asia"):
            y[place] = round(sales * rng.uniform(0.2, 0.4))
        y["latin"] = sales - y["us"] - y["emea"] - y["asia"]
        # notes
        y["rent"] = round(sales * rng.uniform(0.01, 0.015))
        for n in range(6):
            y[f"lease{n}"] = round(y["rent"] * (0.92 - 0.13 * n if n < 5 else rng.uniform(0.8, 1.4)))
            y[f"due{n}"] = round(y["longdebt"] * rng.uniform(0.05, 0.2))
            y[f"am{n}"] = round(y["amort"] * (1 - 0.08 * n) * rng.uniform(0.95, 1.05))
        y["service"], y["intcost"], y["exreturn"] = (
            round(sales * rng.uniform(a, b)) for a, b in ((0.009, 0.012), (0.015, 0.02), (0.025, 0.03))
        )
        y["discount"], y["plan_return"] = round(rng.uniform(3.4, 4.4), 2), round(rng.uniform(6.2, 7.4), 2)
        y["obligation"], y["planassets"] = round(sales * rng.uniform(0.5, 0.55)), round(sales * rng.uniform(0.42, 0.48))
        y["contribution"] = round(sales * rng.uniform(0.008, 0.016))
        y["granted"] = round(options * rng.uniform(0.1, 0.2), 1)
        y["strike"] = round(abs(y["epsd"]) * rng.uniform(12, 18) + 8, 2)
        y["outstanding"] = round(options * rng.uniform(0.8, 1.2), 1)
        y["adv"], y["war"], y["hedge"] = (round(sales * rng.uniform(a, b)) for a, b in ((0.01, 0.03), (0.003, 0.006), (0.1, 0.2)))
        y["unrec"], y["rou"] = round(sales * rng.uniform(0.004, 0.01)), round(sales * rng.uniform(0.02, 0.05))
        y["wavg"] = round(rng.uniform(1.3, 2.6), 1)
        y["employees"] = round(rng.uniform(8_000, 70_000), -2)
        y["backlog"] = round(sales * rng.uniform(0.1, 0.25))
        y["stores"] = round(rng.uniform(700, 1400))
        split = [rng.uniform(0.22, 0.28) for _ in range(4)]
        for q in range(4):
            for key in ("sales", "gross", "ni"):
                y[f"q{q}{key}"] = round(y[key] * split[q] / sum(split))
            y[f"q{q}eps"] = round(y[f"q{q}ni"] / y["diluted"], 2)
            y[f"q{q}high"], y[f"q{q}low"] = (
                round(y["strike"] * rng.uniform(1.2, 1.5), 2),
                round(y["strike"] * rng.uniform(0.9, 1.1), 2),
            )
        y["federal"] = 35.0 if year < 2018 else 21.0
        y["foreign"], y["credits"] = -round(rng.uniform(2, 6), 1), -round(rng.uniform(1, 3), 1)
        y["reform"] = 0.0 if year < 2017 else round(rng.uniform(1, 8), 1)
        y["othertax"] = round(y["rate"] - y["federal"] - y["foreign"] - y["credits"] - y["reform"], 1)
        y["cp"], y["line"] = round(y["shortdebt"] * rng.uniform(0.3, 0.6)), round(sales * rng.uniform(0.1, 0.15), -1)
        years[year] = y
    return years
