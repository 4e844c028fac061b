"""The small samples beside the handbook: Markdown, HTML and source code about the same island."""

from __future__ import annotations

TEXTS: dict[str, str] = {}

TEXTS["garden_calendar.md"] = """# The shore garden through the year

Working notes of the gardener, Ines Calloway. The beds and their plants are described in the handbook, chapter 6;
this page only says what is done when.

## January and February

Test the seeds. Fifty seeds of every tenth-year batch go on wet paper in the glasshouse at 18 degrees. Count the sprouts
after 7, 14 and 21 days. In January 2024 the sea kale reached 92 percent and the sea holly only 68 percent, so the sea
holly must be grown out in bed Tramontane this summer.

Mend the turf wall after each storm. It takes 140 turves to close a gap as wide as a wheelbarrow.

## March and April

- Divide the thrift in Bora every third year; the next time is 2026.
- Open the sluice for the salt-marsh beds on the spring tides of 11 March and 9 April.
- Sow leeks in Harmattan, 600 plants, in rows of 30 centimetres.

## May to August

The garden is open to day visitors. Put out the blue labels, which survive salt; the green ones fade within six weeks.
Water by the knuckle rule. Pull out every seedling of ragwort before it flowers, and write down how many: 312 in 2022,
187 in 2023.

| Plant | Flowers | Seeds ripe |
|---|---|---|
| Thrift | May | July |
| Oysterplant | June | August |
| Sea holly | July | October |
| Sea aster | August | November |

## September to December

Gather on dry afternoons only, in paper bags, never in plastic. Dry for thirty days. The record harvest was 61 kilograms
of uncleaned seed in the autumn of 2018. In December, oil the tools with linseed and count the labels.
"""

TEXTS["letters_from_the_crew.md"] = """# Letters from the crew

Copied from the green book and from letters that people sent after they had left.

## From Jonas Pell, engineer, winter 2021

You asked what broke. On 4 December the bearing of the turbine began to sing, a high note like a kettle. We stopped the
blades by hand, in forty knots of wind, which I do not recommend. The spare bearing weighs 34 kilograms and had to be
carried up Watch Hill on the stretcher from the doctor's chest. We were without the turbine for six days and lived on
solar panels, candles and cold oats. The noise was caused by a grain of sand.

## From Sunniva Aker, bird warden, summer 2022

The avian flu reached us on 28 June. We closed the cliffs to everyone, burned our gloves each evening, and found 214 dead
guillemots before it stopped. It could have been far worse: on Hestra, forty miles north, they lost two thirds. I would
like the next warden to know that the storm petrels in the old wall were never touched by it. I counted 126 of them
calling on the night of 15 July, which is the most there have ever been.

## From Pia Lindqvist, student, spring 2023

I broke the salinity probe on my second day and told nobody until my third. The head keeper listened, went to a
cupboard, and showed me a box with eleven broken salinity probes, each with a name tag. Mine is now the twelfth. She said
that the twelfth had at least been reported in the same week.

## From the cook, Benedikt Rao, autumn 2023

The recipe that everybody asks for is this. Two kilograms of leeks from Harmattan, four hundred grams of butter, a litre
of milk, six smoked mackerel, and potatoes until it stands. It feeds nine. The secret is to tell people that there is none left.
"""

