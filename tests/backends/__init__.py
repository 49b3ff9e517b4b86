"""What other people's backends make of our spans: calls recorded for that, and the mappings that they document.

``recording`` makes the calls, ``mapping`` reads ``deploy/backends``. ``scripts/backends-page.py`` prints the tables of
docs/backends.md from them.
"""
