"""What the servers are asked: short messages to sort, turns of a chat, a text to copy. Deterministic."""

from itertools import islice, product

LABELS = ("delivery", "payment", "quality", "praise", "other")

# about 200 tokens in both vocabularies
INSTRUCTION = (
    "You sort messages that customers send to a shop for tools and garden furniture. Read the message and answer "
    "with exactly one of these five words and nothing else: delivery, payment, quality, praise, other.\n"
    "delivery: the parcel is late, lost, damaged on its way, sent to a wrong address, or somebody asks where it is.\n"
    "payment: invoices, refunds, vouchers, a card that was charged twice, or a price that differs from the offer.\n"
    "quality: the product itself is broken, badly made, too small, too loud, or does not do what the page says.\n"
    "praise: the customer is content and says so, recommends the shop, or thanks somebody of the staff.\n"
    "other: everything else, such as opening hours, jobs, questions about a product, or messages in which "
    "nothing is asked. When a message is about two things, choose the one that the shop must act upon first. "
    "Do not explain your choice.\n\nMessage: "
)

_THINGS = (
    "garden chair",
    "cordless drill",
    "parasol",
    "ladder",
    "lawn mower",
    "set of spanners",
    "bench",
    "hose",
)
_STORIES = (
    "The {} that I ordered on {} has still not arrived and nobody answers the phone.",
    "My card was charged twice for the {} on {}, please send one amount back.",
    "A leg of the {} broke on {} after an hour of use, this is not what was promised.",
    "The {} came on {} as described, thank you, I will order from you again.",
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "my birthday")


def messages(n: int) -> list[str]:
    """Return `n` different short messages, 256 at most."""
    return [story.format(thing, day) for thing, day, story in islice(product(_THINGS, _DAYS, _STORIES), n)]


def opening(number: int) -> str:
    """Return a prompt of about ten tokens; no two begin alike."""
    thing, day = _THINGS[number % 8], _DAYS[number // 8 % 8]
    return f"{number + 1} words on a {thing} and {day}"


def turn(number: int) -> str:
    """Return the message of one chat turn: the same length every time, about 40 tokens."""
    thing, day = _THINGS[number % 7], _DAYS[number % 7]
    return (
        f"Question {number}: last {day} we spoke about the {thing} in the shed. Please tell me what you would do with it "
        "now, what it may cost, and whom I should ask for help before the winter comes."
    )


TO_COPY = """\
def read_table(path, columns):
    rows = []
    with open(path, encoding="utf-8") as file:
        header = file.readline().rstrip().split(",")
        missing = [name for name in columns if name not in header]
        if missing:
            raise ValueError("missing columns: " + ", ".join(missing))
        places = [header.index(name) for name in columns]
        for line in file:
            fields = line.rstrip().split(",")
            if len(fields) != len(header):
                raise ValueError("a line has another number of fields")
            rows.append([fields[place] for place in places])
    return rows
"""
