"""The prompts of the Wikidata facts: for each relation its Wikidata property, its name, and three questions.

Each prompt ends where the answer begins; `{}` is the subject. They are written for this package.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """A relation of Wikidata, and how it is asked.

    Attributes:
        wikidata: its property.
        name: in plain words; the `relation` of its facts.
        prompts: texts in which `{}` stands for the subject.
    """

    wikidata: str
    name: str
    prompts: tuple[str, str, str]


RELATIONS = (
    Relation(
        "P17",
        "country",
        ("{} is found in the country of", "The country that {} belongs to is", "Travellers who visit {} arrive in"),
    ),
    Relation(
        "P19", "place of birth", ("{} grew up in", "{} came into the world in the city of", "The birthplace of {} is")
    ),
    Relation(
        "P20",
        "place of death",
        ("{} spent the last days of life in", "{} died in the city of", "The place where {} died is"),
    ),
    Relation(
        "P27", "citizenship", ("{} holds a passport of", "{} represents the country of", "The home country of {} is")
    ),
    Relation(
        "P30",
        "continent",
        ("{} is part of the continent of", "Geographers place {} in", "The continent on which {} lies is"),
    ),
    Relation(
        "P36",
        "capital",
        ("The capital of {} is called", "The government of {} sits in the city of", "The seat of government of {} is"),
    ),
    Relation(
        "P37",
        "official language",
        (
            "In {}, official documents are written in",
            "People who deal with the state in {} officially speak",
            "The language used by the government of {} is",
        ),
    ),
    Relation(
        "P101",
        "field of work",
        ("{} is best known for research in", "{} is an expert in the field of", "The subject that {} studied is"),
    ),
    Relation(
        "P103",
        "native language",
        ("At home, {} grew up speaking", "As a child {} learned to speak", "The first language of {} is"),
    ),
    Relation("P108", "employer", ("{} has a job at", "{} works for a company called", "The employer of {} is")),
    Relation("P127", "owner", ("{} is the property of", "{} is controlled by its owner,", "The owner of {} is")),
    Relation("P131", "region", ("{} lies within", "{} is in the region of", "The region that contains {} is")),
    Relation(
        "P140",
        "religion",
        ("{} is associated with the religion of", "{} follows the teachings of", "The religion of {} is"),
    ),
    Relation(
        "P159",
        "headquarters",
        ("{} has its main office in", "The head office of {} is in the city of", "{} is managed from its offices in"),
    ),
    Relation("P176", "manufacturer", ("{} is built by", "{} comes from the factories of", "The manufacturer of {} is")),
    Relation(
        "P178", "developer", ("{} was first released by", "{} was created by the company", "The developer of {} is")
    ),
    Relation(
        "P364",
        "original language",
        ("The actors in {} speak", "The dialogue of {} is in", "The language spoken in {} is"),
    ),
    Relation(
        "P407",
        "language of work",
        ("The text of {} is in", "The original of {} can be read in", "The language in which {} was published is"),
    ),
    Relation(
        "P449",
        "broadcaster",
        ("{} first went on the air on", "{} was first shown on the network", "The broadcaster of {} is"),
    ),
    Relation(
        "P495",
        "country of origin",
        ("{} originates from", "{} was made in the country of", "The country of origin of {} is"),
    ),
    Relation(
        "P740",
        "place of formation",
        ("{} got together in", "{} was started in the city of", "The place where {} was formed is"),
    ),
    Relation(
        "P937",
        "place of work",
        ("{} spent a career in", "{} had an office in the city of", "The city where {} worked is"),
    ),
    Relation(
        "P1303",
        "instrument",
        ("{} is known for playing the", "{} is a musician who plays the", "The instrument that {} plays is the"),
    ),
    Relation(
        "P1376",
        "capital of",
        ("{} serves as the capital of", "{} is the seat of government of", "The state whose capital is {} is"),
    ),
    Relation(
        "P1412", "language spoken", ("{} writes and speaks in", "{} gave speeches in", "The language that {} speaks is")
    ),
)
