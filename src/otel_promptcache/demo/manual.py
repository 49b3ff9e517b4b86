"""The texts of a web shop that its agents have in their prompts, made from a few tables.

Everything is the same in every run, so that the demo shows the same numbers everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

SHOP: Final = "Lumen & Oak"

# (product group, guarantee in months, what shoppers ask most, what is answered)
_PRODUCTS: Final = (
    ("Desk lamps", 36, "whether the bulb can be replaced", "it can, with any E27 bulb of at most 12 watts"),
    ("Floor lamps", 36, "how heavy the foot is", "between 6 and 9 kilograms, which keeps even the tallest one upright"),
    ("Pendant lamps", 36, "how long the cable is", "180 centimetres, and an electrician may shorten it"),
    ("Wall lights", 24, "whether they need a wire in the wall", "most have a plug; the page names those that do not"),
    ("String lights", 12, "whether they may stay outside", "only those marked IP44, and never under water"),
    ("Smart bulbs", 24, "which bridges they work with", "any bridge that speaks Zigbee 3.0 or Matter"),
    ("Bookshelves", 60, "how much a board carries", "25 kilograms when the shelf is fixed to the wall"),
    ("Side tables", 60, "how to remove rings left by glasses", "with a soft cloth and a little walnut oil"),
    ("Stools", 60, "whether they come assembled", "the legs are screwed in by hand in about five minutes"),
    ("Coat racks", 36, "which wall plugs to use", "the enclosed ones fit concrete and brick, not plasterboard"),
    ("Mirrors", 24, "whether the frame is real wood", "it is oak, oiled twice, from forests in the Ardennes"),
    ("Picture ledges", 36, "whether they can be cut", "they can, and the cut end should be oiled afterwards"),
    ("Cushions", 12, "how to wash them", "the cover at 30 degrees, the filling not at all"),
    ("Rugs", 24, "whether the colour fades", "a little in the first summer, which is no defect of the wool"),
)

# (country, carrier, shortest and longest delivery in working days, price, free from)
_COUNTRIES: Final = (
    ("Austria", "Post AG", 2, 4, "6.90", 80),
    ("Belgium", "bpost", 1, 2, "3.90", 40),
    ("Czechia", "PPL", 3, 5, "7.90", 90),
    ("Denmark", "PostNord", 3, 5, "8.90", 100),
    ("Finland", "Posti", 4, 7, "11.90", 120),
    ("France", "Colissimo", 2, 3, "5.90", 60),
    ("Germany", "DHL", 1, 3, "4.90", 50),
    ("Ireland", "An Post", 4, 6, "11.90", 120),
    ("Italy", "BRT", 3, 5, "7.90", 90),
    ("Luxembourg", "Post Luxembourg", 1, 2, "4.90", 50),
    ("Netherlands", "PostNL", 1, 2, "3.90", 40),
    ("Poland", "InPost", 3, 4, "7.90", 90),
    ("Portugal", "CTT", 4, 6, "9.90", 100),
    ("Spain", "Correos", 3, 5, "8.90", 100),
    ("Sweden", "PostNord", 3, 6, "9.90", 100),
)

# (way to pay, working days a refund takes, remark)
_PAYMENTS: Final = (
    ("card", 3, "The amount is reserved at once and taken when the parcel leaves the warehouse"),
    ("PayPal", 1, "A dispute opened at PayPal stops our own process: ask the shopper to close it first"),
    ("bank transfer", 5, "An order is kept for 7 days; after that it is cancelled without a message"),
    ("invoice", 5, "Only for orders up to 400 euros, and only to the address of the contract partner"),
    ("gift card", 0, "What is left on a card can be used until the end of the third year"),
    ("Bancontact", 2, "Only in Belgium; a payment that was broken off is released after 30 minutes"),
)

_TONE: Final = (
    "Answer in the language the shopper writes in.",
    "Three sentences are enough for most questions; a list only when there are more than three steps.",
    "Say what happens next and by when. Never promise a day that the carrier has not named.",
    "Look an order up before you speak about it, and never guess a tracking number.",
    "Do not ask for anything the shopper has already written.",
    "Apologise once, where there is a reason to, and not for what is not our doing.",
    "Money is returned the way it came. A voucher is only ever offered as a choice.",
    "Hand over to a colleague when a shopper asks for one, or mentions a lawyer, a doctor or the press.",
    "Do not discuss other shoppers, other shops, the weather or politics.",
)

# (what has happened, what to do)
_SITUATIONS: Final = (
    ("a parcel is shown as delivered and is not there", "ask for the neighbours and the porch, then open a trace"),
    ("the wrong product arrived", "send the right one at once; the wrong one may be kept or collected"),
    ("one item of several is missing", "look whether it was sent in a second parcel before you promise anything"),
    ("an order is to be cancelled", "cancel it until the parcel is packed; afterwards it is a return"),
    ("a price has fallen since the order", "give the difference back when the order is at most 14 days old"),
    ("an invoice needs another name", "make a new invoice; name and address can change, the contract partner cannot"),
    ("a discount code does not work", "check its last day and its lowest amount, and name the one that was missed"),
    ("a product is sold out", "name the week in which it comes back, and offer to write once when it is there"),
    ("a shopper moved house", "change the address while that is possible, else ask the carrier for a new delivery"),
    ("the lamp flickers", "ask which bulb and which dimmer are in use; nine times out of ten they do not fit together"),
    ("wood has a crack", "ask for a photograph; a crack longer than a finger is a defect, a shorter one is the tree"),
    ("something smells", "it is the oil; two days in a room with an open window end it"),
    ("an order is a present", "leave the price out of everything that goes to the address of delivery"),
    ("a shopper is angry", "stay friendly, repeat in one sentence what went wrong, and then solve it"),
)

# (queue, what belongs there, what does not, an example)
_QUEUES: Final = (
    ("delivery", "parcels on their way, late or lost", "parcels that arrived broken", "Delivered? I have nothing."),
    ("damage", "parcels and products that arrived broken", "wear after months of use", "The glass shade is in pieces."),
    ("returns", "sending something back, and the label for it", "refunds that are late", "How do I send the rug back?"),
    ("refunds", "money that is due and has not arrived", "prices that fell", "I am still waiting for my 89 euros."),
    ("guarantee", "defects after the first weeks", "damage in transit", "After a year the switch does not work."),
    ("assembly", "missing screws, unclear steps", "parts that broke", "Bag C is not in the box."),
    ("payment", "failed, double or unknown payments", "refunds", "My card was charged twice."),
    ("account", "passwords, addresses, newsletters", "delivery addresses of open orders", "I cannot log in."),
    ("advice", "questions before buying", "questions about an order", "Does the bulb dim?"),
    ("business", "orders of companies, offers, invoices with VAT", "private orders", "We need 40 desk lamps."),
    ("press", "journalists, bloggers, photographs", "reviews by shoppers", "May I print your picture?"),
    ("other", "what fits nowhere else", "what fits one queue and a half", "Your van blocks our gate."),
)


def support() -> str:
    """The manual of the agent that answers shoppers, without its first lines."""
    return "\n\n".join(
        (_titled("How we write", _TONE), _situations(), _titled("Delivery", _delivery()), _products(), _payments())
    )


def returns() -> str:
    """The whole system prompt of the agent that handles returns."""
    opening = (
        f"You handle returns for {SHOP}, a web shop for lamps and small furniture. Find the order first, then say "
        "whether it can come back, how, and when the money will arrive."
    )
    rules = [
        f"{name} can come back within 30 days, unused and in their box. After that the guarantee of {months} months "
        f"applies. If the shopper only wonders {question}, help before you send a label: {answer}."
        for name, months, question, answer in _PRODUCTS
    ]
    labels = [
        f"{country}: the label is for {carrier}. The parcel is scanned within {longest + 1} working days; until then "
        f"the return shows as announced. The label is free above {free} euros, else {price} euros are kept back."
        for country, carrier, _, longest, price, free in _COUNTRIES
    ]
    return "\n\n".join(
        (opening, _titled("How we write", _TONE), _titled("What can come back", rules), _titled("Labels", labels))
    )


def triage() -> str:
    """The instructions of the classifier of incoming tickets."""
    opening = (
        f"You sort the tickets of {SHOP}. Put every ticket into exactly one queue with the tool assign_queue. When it "
        "fits two, take the one whose work comes first. Use the other tools only when a rule below says so."
    )
    queues = [
        f"{name}: {inside}. Not here: {outside}. Example: {example}" for name, inside, outside, example in _QUEUES
    ]
    urgency = [
        f"A ticket about {name.lower()} is urgent when somebody may get hurt, or when a day was promised and has "
        f"passed. The usual question, {question}, is not urgent."
        for name, _, question, _ in _PRODUCTS
    ]
    return "\n\n".join((opening, _titled("Queues", queues), _titled("Urgency", urgency), _situations()))


def _titled(title: str, lines: Iterable[str]) -> str:
    return "\n".join((f"## {title}", *(f"- {line}" for line in lines)))


def _delivery() -> Sequence[str]:
    return [
        f"{country}: {carrier} needs {shortest} to {longest} working days for {price} euros, free from {free} euros. A "
        f"parcel that has not moved for {longest + 2} working days counts as lost: offer a new one or the money back. "
        f"One that nobody accepts waits {longest + 4} days at a pick-up point, comes back to us and is sent again once."
        for country, carrier, shortest, longest, price, free in _COUNTRIES
    ]


def _situations() -> str:
    return _titled("Situations", (f"When {happened}: {action}." for happened, action in _SITUATIONS))


def _products() -> str:
    return _titled(
        "Products",
        (
            f"{name} have a guarantee of {months} months, counted from the day of delivery. Shoppers often ask "
            f"{question}: {answer}. What broke through use is repaired at cost; what broke by itself is replaced."
            for name, months, question, answer in _PRODUCTS
        ),
    )


def _payments() -> str:
    return _titled(
        "Payment",
        (f"By {way}: {remark}. A refund arrives within {days + 2} working days." for way, days, remark in _PAYMENTS),
    )


# --- Tools --------------------------------------------------------------------------------------------------

# (name, what it does, its parameters with what they mean)
Tool = tuple[str, str, tuple[tuple[str, str], ...]]

_ORDER: Final = ("order", "Number of the order, LO- and five digits, as it stands in the confirmation.")
_NOTE: Final = ("note", "What a colleague should know, in one sentence and without personal data.")

SUPPORT_TOOLS: Final[tuple[Tool, ...]] = (
    (
        "change_address",
        "Changes where an order is delivered to. Only possible until the parcel has left the warehouse.",
        (_ORDER, ("street", "Street and number."), ("city", "Postal code and city."), _NOTE),
    ),
    (
        "open_ticket",
        "Hands the conversation over to a colleague, who answers by e-mail within one working day.",
        (_ORDER, ("queue", "Queue of the ticket, for example delivery or guarantee."), _NOTE),
    ),
    (
        "order_status",
        "Looks an order up: its items, its price, how it was paid, and where its parcels are now.",
        (_ORDER, ("language", "Language for the names of the items, two letters.")),
    ),
    (
        "search_products",
        "Searches the catalogue. Gives at most ten products with their price, stock and a sentence each.",
        (("words", "What to search for."), ("most", "Highest price in euros."), ("group", "Product group.")),
    ),
    (
        "track_parcel",
        "Asks the carrier for all scans of a parcel, newest first, and for the day it expects to deliver.",
        (("parcel", "Tracking number from order_status."), ("carrier", "Carrier from order_status.")),
    ),
)

RETURN_TOOLS: Final[tuple[Tool, ...]] = (
    ("find_order", "Finds an order with all its items and the days on which they arrived.", (_ORDER,)),
    (
        "refund_status",
        "Says whether a refund was sent, how, and when it should arrive.",
        (_ORDER, ("return_number", "Number of the return, if there is one.")),
    ),
    (
        "start_return",
        "Registers a return and sends the label to the shopper by e-mail.",
        (_ORDER, ("items", "Numbers of the items that come back."), ("reason", "The shopper's words."), _NOTE),
    ),
)

TRIAGE_TOOLS: Final[tuple[Tool, ...]] = (
    ("ask_back", "Asks the shopper one question when no queue fits.", (("question", "One sentence."), _NOTE)),
    ("assign_queue", "Puts the ticket into a queue.", (("queue", "One of the queues of the manual."), _NOTE)),
    ("mark_urgent", "Puts the ticket at the front of its queue.", (("rule", "The rule that says so."), _NOTE)),
    ("merge_tickets", "Joins the ticket to an earlier one.", (("earlier", "Number of the earlier one."), _NOTE)),
)


def schema(tool: Tool) -> dict[str, object]:
    """JSON schema of a tool's parameters."""
    _, _, parameters = tool
    properties = {name: {"type": "string", "description": meaning} for name, meaning in parameters}
    return {"type": "object", "properties": properties, "required": [parameters[0][0]]}
