"""What is done with a call when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_promptcache.history import Write
from otel_promptcache.journal import Where
from otel_promptcache.model import Link, Observation, Prompt
from otel_promptcache.observer.reckoning import DETAIL_JOBS

if TYPE_CHECKING:
    from otel_promptcache.observer import Observer


def premium_of(seen: Observation, prompt: Prompt | None, labels: tuple[str, ...]) -> Write | None:
    """What was paid for the call's cache writes above the price of uncached tokens; None where nothing was."""
    cost = seen.cost
    if cost is None or seen.usage is None or not seen.usage.write:
        return None
    premium = seen.usage.write * (cost.write_price - cost.fresh_price)
    if premium <= 0:
        return None
    ttl = max(seen.write_ttls or (), default=300)
    places = prompt.breakpoints if prompt is not None else ()
    implied = not any(place.explicit for place in places)
    return Write(ttl, seen.at + ttl, float(premium), labels, implied=implied)


def tell_journal(observer: Observer, seen: Observation, prompt: Prompt, link: Link | None) -> None:
    """Has a stable prefix that is new to its route looked at, once the caller has been served."""
    print_ = seen.fingerprint
    if print_ is None or not print_.prefix_id:
        return
    said = seen.attribution
    where = Where(said.route, seen.provider, seen.model)
    digest = print_.sections.rpartition(",messages:")[0]
    if observer.journal.settled(where, digest, seen.at):
        return

    def look() -> None:
        try:
            observer.journal.saw(
                where,
                digest,
                prompt,
                now=seen.at,
                service=observer.telemetry.service_version,
                name=(said.prompt_name, said.prompt_version),
                link=link,
            )
        except Exception as error:
            observer.trouble("journal", error)

    observer.worker.submit(look, DETAIL_JOBS)
