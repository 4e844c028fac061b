"""What invented companies say in their annual reports: who they are, and prose for risks and policies, with places to fill."""

# ruff: noqa: E501  (what filings say is long)
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Company:
    """stem: of the file's name. scale: what a figure of the statements is in ("millions"); ends: the fiscal year's last day."""

    stem: str
    full: str
    short: str
    town: str
    ends: str
    scale: str
    base: int  # sales of 2012, in the scale
    years: tuple[int, ...]
    printed: bool
    goods: str
    segments: tuple[str, ...]
    labels: dict[str, str]
    research: bool = True

    def end(self, year: int) -> str:
        """The last day of a fiscal year in words."""
        day = {"sat": f"February {(2, 3, 4, 28)[(2018 - year) % 4 - 0 if year > 2015 else 1]}, {year + 1}"}.get(self.ends)
        return day or (
            f"May {27 + (2018 - year)}, {year}"
            if self.ends == "may"
            else f"December {29 + (2018 - year)}, {year}"
            if self.ends == "lastsat"
            else f"December 31, {year}"
        )


COMPANIES = (
    Company("MERIDIANCONTROLS", "Meridian Controls Corporation", "Meridian Controls", "Dayton, Ohio", "dec", "millions", 16_240, (2016, 2017, 2018), True,
            "valves, sensors, filters and safety equipment", ("Process Automation", "Fluid Handling", "Safety and Inspection", "Consumer Products"),
            {"sales": "Net sales", "cogs": "Cost of sales", "sga": "Selling, general and administrative expenses", "opinc": "Operating income", "ni": "Net income attributable to Meridian Controls", "capex": "Purchases of property, plant and equipment (PP&E)", "ppe": "Property, plant and equipment — net", "ar": "Accounts receivable — net", "operations": "INCOME"}),
    Company("LARKSPUR", "Larkspur Home Stores, Inc.", "Larkspur", "Nashville, Tennessee", "sat", "thousands", 4_310_220, (2016, 2017, 2018), False,
            "furniture, kitchenware and garden supplies", ("Domestic", "International"),
            {"sales": "Net sales", "cogs": "Cost of goods sold", "sga": "Selling, general and administrative", "opinc": "Income from operations", "ni": "Net earnings", "capex": "Additions to property and equipment", "ppe": "Net property and equipment", "ar": "Receivables, net", "operations": "EARNINGS"}, research=False),
    Company("CORVANE", "Corvane Semiconductor, Inc.", "Corvane", "Santa Rosa, California", "lastsat", "millions", 4_120, (2017, 2018), True,
            "processors, graphics chips and boards", ("Client Processors", "Data Center", "Embedded"),
            {"sales": "Net revenue", "cogs": "Cost of sales", "sga": "Marketing, general and administrative", "opinc": "Operating income (loss)", "ni": "Net income (loss)", "capex": "Purchases of property and equipment", "ppe": "Property and equipment, net", "ar": "Accounts receivable, net", "operations": "OPERATIONS"}),
    Company("HALDENFOODS", "Halden Foods Company", "Halden Foods", "Duluth, Minnesota", "may", "millions", 9_870, (2017, 2018), False,
            "cereals, snacks, soups and pet food", ("North America Retail", "Foodservice", "Europe and Asia", "Pet"),
            {"sales": "Net sales", "cogs": "Cost of sales", "sga": "Selling, general, and administrative expenses", "opinc": "Operating profit", "ni": "Net earnings attributable to Halden Foods", "capex": "Purchases of land, buildings, and equipment", "ppe": "Land, buildings, and equipment", "ar": "Receivables", "operations": "EARNINGS"}),
    Company("TIDEWATERPOWER", "Tidewater Power and Water Company", "Tidewater Power", "Norfolk, Virginia", "dec", "thousands", 2_204_118, (2017, 2018), True,
            "electricity, drinking water and natural gas", ("Electric", "Water", "Gas Distribution"),
            {"sales": "Operating revenues", "cogs": "Fuel and purchased power", "sga": "Operation and maintenance", "opinc": "Operating income", "ni": "Net income attributable to common shareholders", "capex": "Capital expenditures", "ppe": "Net utility plant", "ar": "Customer accounts receivable, net", "operations": "INCOME"}, research=False),
)  # fmt: skip

