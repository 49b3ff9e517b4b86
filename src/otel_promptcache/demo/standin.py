"""The stand-in for the model: what it says to what the shoppers of ``script`` say.

The agent is a real application on the real SDKs; only the people and the model follow a script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from otel_promptcache.emulator import Reply

_LINES: Final = (
    # Words in the newest message, and what the model makes of them.
    ("Where is my order LO-20417", Reply(tool_calls=(("order_status", {"order": "LO-20417"}),))),
    (
        "3SLUMN0417",
        Reply("Your desk lamp was sorted in Den Hoorn this morning. PostNL expects to deliver it tomorrow."),
    ),
    ("to my sister", Reply("It has left our warehouse, so I cannot change the address. PostNL can hold it for you.")),
    ("on a balcony", Reply(tool_calls=(("search_products", {"words": "string lights outdoor"}),))),
    ("Linde, IP44", Reply("Those marked IP44 do: Linde, with 10 or 20 metres. Keep the plug in the dry.")),
    ("olive tree", Reply("The one with 10 metres goes around it about four times, which looks best.")),
    ("LO-19988 back", Reply(tool_calls=(("find_order", {"order": "LO-19988"}),))),
    ("6 November", Reply("Both can come back, with one label. I need to know whether the rug is still in its foil.")),
    ("in its foil", Reply("Then it is quick. bpost collects it at your door; the label comes by e-mail today.")),
    ("have the money", Reply("Within five working days of the scan, 278.00 euros on your card.")),
    ("charged twice", Reply(tool_calls=(("assign_queue", {"queue": "payment"}),))),
    ("three pieces", Reply(tool_calls=(("assign_queue", {"queue": "damage"}),))),
    ("40 desk lamps", Reply(tool_calls=(("assign_queue", {"queue": "business"}),))),
    ("R-7731", Reply(tool_calls=(("assign_queue", {"queue": "refunds"}),))),
)


def answer(body: Mapping[str, Any]) -> Reply:
    """The stand-in model: what it says to a request, whatever the dialect."""
    newest = json.dumps((body.get("messages") or body["input"])[-1])
    return next((reply for words, reply in _LINES if words in newest), Reply("I will ask a colleague."))
