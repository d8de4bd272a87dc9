"""What the demo shop's users are called, in the letters of an address."""

from typing import Final

FIRST_NAMES: Final = (
    "anna", "lukas", "marie", "paul", "sofia", "leon", "emma", "noah", "giulia", "marco", "lucia", "pablo",
    "camille", "hugo", "sanne", "daan", "ines", "tiago", "aino", "eero", "niamh", "conor", "lea", "jonas", "clara",
    "mateo", "chloe", "luca", "elena", "bram", "nora", "felix",
)  # fmt: skip
LAST_NAMES: Final = (
    "weber", "martin", "rossi", "garcia", "devries", "silva", "virtanen", "murphy", "keller", "dubois", "ferrari",
    "lopez", "jansen", "costa", "nieminen", "byrne", "huber", "laurent", "romano", "moreno", "bakker", "santos",
    "laine", "kelly", "vogel", "moreau", "greco", "navarro", "visser", "pereira", "koskinen", "walsh", "brandt",
    "lefevre", "conti", "vidal", "smit", "almeida", "salonen", "doyle", "winter", "girard", "marino", "serrano",
    "meijer", "carvalho", "heikkinen", "nolan", "berger", "fontaine", "ricci", "ortega", "mulder", "teixeira",
    "karjalainen", "quinn", "lang", "chevalier", "gallo", "castro", "dekker", "fonseca", "lehtonen", "burke",
)  # fmt: skip