RISKS = (
    "Our results depend on economic and political conditions in the markets that we serve",
    "Changes in the price and availability of raw materials, energy and components may reduce our margins",
    "We face intense competition, and our customers may turn to other suppliers",
    "Acquisitions, divestitures and other strategic events may not bring the benefits that we expect",
    "A failure or breach of our information systems could disrupt operations and harm our reputation",
    "We are subject to litigation and government inquiries, the outcome of which we cannot predict",
    "Changes in tax law, tariffs and trade policy may increase our costs",
    "Our indebtedness and changes in our credit ratings may limit our flexibility",
    "We depend on key personnel, and labor disputes may interrupt our business",
    "Foreign currency exchange rates affect our reported results",
    "Our pension obligations may require larger contributions than planned",
    "Product liability claims and recalls may be costly",
    "Environmental laws may require expenditures that exceed our accruals",
    "Natural disasters, severe weather and epidemics may interrupt our supply chain",
    "We may be unable to protect our intellectual property",
    "Goodwill and other intangible assets may become impaired",
)
RISK_SENTENCES = (
    "{who} operates in {n} countries and derived approximately {p}% of its {year} revenues from outside the United States.",
    "Demand for our {goods} follows the investment of our customers, which may decline quickly when credit becomes scarce.",
    "We may not be able to raise prices in step with our costs, and where we do, volumes may suffer.",
    "Any of these events could have a material adverse effect on our business, financial condition, results of operations and cash flows.",
    "In {last}, the {segment} segment was affected by such conditions, and we cannot be certain that they will not return.",
    "Although we maintain insurance of types and amounts that we believe to be customary, coverage may not be available or sufficient.",
    "Our {n2} largest customers together accounted for about {p2}% of total revenues, and the loss of one of them would be felt.",
    "We purchase certain components from a single source, and a change of supplier could take {n3} months or more.",
    "Compliance with the laws and regulations of many jurisdictions is costly, and violations may result in fines, penalties and the loss of licenses.",
    "The assumptions underlying our estimates, such as discount rates, growth rates and margins, may prove to be wrong.",
    "We have invested in the protection of our networks; however, attacks grow more frequent and more sophisticated, and no measure is perfect.",
    "If we fail to attract, develop and retain qualified employees, our ability to execute our strategy would be impaired.",
    "The integration of acquired businesses diverts the attention of management and may reveal liabilities of which we were not aware.",
    "A downgrade of our credit ratings by {n2} or more notches would increase the cost of our commercial paper and could restrict our access to it.",
    "Competitors with larger resources may introduce products that make ours obsolete, or may price theirs below cost to gain share.",
    "Tariffs announced during {year} apply to some ${n4} million of our annual purchases.",
    "Weather that is unusually mild or unusually severe shifts demand between quarters, as happened in {last}.",
    "We are a party to {n} patent proceedings; an adverse ruling could force us to redesign products or pay royalties.",
    "Plan assets are invested in part in equity securities, and a decline in their market value increases the contributions that we must make.",
    "Our manufacturing is concentrated in {n2} sites, and an interruption at any of them could delay deliveries for weeks.",
    "There can be no assurance that demand, prices or costs will develop as we have planned, or that our responses to changes in them will be timely.",
    "Several of our collective bargaining agreements expire in {next}, and negotiations may not succeed before they do.",
)
POLICIES = {
    "Use of Estimates": "The preparation of financial statements in conformity with U.S. generally accepted accounting principles requires management to make estimates and assumptions that affect the reported amounts of assets and liabilities and the disclosure of contingent assets and liabilities. Actual results could differ from those estimates.",
    "Revenue Recognition": "Revenue is recognized when control of the promised goods passes to the customer, which is at shipment for most sales of {goods}. Discounts, rebates and returns are estimated from experience and deducted from revenue when the sale is recorded.",
    "Cash and Cash Equivalents": "Cash and cash equivalents consist of cash and temporary investments with maturities of three months or less when acquired.",
    "Inventories": "Inventories are stated at the lower of cost and net realizable value, with cost generally determined on a first-in, first-out basis.",
    "Property, Plant and Equipment": "Property, plant and equipment is recorded at cost. Depreciation is computed by the straight-line method over the estimated useful lives of the assets: buildings 10 to 40 years, machinery and equipment 3 to 15 years, and furniture 3 to 7 years.",
    "Goodwill": "Goodwill is tested for impairment annually in the {quarter} quarter of each year, and between annual tests if an event occurs that would more likely than not reduce the fair value of a reporting unit below its carrying amount. No impairment was recognized in {year}, {last} or {before}.",
    "Advertising": "Advertising and merchandising costs are expensed as incurred and totaled ${adv0} {scale} in {year}, ${adv1} {scale} in {last} and ${adv2} {scale} in {before}.",
    "Warranties": "The Company accrues for warranty claims at the time of sale. The accrued warranty liability was ${war0} {scale} at {end} and ${war1} {scale} at {lastend}.",
    "Income Taxes": "Deferred tax assets and liabilities are measured at the tax rates expected to apply when they are recovered or settled. A valuation allowance is recorded where it is more likely than not that some portion will not be realized.",
    "Foreign Currency Translation": "Assets and liabilities of foreign operations are translated at the exchange rates in effect at the balance sheet date, and income and expense at average rates; the resulting adjustments are a component of accumulated other comprehensive income.",
    "Derivatives and Hedging": "The Company uses forward contracts, swaps and options to manage the risks of currencies, interest rates and commodity prices. The notional amount of foreign currency contracts outstanding was ${hedge0} {scale} at {end} and ${hedge1} {scale} at {lastend}.",
    "Stock-Based Compensation": "The cost of awards is measured at their fair value on the date of grant and recognized over the vesting period. Unrecognized compensation cost of ${unrec} {scale} is expected to be recognized over a weighted-average period of {wavg} years.",
    "New Accounting Pronouncements": "In February 2016, the FASB issued ASU No. 2016-02, Leases. The standard is effective for the Company on January 1, 2019. The Company expects to record right-of-use assets of approximately ${rou} {scale} on adoption, and does not expect a material effect on its results of operations or cash flows.",
}
DRIVERS = (
    ("higher raw material and freight costs", "the absence of the prior-year gain on the sale of the Tillery Park land"),
    ("lower restructuring charges and productivity from the consolidation of warehouses", "a favorable mix of premium products"),
    ("a charge of {amount} for the settlement of the Brenner Creek litigation", "higher pension expense"),
    ("increased spending on digital fulfillment and store wages", "markdowns on seasonal merchandise"),
    ("price increases that took effect in the second quarter", "lower incentive compensation"),
    ("inventory write-downs related to the Orion product line", "lower factory utilization"),
)
USES = (
    "Manufacturing and warehouse",
    "Distribution center",
    "Research laboratory and offices",
    "Manufacturing",
    "Regional offices",
    "Customer service center",
)
PLACES = (
    "Aberdeen, South Dakota",
    "Ames, Iowa",
    "Hutchinson, Minnesota",
    "Cordova, Illinois",
    "Monrovia, California",
    "Wroclaw, Poland",
    "Hilden, Germany",
    "Sumare, Brazil",
    "Pune, India",
    "Suzhou, China",
    "Knoxville, Tennessee",
    "Valley, Nebraska",
    "Greenville, South Carolina",
    "Columbia, Missouri",
    "Swansea, United Kingdom",
    "Monterrey, Mexico",
    "Penang, Malaysia",
    "Austin, Texas",
    "Markham, Canada",
    "Hyderabad, India",
)
