"""The labelled questions, before their pages are known.

Each row: question, answer as it stands in the source, evidence (a phrase on the same page or in the same
file, which finds the page), source, modality. `make_samples.py` looks the pages up and writes `questions.json`.
"""

from __future__ import annotations

HANDBOOK = "larkholm_handbook.pdf"

TEXT = [  # question, answer, evidence phrase, source
    (
        "Who founded the station, and when?",
        "Agnes Thorvald",
        "founded on 3 May 1911 by the oceanographer Agnes Thorvald",
        HANDBOOK,
    ),
    ("How many steps does the tower have?", "142 steps", "31 metres high and has 142 steps", HANDBOOK),
    ("Which post is responsible for the noon balloon?", "Weather observer", "Weather observer", HANDBOOK),
    ("Who was keeper for thirty-eight years?", "Tobias Wren", "Tobias Wren, keeper from 1923 to 1961", HANDBOOK),
    ("How high is the highest hill of the island?", "84 metres", "Watch Hill, 84 metres above the sea", HANDBOOK),
    ("What did the keepers do when the radio failed in 1978?", "folded them into bottles", "folded them into bottles", HANDBOOK),
    ("How many bound ledgers are kept in the library?", "53 ledgers", "the 53 ledgers", HANDBOOK),
    ("What was the coldest temperature ever recorded on Larkholm?", "minus 11.2 degrees", "minus 11.2 degrees", HANDBOOK),
    ("Which month is the wettest, and how much rain falls in it?", "142 millimetres", "October is the wettest month", HANDBOOK),
    ("What is heavy slanting rain called on the island?", "Rope", "Rope is the local word", HANDBOOK),
    ("How strong was the strongest gust of wind?", "109 knots", "109 knots", HANDBOOK),
    ("What reward does somebody get who finds a balloon's radio?", "rhubarb jam", "rhubarb jam", HANDBOOK),
    ("How many minutes after Stennick does high water come?", "35 minutes", "35 minutes after high water at Stennick", HANDBOOK),
    (
        "What is the name of the wave buoy, and what is the highest wave it measured?",
        "17.3 metres",
        "Its name is Gertrude",
        HANDBOOK,
    ),
    ("At what wind is the pier closed?", "forty-five knots", "At forty-five knots the pier is closed", HANDBOOK),
    (
        "How fast does the tidal stream along the south side run?",
        "5.5 knots",
        "The Stennick Race runs along the south side",
        HANDBOOK,
    ),
    ("How many pairs of kittiwakes nested in 2024?", "1,980", "Kittiwake", HANDBOOK),
    ("Why are there fewer kittiwakes now?", "hunger", "The reason is hunger", HANDBOOK),
    ("How many boxes of wax blocks are there against rats?", "40 marked boxes", "40 marked boxes", HANDBOOK),
    ("Who began the garden as a vegetable plot?", "Lucan Ferrow", "botanist Lucan Ferrow", HANDBOOK),
    ("At what temperature are the seeds stored?", "minus 20 degrees", "stored at minus 20 degrees", HANDBOOK),
    ("How many seeds of sea kale are stored?", "11,500", "SK-19", HANDBOOK),
    ("What should be subtracted from the barometer reading?", "3.1 hectopascals", "subtract 3.1 hectopascals", HANDBOOK),
    ("In which order are the loggers started again after lightning?", "green, yellow, red", "green, yellow, red", HANDBOOK),
    ("How heavy was the largest fish ever landed?", "91 kilograms", "halibut of 91 kilograms", HANDBOOK),
    (
        "On which radio channel is the coast guard's weather bulletin?",
        "coast guard, weather bulletin",
        "coast guard, weather bulletin",
        HANDBOOK,
    ),
    ("Where is the nearest hospital?", "Ardvik", "The nearest hospital is at Ardvik", HANDBOOK),
    ("What does a yellow card in the kitchen mean?", "no oven", "yellow card in the kitchen", HANDBOOK),
    ("How long may a shower last?", "three minutes", "A shower lasts three minutes", HANDBOOK),
    ("What is the call sign of the rowing boat that never failed to start?", "The Goat", "The Goat is a rowing boat", HANDBOOK),
    ("How much does the crossing cost for day visitors?", "18 crowns", "18 crowns", HANDBOOK),
    ("How much coffee is stored for ninety days?", "22 kg", "Coffee", HANDBOOK),
    ("When do the night watches change?", "22:00, 02:00 and 06:00", "22:00, 02:00 and 06:00", HANDBOOK),
    ("How many northern lights were seen in 2023?", "37 such nights", "37 such nights", HANDBOOK),
    ("How many leek plants does the gardener sow in Harmattan?", "600 plants", "600 plants", "garden_calendar.md"),
    ("When is the seed of the sea aster ripe?", "November", "Sea aster", "garden_calendar.md"),
    ("How heavy is the spare bearing of the turbine?", "34 kilograms", "34 kilograms", "letters_from_the_crew.md"),
    ("How many storm petrels were calling on 15 July 2022?", "126", "I counted 126 of them", "letters_from_the_crew.md"),
    ("What did the student break on her second day?", "salinity probe", "I broke the salinity probe", "letters_from_the_crew.md"),
    ("How high did the highest balloon of 2023 rise?", "33.8 kilometres", "33.8 kilometres", "balloon_ascents.html"),
    ("How many radios were returned between July and September 2023?", "5", "July to September", "balloon_ascents.html"),
    ("How long before high water does the tide clock beep?", "minutes=20", "BEEP_BEFORE", "tide_clock.py"),
    ("How many spare lamps does the lamp controller carry?", "SPARE_LAMPS = 4", "SPARE_LAMPS = 4", "lamp_controller.js"),
]
OCR = [
    ("When are the western cliffs closed for the nesting birds?", "from 1 April to 15 August", HANDBOOK, "image"),
    ("What is the penalty for entering the closed cliffs?", "250 crowns", HANDBOOK, "image"),
]
FIGURES = [  # question, words of the caption, figure's start of caption
    ("bar chart of rainfall by month", "Bar chart of rainfall by month"),
    ("line chart of air temperature by month", "Line chart of air temperature by month"),
    ("heat map of wind by month", "Heat map of wind by month"),
    ("scatter plot of visitors against sunshine", "Scatter plot of visitors against sunshine"),
    ("pie chart of power by season", "Pie chart of power by season"),
    ("flow diagram of five blue boxes", "Flow diagram of five blue boxes"),
    ("map of the green island with a path", "Map of Larkholm"),
]
PICTURES = [  # question, file: found by looking, the file's name says nothing in the last four
    ("line chart of power by month", "power_by_month.png"),
    ("two red boats on the sea at sunset", "two_red_boats_at_sunset.jpg"),
    ("three green trees and a white house in the snow", "IMG_0417.png"),
    ("a yellow lighthouse on the beach in the rain", "IMG_0418.jpg"),
    ("three blue stars and two red circles", "scan_0023.png"),
    ("pie chart of fish by season", "scan_0024.png"),
]
UNANSWERABLE = [
    "What is the telephone number of the harbour office at Stennick?",
    "How many submarines are stationed at Larkholm?",
    "Which airline flies to the island on Sundays?",
    "What did the station pay for its electron microscope?",
    "Who won the chess tournament of 1999?",
]
RECORDING = (
    "Welcome to the sea station.",
    "This is the report of the keeper for Monday.",
    "High water is at nine in the evening.",
    "The wind will turn to the west in the afternoon.",
    "The warden counted twelve seals near the cliff on Sunday.",
    "The key is kept in the green box behind the library.",
    "The yellow ferry leaves the harbour at seven on Friday.",
    "The engineer found a black camera beside the bridge.",
    "The temperature was fifteen degrees in July.",
    "Forty visitors came to the garden in August.",
    "The bell rings at eight when the fog comes from the north.",
    "The cook will paint the kitchen orange in October.",
    "A white light was seen from the tower at night.",
    "Please close the blue door before the storm.",
    "Thank you and good night.",
)
HEARD = [  # question, answer, index of the sentence in RECORDING
    ("Where is the key kept?", "green box", 5),
    ("How many seals did the warden count?", "twelve seals", 4),
    ("When does the yellow ferry leave the harbour?", "at seven on Friday", 6),
    ("What did the engineer find beside the bridge?", "black camera", 7),
    ("Which colour will the kitchen be painted?", "orange", 11),
]
FILM = (  # narration, things, sky, ground
    ("Here we see a red boat on the sea by day.", ((1, "red", "boat"),), "day", "sea"),
    ("Here we see a white lighthouse at night.", ((1, "white", "lighthouse"),), "night", "sea"),
    ("Here we see three green trees in the snow.", ((3, "green", "tree"),), "day", "snow"),
    ("Here we see two purple flowers at sunset.", ((2, "purple", "flower"),), "sunset", "meadow"),
)
FILM_SCENE_S = 5.0
SEEN = [  # question, index of the scene
    ("a red boat on the sea by day", 0),
    ("a white lighthouse at night", 1),
    ("three green trees in the snow", 2),
    ("two purple flowers at sunset", 3),
]
DEMO = {  # what the demo asks
    "Which month is the wettest, and how much rain falls in it?",
    "bar chart of rainfall by month",
    "Where is the key kept?",
}