TEXTS["balloon_ascents.html"] = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Noon balloon ascents from Larkholm, 2023</title></head>
<body>
<h1>Noon balloon ascents from Larkholm, 2023</h1>
<p>Fifty-one balloons were launched in 2023. One Wednesday, 25 October, was missed because of a gale. The mean height at
which they burst was 24.6 kilometres.</p>
<h2>The highest and the strangest</h2>
<p>The highest ascent of the year was on 14 June, when balloon 24 burst at 33.8 kilometres, a record for the station.
Balloon 37 was caught in a thundercloud on 13 September and came down again through hail at 9.2 kilometres, sending
readings all the way.</p>
<p>Balloon 46 landed on the deck of the ferry <em>Saint Brannoc</em>, whose purser returned it in person and chose the
rhubarb jam with ginger.</p>
<h2>Ascents by quarter</h2>
<table>
<tr><th>Quarter</th><th>Launched</th><th>Mean burst height (km)</th><th>Radios returned</th></tr>
<tr><td>January to March</td><td>13</td><td>23.1</td><td>1</td></tr>
<tr><td>April to June</td><td>13</td><td>26.4</td><td>4</td></tr>
<tr><td>July to September</td><td>13</td><td>25.3</td><td>5</td></tr>
<tr><td>October to December</td><td>12</td><td>23.4</td><td>2</td></tr>
</table>
<h2>Gas</h2>
<p>Each balloon takes 1.6 cubic metres of hydrogen, made on the island by electrolysis from rain water and surplus wind
power since 2016. Before that, gas came in steel bottles of 70 kilograms, eight to a crossing.</p>
</body>
</html>
"""

TEXTS["tide_clock.py"] = '''"""The tide clock in the kitchen: when is the next high water at Larkholm?

Runs on the small computer behind the bread bin. Heights are in metres above the bronze bolt.
"""

from datetime import datetime, timedelta

LAG_BEHIND_STENNICK = timedelta(minutes=35)
LUNAR_TIDE = timedelta(hours=12, minutes=25, seconds=14)
BEEP_BEFORE = timedelta(minutes=20)  # long enough to find boots


def next_high_water(last_at_stennick: datetime, now: datetime) -> datetime:
    """Step forward from a known high water at Stennick until it lies after `now`."""
    tide = last_at_stennick + LAG_BEHIND_STENNICK
    while tide <= now:
        tide += LUNAR_TIDE
    return tide


def pier_is_closed(wind_knots: float, swell_m: float, red_lamp: bool) -> bool:
    """The rule of the house: forty-five knots, a swell of 1.2 metres, or the red lamp."""
    return red_lamp or wind_knots >= 45 or swell_m > 1.2


def surge_cm(wind_knots: float) -> float:
    """Water above the prediction; ten knots above thirty add a hand's breadth of nine centimetres."""
    return max(0.0, wind_knots - 30) / 10 * 9


def leave_pier_by(high_water: datetime) -> datetime:
    """The supply boat must be away two hours after high water, or it sits on the rocks until the next one."""
    return high_water + timedelta(hours=2)
'''

TEXTS["lamp_controller.js"] = """// Drives the lamp of the tower: two white flashes every fifteen seconds.
// Character of the light: Fl(2) W 15s. Height of the lamp above the sea: 62 metres. Range: 18 nautical miles.

const FLASH_MS = 400;
const DARK_BETWEEN_MS = 1600;
const PERIOD_MS = 15000;
const SPARE_LAMPS = 4;

class Lamp {
  constructor(relay, ammeter) {
    this.relay = relay;
    this.ammeter = ammeter;
    this.position = 0; // which of the spare lamps is in the socket
  }

  // A lamp that draws less than 2.1 ampere while lit has failed: turn the carousel to the next one.
  async flash() {
    await this.relay.on();
    await sleep(FLASH_MS);
    if ((await this.ammeter.read()) < 2.1) this.changeLamp();
    await this.relay.off();
  }

  changeLamp() {
    if (this.position === SPARE_LAMPS) throw new Error("all lamps have failed: wake the head keeper");
    this.position += 1;
    notify(`lamp changed, now number ${this.position}`);
  }

  async run() {
    for (;;) {
      const begun = Date.now();
      await this.flash();
      await sleep(DARK_BETWEEN_MS);
      await this.flash();
      await sleep(PERIOD_MS - (Date.now() - begun));
    }
  }
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
module.exports = { Lamp, FLASH_MS, PERIOD_MS };
"""
