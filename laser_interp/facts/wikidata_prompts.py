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
        ("{} is found in the country of", "The country that {} belongs to is", "If you visit {}, you are in"),
    ),
    Relation(
        "P19",
        "place of birth",
        ("The birthplace of {} is", "{} came into the world in", "The place where {} was born is called"),
    ),
    Relation(
        "P20",
        "place of death",
        ("The place where {} died is", "{} spent the last days of life in", "Death came to {} in"),
    ),
    Relation(
        "P27", "citizenship", ("The home country of {} is", "{} holds a passport of", "{} has the citizenship of")
    ),
    Relation(
        "P30",
        "continent",
        ("The continent on which {} lies is", "{} is part of the continent of", "Geographers place {} in"),
    ),
    Relation(
        "P36",
        "capital",
        ("The seat of government of {} is", "The capital of {} is called", "The government of {} sits in"),
    ),
    Relation(
        "P37",
        "official language",
        (
            "The language used by the government of {} is",
            "In {}, official documents are written in",
            "People who deal with the state in {} officially speak",
        ),
    ),
    Relation(
        "P39",
        "position held",
        ("The office held by {} is that of", "{} held the rank of", "The title of {} was that of"),
    ),
    Relation(
        "P101",
        "field of work",
        ("{} is an expert in", "The subject that {} studied is", "{} is best known for research in"),
    ),
    Relation(
        "P103",
        "native language",
        ("The first language of {} is", "At home, {} grew up speaking", "As a child {} learned to speak"),
    ),
    Relation(
        "P106", "occupation", ("The profession of {} is", "The occupation of {} is", "{} is known as a professional")
    ),
    Relation("P108", "employer", ("{} is on the staff of", "The employer of {} is", "{} has a job at")),
    Relation("P127", "owner", ("The owner of {} is", "{} belongs to", "{} is the property of")),
    Relation("P131", "region", ("The region that contains {} is", "{} stands in", "{} lies within")),
    Relation("P136", "genre", ("The genre of {} is", "{} is best described as", "Critics file {} under")),
    Relation(
        "P140", "religion", ("The religion of {} is", "{} is associated with the religion of", "The faith of {} is")
    ),
    Relation(
        "P159",
        "headquarters",
        ("The head office of {} is in", "{} is managed from its offices in", "{} has its main office in"),
    ),
    Relation("P176", "manufacturer", ("The manufacturer of {} is", "{} is made by", "The company that builds {} is")),
    Relation(
        "P178", "developer", ("The developer of {} is", "{} was created by the company", "The company behind {} is")
    ),
    Relation(
        "P364",
        "original language",
        ("The language spoken in {} is", "{} was first shown in the language", "The dialogue of {} is in"),
    ),
    Relation(
        "P407",
        "language of work",
        ("The text of {} is in", "The language in which {} was published is", "Readers of {} need to know"),
    ),
    Relation(
        "P413",
        "playing position",
        ("On the field, {} plays as a", "The playing position of {} is", "In the team, {} is the"),
    ),
    Relation(
        "P449",
        "broadcaster",
        ("The network that first showed {} is", "{} first went on the air on", "The broadcaster of {} is"),
    ),
    Relation("P495", "country of origin", ("The country of origin of {} is", "{} comes from", "{} originates from")),
    Relation(
        "P740",
        "place of formation",
        ("{} was started in the city of", "The place where {} was formed is", "{} got together in"),
    ),
    Relation("P937", "place of work", ("The city where {} worked is", "{} had an office in", "{} spent a career in")),
    Relation(
        "P1303",
        "instrument",
        ("The instrument that {} plays is the", "On stage, {} plays the", "{} is a master of the"),
    ),
    Relation(
        "P1376",
        "capital of",
        ("{} is the seat of government of", "{} serves as the capital of", "The state whose capital is {} is"),
    ),
    Relation(
        "P1412",
        "language spoken",
        ("{} writes and speaks in", "The language that {} speaks is", "In conversation, {} uses"),
    ),
)
