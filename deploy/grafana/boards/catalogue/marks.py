"""What is drawn through the graphs of every dashboard that a deploy may have changed."""

from boards.model import Mark, Prom
from boards.promql import OF_SERVICE, SERVICE, VERSION, called, select

INFO = select("target_info", OF_SERVICE, where={VERSION: "~.+"})
"""A series a process, as long as it lives."""

DEPLOYS = Mark(
    name="Deploys",
    ask=Prom(ask=f"group by ({SERVICE}, {VERSION}) ({INFO}) unless group by ({SERVICE}, {VERSION}) ({INFO} offset 5m)"),
    colour="blue",
    title=called(VERSION),
    text=f"{called(SERVICE)} begins to run this version",
)
