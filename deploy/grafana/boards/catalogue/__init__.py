"""Every dashboard, in the order in which a platform engineer meets them."""

from boards.catalogue import blame, changes, layers, ledger, limits, money, overview, trust, writes
from boards.model import Board

BOARDS: tuple[Board, ...] = (
    overview.BOARD,
    money.BOARD,
    changes.BOARD,
    blame.BOARD,
    writes.BOARD,
    limits.BOARD,
    layers.BOARD,
    trust.BOARD,
    ledger.BOARD,
)
