"""Synthetic data: 48 short texts in the style of local news, for tests and ``debug=tiny``.

There are eight kinds of event with six instances each. Kinds differ in wording and instances in facts, so a model must
read the document to get the summary right. Each split contains every kind. The texts show that the code works; they do
not measure quality.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from warmstart.config.data import DataSettings
from warmstart.data.sources.base import Example


class _Kind(NamedTuple):
    document: str
    summary: str
    fields: str
    instances: tuple[str, ...]


_KINDS = (
    _Kind(
        "Work on the old stone bridge in {place} will start in {month}, the town council decided on Monday. The "
        "bridge has been closed to lorries for {years} years because two of its arches are cracked. Engineers "
        "expect the repair to cost {cost} and to last until the following spring. Pedestrians can cross on a "
        "wooden walkway, and buses will take the longer way past the {landmark}.",
        "The cracked bridge in {place} will be repaired from {month} for {cost}.",
        "place | month | years | cost | landmark",
        (
            "Alderby | March | three | two million euros | mill",
            "Kestrel Bay | June | five | 900,000 euros | harbour",
            "Norwick | May | two | four million euros | station",
            "Lindau Ferry | August | six | 700,000 euros | school",
            "Upper Moss | April | four | one million euros | church",
            "Sandhaven | July | eight | three million euros | pier",
        ),
    ),
    _Kind(
        "Volunteers in {place} have counted {number} {animal} this winter, more than in any year since records "
        "began. Biologist {name} said the mild weather and the new ponds had helped. For a long time the animals "
        "had almost vanished from the valley. The group now wants to put up signs on the road so that drivers "
        "slow down at night.",
        "A record {number} {animal} were counted in {place} this winter.",
        "place | number | animal | name",
        (
            "the Arn valley | 412 | otters | Mara Lindqvist",
            "Brook Heath | 1,250 | toads | Piet Sommer",
            "the Vell marshes | 86 | cranes | Ines Duarte",
            "Fernhill | 230 | dormice | Tom Okafor",
            "the Osk delta | 97 | beavers | Lena Brandt",
            "Grey Fen | 540 | newts | Ravi Menon",
        ),
    ),
    _Kind(
        "{team} won the regional {sport} cup on Saturday by beating {rival} {score} in front of {crowd} "
        "spectators. {name} decided the final shortly before the end. It is the first title for the club since it"
        " was founded by railway workers a century ago. Coach and players rode through the town on an open lorry "
        "late into the night.",
        "{team} beat {rival} {score} to win the regional {sport} cup for the first time.",
        "team | sport | rival | score | crowd | name",
        (
            "Alderby | football | Norwick | 2-1 | 4,000 | Ada Klein",
            "Sandhaven | handball | Fernhill | 28-27 | 900 | Jon Reyes",
            "Upper Moss | hockey | Brook Heath | 5-3 | 1,100 | Eva Holm",
            "Kestrel Bay | rugby | Alderby | 19-16 | 2,500 | Sam Otieno",
            "Lindau Ferry | basketball | Sandhaven | 71-68 | 650 | Nora Weiss",
            "Grey Fen | volleyball | Upper Moss | 3-2 | 480 | Ben Tanaka",
        ),
    ),
    _Kind(
        "A fire destroyed a {building} on the edge of {place} early on {day}. Nobody was hurt, because the "
        "{people} had left a few hours before. {engines} fire engines fought the flames until noon. The police "
        "believe that {cause} started the blaze, and estimate the damage at several hundred thousand euros.",
        "A fire caused by {cause} destroyed a {building} in {place}, but nobody was hurt.",
        "building | place | day | people | engines | cause",
        (
            "warehouse | Norwick | Tuesday | workers | Twelve | a faulty heater",
            "barn | Fernhill | Sunday | farm hands | Six | lightning",
            "bakery | Alderby | Friday | bakers | Four | an old oven",
            "boathouse | Kestrel Bay | Monday | rowers | Five | a battery",
            "sawmill | Upper Moss | Thursday | carpenters | Nine | sparks from a saw",
            "greenhouse | Sandhaven | Wednesday | gardeners | Three | a broken lamp",
        ),
    ),
    _Kind(
        "From {month} on, {transport} in {place} will cost nothing for everybody under {age}. The mayor, {name}, "
        "called it the cheapest way to empty the crowded streets. The town pays for it with higher parking fees. "
        "Shopkeepers fear for their customers, while the parents' association welcomed the plan. After one year "
        "it will be reviewed.",
        "{place} makes {transport} free for everybody under {age} from {month}.",
        "month | transport | place | age | name",
        (
            "January | buses | Sandhaven | 18 | Clara Voss",
            "September | trams | Norwick | 21 | Hugo Marin",
            "April | ferries | Lindau Ferry | 16 | Asha Patel",
            "October | hired bicycles | Alderby | 25 | Erik Dahl",
            "February | night buses | Kestrel Bay | 20 | Rosa Ferri",
            "November | local trains | Grey Fen | 14 | Noah Baptiste",
        ),
    ),
    _Kind(
        "While digging the foundations of a {site}, builders in {place} came upon {find}. Archaeologist {name} "
        "dates it to {age}. The site is now covered by a tent, and work there rests for at least {weeks} weeks. "
        "The owner takes the delay calmly and wants to show the find in the entrance hall once everything has "
        "been measured.",
        "Builders in {place} found {find} from {age} under a future {site}.",
        "site | place | find | name | age | weeks",
        (
            "car park | Brook Heath | a Roman well | Julia Stern | the second century | six",
            "clinic | Alderby | a wooden boat | Karl Aas | the Bronze Age | ten",
            "library | Sandhaven | a hoard of silver coins | Amara Diallo | the twelfth century | four",
            "supermarket | Upper Moss | a pottery kiln | Luis Prado | the Iron Age | three",
            "gymnasium | Norwick | a painted cellar | Greta Nilsen | the fifteenth century | eight",
            "hotel | Kestrel Bay | a stone circle | Owen Price | the Stone Age | twelve",
        ),
    ),
    _Kind(
        "The {company} company will close its factory in {place} at the end of the year, with the loss of {jobs} "
        "jobs. Managers blamed the high price of {material}. The trade union spoke of a black day and announced a"
        " protest for {day}. The regional government promised courses for those who must look for new work.",
        "{company} closes its {place} factory at the cost of {jobs} jobs because {material} has become too expensive.",
        "company | place | jobs | material | day",
        (
            "Halden | Grey Fen | 340 | steel | Thursday",
            "Morrow | Fernhill | 120 | cocoa | Saturday",
            "Tessin | Brook Heath | 75 | wool | Monday",
            "Ardent | Norwick | 610 | glass | Friday",
            "Quill | Alderby | 210 | paper | Wednesday",
            "Borealis | Lindau Ferry | 95 | copper | Tuesday",
        ),
    ),
    _Kind(
        "Pupils of the {school} school in {place} have built a {machine} that {task}. They worked on it for "
        "{months} months in their free time, guided by physics teacher {name}. On Friday it took first prize at "
        "the national science fair. The jury praised that the parts had cost less than {cost}. A firm has already"
        " asked for the plans.",
        "Pupils from {place} won the national science fair with a {machine} that {task}.",
        "school | place | machine | task | months | name | cost",
        (
            "Hill Road | Fernhill | robot | sorts rubbish | nine | Dora Kunz | 60 euros",
            "Harbour | Sandhaven | buoy | warns of high waves | five | Ali Demir | 90 euros",
            "Old Mill | Alderby | glove | reads sign language | seven | Pia Lund | 40 euros",
            "North | Norwick | drone | finds lost sheep | eleven | Max Adler | 150 euros",
            "Lake | Upper Moss | lamp | runs on salt water | four | Yuki Mori | 25 euros",
            "Castle | Grey Fen | sensor | hears bark beetles in trees | six | Finn Berg | 80 euros",
        ),
    ),
)
_SPLIT_OF_INSTANCE = ("train", "train", "train", "train", "validation", "test")


def read_synthetic(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Return 32 training, 8 validation and 8 test examples.

    Args:
        settings: Ignored; every reader takes it.
    """
    del settings
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for instance, split in enumerate(_SPLIT_OF_INSTANCE):
        for number, kind in enumerate(_KINDS):
            facts = dict(zip(kind.fields.split(" | "), kind.instances[instance].split(" | "), strict=True))
            name = f"written-{number}{instance}"
            splits[split].append(Example(name, kind.document.format(**facts), kind.summary.format(**facts)))
    return splits, {}
