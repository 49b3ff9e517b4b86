"""What kind of difference broke a prefix: one row a cause."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Cause(StrEnum):
    """What kind of difference broke the prefix."""

    TIMESTAMP = "timestamp"
    DATE_ROLLOVER = "date_rollover"
    IDENTIFIER = "identifier"
    COUNTER = "counter"
    USER_DATA = "user_data"
    ENVIRONMENT = "environment"
    CLIENT_HEADER = "client_header"
    URL_SIGNATURE = "url_signature"
    WHITESPACE = "whitespace"
    LINE_ENDINGS = "line_endings"
    UNICODE = "unicode"
    KEY_ORDER = "key_order"
    FIELD_ORDER = "field_order"
    RESERIALIZED = "reserialized"
    REORDERED = "reordered"
    ADDED = "added"
    REMOVED = "removed"
    EDITED = "edited"
    REPLACED = "replaced"
    RECURRENT_EDIT = "recurrent_edit"
    IMAGE = "image"
    DOCUMENT = "document"
    REASONING_DROPPED = "reasoning_dropped"
    TOOL_CHOICE = "tool_choice"
    THINKING = "thinking"
    REASONING_EFFORT = "reasoning_effort"
    VERBOSITY = "verbosity"
    RESPONSE_FORMAT = "response_format"
    SERVICE_TIER = "service_tier"
    SPEED = "speed"
    BETA_FEATURES = "beta_features"
    SERVER_TOOLS = "server_tools"
    LORA = "lora"
    CACHE_SALT = "cache_salt"
    CHAT_TEMPLATE = "chat_template"


class CauseInfo(NamedTuple):
    """A row of the table of causes."""

    meaning: str
    evidence: str
    fix: str


CAUSE_INFO: Final[dict[Cause, CauseInfo]] = {
    Cause.TIMESTAMP: CauseInfo(
        "A time stands in the text and moved.",
        "The differing line holds a time of day or a moment in seconds.",
        "Leave the time out, or send it in the newest user message.",
    ),
    Cause.DATE_ROLLOVER: CauseInfo(
        "A date stands in the text, and the day has changed.",
        "The differing line holds a date and no time of day.",
        "Send the date in the newest user message, or accept one rewrite a day.",
    ),
    Cause.IDENTIFIER: CauseInfo(
        "An identifier made for each request or session stands in the text.",
        "The differing line holds a UUID, a random token or a labelled id.",
        "Keep ids in metadata or headers; the model does not need them.",
    ),
    Cause.COUNTER: CauseInfo(
        "A number that counts on stands in the text.",
        "Only digits differ, in a line that counts turns, attempts or the like.",
        "Leave the count out, or put it behind the stable text.",
    ),
    Cause.USER_DATA: CauseInfo(
        "A person's name or data stands in the shared text.",
        "The differing line names or addresses a user.",
        "Put the user's data in the first user message, behind what all users share.",
    ),
    Cause.ENVIRONMENT: CauseInfo(
        "The machine's surroundings stand in the text: directory, host, platform, branch.",
        "The differing line holds a path, a host or a labelled place.",
        "Send the surroundings in a message behind the stable part, or as a tool's result.",
    ),
    Cause.CLIENT_HEADER: CauseInfo(
        "A client wrote its own header into the prompt.",
        "The differing line is a header (`x-…:`, `cch=`) in the text.",
        "Turn the injected header off, or strip it before sending.",
    ),
    Cause.URL_SIGNATURE: CauseInfo(
        "A signed URL was signed anew.",
        "The URL in front of the query is equal, or the differing line holds a signed URL.",
        "Send the bytes or a file id, or sign once for the life of the conversation.",
    ),
    Cause.WHITESPACE: CauseInfo(
        "Only blanks, tabs or line breaks differ, no-break spaces included.",
        "Equal without blanks.",
        "Build the text in one place, and do not trim or pad it on the way.",
    ),
    Cause.LINE_ENDINGS: CauseInfo(
        "Only the kind of line ending differs.",
        "Equal with one kind of line ending.",
        "Read templates in one mode; normalise to \\n before sending.",
    ),
    Cause.UNICODE: CauseInfo(
        "Only the form of characters differs: normal form, or look-alike quotes and dashes.",
        "Equal in one normal form with plain punctuation.",
        "Normalise to NFC once, where text enters.",
    ),
    Cause.KEY_ORDER: CauseInfo(
        "The same JSON with its keys in another order.",
        "Equal with sorted keys.",
        "Serialise with a fixed key order; do not rebuild schemas and arguments from unordered maps.",
    ),
    Cause.FIELD_ORDER: CauseInfo(
        "The fields of a block that the API defines stand in another order.",
        "Equal with sorted keys; inner objects are in order.",
        "Build the block in one place.",
    ),
    Cause.RESERIALIZED: CauseInfo(
        "The same data written in another way: string or list, optional fields, spacing or escapes in JSON.",
        "Equal once it is parsed and what says nothing is left out.",
        "Store what was sent, and send that again, rather than building it anew.",
    ),
    Cause.REORDERED: CauseInfo(
        "The same elements in another order.",
        "The multiset of digests is equal, the order is not.",
        "Sort before sending: tools by name, documents by id, results by the order of their calls.",
    ),
    Cause.ADDED: CauseInfo(
        "An element was inserted.",
        "What stood at the place comes right behind it.",
        "Add at the end, or from the first request on.",
    ),
    Cause.REMOVED: CauseInfo(
        "An element was taken out.",
        "What comes at the place stood right behind it.",
        "Keep it, or leave it out from the first request on.",
    ),
    Cause.EDITED: CauseInfo(
        "Text was rewritten.",
        "The lines differ, and nothing shows that it changed of itself.",
        "Send the earlier text as it was, and say what is new behind it.",
    ),
    Cause.REPLACED: CauseInfo(
        "Retrieved text stands in front of stable text, and other text was retrieved.",
        "Several lines gave way to new ones in front of lines that stayed.",
        "Put retrieved text behind the stable instructions, in the newest user message.",
    ),
    Cause.RECURRENT_EDIT: CauseInfo(
        "Some earlier message is edited with every turn.",
        "The second turn in a row whose history was rewritten.",
        "Edit many old messages at once and rarely, rather than one with every turn.",
    ),
    Cause.IMAGE: CauseInfo(
        "An image was added, removed or replaced.",
        "The differing segment is an image.",
        "Send the same bytes each time; encode once.",
    ),
    Cause.DOCUMENT: CauseInfo(
        "A document, file or recording was added, removed or replaced.",
        "The differing segment is a file.",
        "Upload once, and send the same file id or the same bytes.",
    ),
    Cause.REASONING_DROPPED: CauseInfo(
        "Reasoning of an earlier turn was left out.",
        "A reasoning block stood at the place; what followed it is there.",
        "Send reasoning blocks back as they came.",
    ),
    Cause.TOOL_CHOICE: CauseInfo(
        "tool_choice differs.",
        "The parameter differs.",
        "Keep tool_choice constant; steer by a message.",
    ),
    Cause.THINKING: CauseInfo(
        "The thinking configuration differs.",
        "The parameter differs.",
        "Decide on thinking once a conversation.",
    ),
    Cause.REASONING_EFFORT: CauseInfo(
        "The reasoning effort differs.",
        "The parameter differs.",
        "Decide on the effort once a conversation.",
    ),
    Cause.VERBOSITY: CauseInfo(
        "The verbosity differs.",
        "The parameter differs.",
        "Keep verbosity constant; ask for length in a message.",
    ),
    Cause.RESPONSE_FORMAT: CauseInfo(
        "The output format differs.",
        "The parameter differs.",
        "Keep one schema, or ask for the final form in a separate call.",
    ),
    Cause.SERVICE_TIER: CauseInfo(
        "The service tier differs.",
        "The parameter differs.",
        "Keep a conversation on one tier.",
    ),
    Cause.SPEED: CauseInfo(
        "The speed differs.",
        "The parameter differs.",
        "Keep a conversation at one speed.",
    ),
    Cause.BETA_FEATURES: CauseInfo(
        "The set of beta features differs.",
        "The parameter differs.",
        "Send the same beta features in every request.",
    ),
    Cause.SERVER_TOOLS: CauseInfo(
        "A tool that runs at the provider was turned on or off.",
        "The differing tool has a type of the provider's own.",
        "Declare server tools from the first request on.",
    ),
    Cause.LORA: CauseInfo(
        "Another adapter was asked for.",
        "The parameter differs.",
        "Keep a conversation on one adapter.",
    ),
    Cause.CACHE_SALT: CauseInfo(
        "The cache salt differs.",
        "The parameter differs.",
        "Derive the salt from the tenant, never from the request.",
    ),
    Cause.CHAT_TEMPLATE: CauseInfo(
        "The chat template or its arguments differ.",
        "The parameter differs.",
        "Keep template and arguments constant.",
    ),
}

CAUSE_MEANING: Final[dict[Cause, str]] = {cause: info.meaning for cause, info in CAUSE_INFO.items()}
