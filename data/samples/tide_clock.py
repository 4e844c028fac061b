"""The tide clock in the kitchen: when is the next high water at Larkholm?

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
