"""What is said in the demo by shoppers and by the shop's systems, and the faults that the agent can have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

FAULTS_VARIABLE: Final = "SHOP_FAULTS"
"""Environment variable of the agent: the faults it is to have, comma separated."""


class Fault(StrEnum):
    """What people really do to their prompts."""

    TIMESTAMP = "timestamp"
    """The time of day, to the second, near the top of the system prompt."""
    TOOLS = "tools"
    """Tools in another order from request to request."""
    HISTORY = "history"
    """Earlier messages rendered anew, with other blanks and line breaks."""


# --- Shoppers -----------------------------------------------------------------------------------------------

CHATS: Final = (
    # Questions that come in at /support/answer, a tuple a shopper.
    (
        "Hello! Where is my order LO-20417? It was to arrive on Tuesday.",
        "Thank you. Can you send it to my sister instead? I am away from Thursday on.",
    ),
    (
        "Do your string lights survive a winter on a balcony?",
        "And which of them would you put around an olive tree of two metres?",
    ),
)

# An e-mail as people paste it: wrapped by the mail program, with blanks at line ends and a gap too many.
RETURN: Final = (
    """\
Good morning,
I want to send two things of my order LO-19988 back.
Here is the whole confirmation, because I never know
which number you need:  \n

  > Thank you for your order LO-19988 of 2 November.   \n  >
  > 1 x  Floor lamp Birk, oak and linen          189.00 EUR
  > 2 x  Cushion Moor, moss                       58.00 EUR
  > 1 x  Rug Heide, 170 by 240                   249.00 EUR
  > 1 x  Mirror Lark, round, 60 centimetres      119.00 EUR
  >
  > Delivery by bpost to Gent                       free
  > Paid by card                                 615.00 EUR   \n  >
  > If something is not as you hoped, write to us within 30 days.
  > We are happy to help.   \n

The rug is too dark for our room, my partner says, and one of
the two cushions has a seam that is already opening. The lamp
and the mirror we love and keep.   \n
Do both parcels go back with one label, or do I need two?   \n
Kind regards,
Noor   \n
""",
    "The rug is still in its foil.  \n\nDoes bpost come to collect it?  \n",
    "Perfect.   When will I have the money?\n",
)

TICKETS: Final = (
    # What comes in at /support/classify.
    "My card was charged twice for LO-20533, once on the 19th and once on the 20th. Please give one of them back.",
    "The shade of the pendant lamp came in three pieces. The box had a hole the size of a fist.",
    "We are moving our office in January and need 40 desk lamps and 12 coat racks. Whom do I talk to?",
    "I have been waiting for the refund of my stool for two weeks now. The return number is R-7731.",
)

# --- The shop's systems -------------------------------------------------------------------------------------

_RESULTS: Final[Mapping[str, object]] = {
    "order_status": {
        "order": "LO-20417",
        "paid": "card",
        "items": [{"name": "Desk lamp Vesper, brass", "price": "84.00"}, {"name": "Bulb E27, 8 W", "price": "6.00"}],
        "parcels": [{"carrier": "PostNL", "parcel": "3SLUMN0417", "last_scan": "sorted in Den Hoorn"}],
    },
    "search_products": [
        {"name": "String lights Linde, IP44, 10 m", "price": "39.00", "stock": 112},
        {"name": "String lights Linde, IP44, 20 m", "price": "59.00", "stock": 48},
        {"name": "String lights Papier, indoors, 5 m", "price": "24.00", "stock": 75},
    ],
    "find_order": {
        "order": "LO-19988",
        "arrived": "6 November",
        "items": [
            {"number": 1, "name": "Floor lamp Birk", "returnable": True},
            {"number": 2, "name": "Cushion Moor", "returnable": True, "pieces": 2},
            {"number": 3, "name": "Rug Heide", "returnable": True},
            {"number": 4, "name": "Mirror Lark", "returnable": True},
        ],
        "scans": [
            {"parcel": parcel, "day": day, "place": place, "what": what}
            for parcel in ("3SLUMN9981", "3SLUMN9982")
            for day, place, what in (
                ("2 November", "Warehouse Zwolle", "packed, weighed and handed to the carrier"),
                ("3 November", "Sorting centre Brussels", "sorted for the region of Gent"),
                ("4 November", "Depot Gent", "loaded into the van, not delivered: nobody at home"),
                ("5 November", "Depot Gent", "kept for the day that the shopper asked for"),
                ("6 November", "Gent", "delivered to the shopper, signed by hand"),
            )
        ],
    },
}


def result(tool: str) -> str:
    """What one of the shop's systems answers to a tool call, as JSON."""
    return json.dumps(_RESULTS[tool])
