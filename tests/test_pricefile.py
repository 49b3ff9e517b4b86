"""Price files: what their rows do to a price, and what is said where one is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_promptcache.model import Usage
from otel_promptcache.pricing import PriceFileError, Prices, PriceUnknownError, cost, pricefile, read
from otel_promptcache.pricing.prices import corrections

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
OPUS = ("claude-opus-5",)  # 5 in, 25 out, 0.50 read, 6.25 and 10 written
MILLIONS = Usage(3_000_000, 1_000_000, 1_000_000, 1_000_000)


def prices(text: str) -> Prices:
    return Prices(pricefile.parse(text.encode(), "prices.toml"))


def paid(
    text: str,
    usage: Usage = MILLIONS,
    provider: str = "anthropic",
    models: tuple[str, ...] = OPUS,
    *,
    when: float = NOON,
    account: str = "",
) -> Decimal:
    return cost(usage, provider, models, when, account=account, prices=prices(text)).total


def problems(text: str | bytes) -> list[str]:
    raw = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(PriceFileError) as refused:
        pricefile.parse(raw, "prices.toml")
    assert str(refused.value) == "\n".join(refused.value.problems)
    return refused.value.problems


class TestPrices:
    """Private models, and corrections of listed ones."""

    PRIVATE = """
        [[price]]
        provider = "openai"
        model = "acme-7b"
        input = { 0 = 1, 1_000_000 = 2 }
        read = 0.25
        output = 4
        batch = 0.5
        """

    def test_a_private_model(self) -> None:
        """Unknown to the list, priced by its row, in both bands."""
        assert paid(self.PRIVATE, Usage(1_000_000, 500_000), "openai", ("acme-7b",)) == Decimal("0.625")
        assert paid(self.PRIVATE, Usage(2_000_000), "openai", ("acme-7b",)) == 4
        with pytest.raises(PriceUnknownError):
            paid(self.PRIVATE, Usage(1), "openai", ("acme-8b",))

    def test_what_it_does_not_name(self) -> None:
        """Writes cost what input costs; another kind of processing is an assumption."""
        assert paid(self.PRIVATE, Usage(1_000_000, 0, 1_000_000), "openai", ("acme-7b",)) == 1
        assert paid(self.PRIVATE, Usage(1_000_000, processing="batch"), "openai", ("acme-7b",)) == Decimal("0.5")
        found = cost(Usage(1, tier="flex"), "openai", ("acme-7b",), NOON, prices=prices(self.PRIVATE))
        assert found.estimated is True

    def test_a_correction(self) -> None:
        """Only what the row names is another; a kind of processing that it does not name keeps the list's price."""
        text = '[[price]]\nprovider = "anthropic"\nmodel = "claude-opus-5"\nread = 0.25'
        assert paid(text) == Decimal("36.50")
        assert paid(text, MILLIONS._replace(processing="batch")) == Decimal("18.375")
        assert paid(text, models=("claude-opus-4-8",)) == Decimal("36.75")

    @pytest.mark.parametrize(
        ("models", "usd"),
        [
            ('"ft:gpt-4o:*"', 1),
            ('["nothing", "ft:gpt-4o:acme:x"]', 1),
        ],
    )
    def test_names(self, models: str, usd: int) -> None:
        """Patterns and lists."""
        text = f'[[price]]\nprovider = "openai"\nmodel = {models}\ninput = 1\noutput = 1'
        assert paid(text, Usage(1_000_000), "openai", ("ft:gpt-4o:acme:x",)) == usd

    def test_the_closest_row_wins(self) -> None:
        """A name over a pattern, an account's row over everybody's; what only the farther names, still holds."""
        text = """
            [[price]]
            provider = "openai"
            model = "acme-*"
            input = 1
            output = 10
            [[price]]
            provider = "openai"
            model = "acme-7b"
            input = 2
            [[price]]
            provider = "openai"
            model = "acme-*"
            account = "blue"
            input = 3
            """
        million = Usage(1_000_000, 0, 0, 1_000_000)
        assert paid(text, million, "openai", ("acme-8b",)) == 11
        assert paid(text, million, "openai", ("acme-7b",)) == 12
        assert paid(text, million, "openai", ("acme-7b",), account="blue") == 13
        assert paid(text, million, "openai", ("acme-7b",), account="red") == 12

    def test_upstream(self) -> None:
        """A gateway's prices depend on whom it chose."""
        text = """
            [[price]]
            provider = "openrouter"
            model = "acme/a"
            upstream = "Fast"
            input = 2
            [[price]]
            provider = "openrouter"
            model = "acme/a"
            input = 1
            """
        assert paid(text, Usage(1_000_000, upstream="Fast"), "openrouter", ("acme/a",)) == 2
        assert paid(text, Usage(1_000_000, upstream="Slow"), "openrouter", ("acme/a",)) == 1

    @pytest.mark.parametrize(
        ("moment", "usd"),
        [
            ("2026-11-30T23:59:59", 1),
            ("2026-12-01T00:00:00", 2),
            ("2026-12-24T05:59:59", 2),
            ("2026-12-24T06:00:00", 3),
        ],
    )
    def test_dates(self, moment: str, usd: int) -> None:
        """From is inclusive, until is not; times without a zone are UTC."""
        text = """
            [[price]]
            provider = "openai"
            model = "a"
            until = 2026-12-01
            input = 1
            [[price]]
            provider = "openai"
            model = "a"
            from = 2026-12-01
            until = 2026-12-24T07:00:00+01:00
            input = 2
            [[price]]
            provider = "openai"
            model = "a"
            from = 2026-12-24T06:00:00
            input = 3
            """
        when = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
        assert paid(text, Usage(1_000_000), "openai", ("a",), when=when) == usd


class TestRates:
    """Discounts and surcharges, lifetimes, quiet hours."""

    def test_a_discount_is_of_everything(self) -> None:
        """Tokens and fees."""
        text = '[[discount]]\nprovider = "anthropic"\npercent = 12.5'
        assert paid(text) == Decimal("36.75") * Decimal("0.875")
        assert paid(text, Usage(0, web_searches=100)) == Decimal("0.875")

    def test_a_surcharge_is_of_tokens(self) -> None:
        """As the provider's own for a place of inference, which a row of one's own replaces."""
        assert paid('[[surcharge]]\nprovider = "anthropic"\npercent = 20') == Decimal("36.75") * Decimal("1.2")
        assert paid('[[surcharge]]\nprovider = "anthropic"\npercent = 20', Usage(0, web_searches=100)) == 1
        own = '[[surcharge]]\nprovider = "anthropic"\ngeo = "us"\npercent = 0'
        assert paid("", MILLIONS._replace(geo="us")) == Decimal("36.75") * Decimal("1.1")
        assert paid(own, MILLIONS._replace(geo="us")) == Decimal("36.75")

    def test_discounts_do_not_add_up(self) -> None:
        """The closest one holds."""
        text = """
            [[discount]]
            provider = "anthropic"
            percent = 10
            [[discount]]
            provider = "anthropic"
            model = "claude-opus-5"
            percent = 20
            [[discount]]
            provider = "anthropic"
            account = "blue"
            percent = 50
            """
        assert paid(text) == Decimal("36.75") * Decimal("0.8")
        assert paid(text, account="blue") == Decimal("36.75") * Decimal("0.5")
        assert paid(text, Usage(1_000_000), models=("claude-haiku-4-5",)) == Decimal("0.9")

    def test_lifetimes(self) -> None:
        """In multiples of the input price."""
        text = '[[write]]\nprovider = "openai"\nttl = "24h"\ntimes = 4'
        usage = Usage(100_000, 0, 100_000, write_by_ttl=((86_400, 100_000),))
        assert paid(text, usage, "openai", ("gpt-6-sol",)) == Decimal("0.8")

    def test_quiet_days(self) -> None:
        """A day that is priced as at one hour of it."""
        friday = datetime(2026, 11, 20, 2, tzinfo=UTC).timestamp()
        text = '[[off_peak]]\nprovider = "deepseek"\ndates = [2026-11-20]\nhour = 12'
        loud = paid("", Usage(1_000_000), "deepseek", ("deepseek-v4-flash",), when=friday)
        assert paid(text, Usage(1_000_000), "deepseek", ("deepseek-v4-flash",), when=friday) == loud / 2

    def test_the_data_s_name_of_a_provider(self) -> None:
        """Rows may use it, or the conventions' one, which may be narrower."""
        for name in ("google", "gcp.gemini"):
            text = f'[[discount]]\nprovider = "{name}"\npercent = 50'
            assert paid(text, Usage(1_000_000), "gcp.gemini", ("gemini-2.5-pro",)) == Decimal("1.25")
        text = '[[discount]]\nprovider = "gcp.vertex_ai"\npercent = 50'
        assert paid(text, Usage(1_000_000), "gcp.gemini", ("gemini-2.5-pro",)) == Decimal("2.5")


class TestVersion:
    """What ``promptcache.price.version`` says."""

    def version(self, text: str, models: tuple[str, ...] = OPUS) -> str:
        return cost(Usage(1), "anthropic", models, NOON, prices=prices(text)).version

    def test_a_file_is_named_where_it_has_a_say(self) -> None:
        """By its name and the digest of its bytes, or by the version that it gives itself."""
        row = '[[discount]]\nprovider = "anthropic"\nmodel = "claude-opus-5"\npercent = 5'
        named = self.version(row).partition(" + ")[2]
        assert named.startswith("prices.toml ")
        assert len(named.partition(" ")[2]) == 8
        assert self.version(row + "\n").partition(" + ")[2] != named
        assert self.version(f'version = "2026-Q4"\n{row}').endswith(" + prices.toml 2026-Q4")
        assert " + " not in self.version(row, ("claude-haiku-4-5",))

    def test_our_own_rows_are_right(self) -> None:
        """The corrections that come along are such a file, and each of them names its source."""
        found = corrections()
        assert found.name == f"corrections {found.name.split()[1]}"
        assert found.rows


class TestWrong:
    """A file that cannot be used: nothing of it is, and each thing that is wrong is named by file, line and key."""

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("price = 5", "prices.toml:1: price takes rows, each under a [[price]]"),
            ("[price]\ninput = 5", "prices.toml:1: price takes rows, each under a [[price]]"),
            (
                "[[prices]]\ninput = 5",
                "prices.toml:1: prices is no table; known are [[price]], [[write]], [[discount]]",
            ),
            ('\n[[discount]]\nprovider = "a"\n', "prices.toml:2: [[discount]] percent is missing"),
            ('[[discount]]\nprovider = "a"\npercent = "5"', "prices.toml:3: [[discount]] percent takes a percentage"),
            ('[[discount]]\nprovider = "a"\npercent = 101', "prices.toml:3: [[discount]] percent takes a percentage"),
            ('[[discount]]\nprovider = "a"\npercent = -1', "prices.toml:3: [[discount]] percent takes a percentage"),
            ('[[discount]]\nprovider = "a"\npercent = true', "prices.toml:3: [[discount]] percent takes a percentage"),
            ('[[discount]]\nprovider = "a"\npercent = nan', "prices.toml:3: [[discount]] percent takes a percentage"),
            ("[[discount]]\nprovider = 5\npercent = 5", "prices.toml:2: [[discount]] provider takes a name"),
            (
                '[[discount]]\nprovider = "a"\npercent = 5\noff = 5',
                "prices.toml:4: [[discount]] off is no key of [[discount]]; known are provider, model, account",
            ),
            (
                '[[discount]]\nprovider = "a"\npercent = 5\nfrom = "soon"',
                "prices.toml:4: [[discount]] from takes a date, or a date and time on the full hour",
            ),
            (
                '[[discount]]\nprovider = "a"\npercent = 5\nfrom = 2026-01-01T00:30:00',
                "prices.toml:4: [[discount]] from takes a date, or a date and time on the full hour",
            ),
            (
                '[[discount]]\nprovider = "a"\npercent = 5\nfrom = 2026-02-01\nuntil = 2026-02-01',
                "prices.toml:5: [[discount]] until must be later than from",
            ),
            (
                '[[price]]\nprovider = "a"\nmodel = "b"\ninput = -1',
                "prices.toml:4: [[price]] input takes USD a million",
            ),
            (
                '[[price]]\nprovider = "a"\nmodel = "b"\ninput = inf',
                "prices.toml:4: [[price]] input takes USD a million",
            ),
            (
                '[[price]]\nprovider = "a"\nmodel = "b"\ninput = "1"',
                "prices.toml:4: [[price]] input takes USD a million",
            ),
            (
                '[[price]]\nprovider = "a"\nmodel = "b"\ninput = { 272000 = 1 }',
                "prices.toml:4: [[price]] input takes USD, or prices by prompt size as { 0 = 2, 272000 = 4 }",
            ),
            (
                '[[price]]\nprovider = "a"\nmodel = "b"\ninput = { 0 = 1, much = 1 }',
                "prices.toml:4: [[price]] input takes USD, or prices by prompt size",
            ),
            ('[[price]]\nprovider = "a"\nmodel = "b"', "prices.toml:1: [[price]] input is missing: a price names"),
            (
                '[[price]]\nprovider = "a"\nmodel = []\ninput = 1',
                "prices.toml:3: [[price]] model takes a name, or a list",
            ),
            (
                '[[write]]\nprovider = "a"\nttl = "2h"\ntimes = 1',
                "prices.toml:3: [[write]] ttl takes one of 5m, 30m, 1h",
            ),
            (
                '[[off_peak]]\nprovider = "a"\nhour = 24\nweekdays = ["sunday"]\ndates = ["x"]',
                "prices.toml:3: [[off_peak]] hour takes an hour of the day, 0 to 23",
            ),
            ("version = 5", "prices.toml:1: version takes a text of at most 64 characters"),
            ("[[price]\n", "prices.toml: it is no TOML: at line 1, column "),
            ("a = 1\n= secret\n", "prices.toml: it is no TOML: at line 2, column 1"),
            (b"a = 1\n\xff\xfe", "prices.toml:2: it is no UTF-8"),
        ],
    )
    def test_said(self, text: str | bytes, problem: str) -> None:
        """And the value, which may be anything, is not repeated."""
        found = problems(text)
        assert found[0].startswith(problem)
        assert "secret" not in str(found)

    @pytest.mark.parametrize(
        ("before", "lines"),
        [
            ('note = """\n[[price]]\ninput = 5\n"""\n', 4),
            ('note = """a \\"""\n[[price]]\n""""\n', 3),
            ("note = '''\n[[discount]]\n'''\n", 3),
            ("note = 'it is no \"\"\" text' # nor is ''' this\n", 1),
            ('model = [\n  "a",  # [[price]]\n  "b",\n]\n', 4),
            ('note = "a\u2028b\x0b"\n'.replace("\x0b", "\\u000b"), 1),
        ],
    )
    def test_lines_behind_a_text(self, before: str, lines: int) -> None:
        """What looks like a row or a key in a text, a comment or a list does not count as one."""
        text = '[[price]]\nprovider = "openai"\ninput = 1\n' + before + "outptu = 4\n[[price]]\n"
        found = problems(text)
        assert found[0].startswith(f"prices.toml:{4 + lines}: [[price]] outptu is no key")
        assert found[-1].startswith(f"prices.toml:{5 + lines}: [[price]] ")

    def test_all_of_it_at_once(self) -> None:
        """Up to twenty things, with the line of each."""
        row = '[[price]]\nprovider = "a"\nmodel = "b%d"\ninput = -1\n'
        found = problems("".join(row % number for number in range(25)))
        assert [one.split(":")[1] for one in found[:3]] == ["4", "8", "12"]
        assert len(found) == 21
        assert found[-1] == "prices.toml: and 5 more like these"

    @pytest.mark.parametrize(
        ("earlier", "later"),
        [
            ("", ""),
            ("from = 2026-01-01", ""),
            ("until = 2026-02-01", "from = 2026-01-31"),
            ("from = 2026-01-01\nuntil = 2026-03-01", "from = 2026-02-01\nuntil = 2026-02-02"),
        ],
    )
    def test_two_rows_for_the_same(self, earlier: str, later: str) -> None:
        """Nobody could say which holds."""
        row = '[[price]]\nprovider = "a"\nmodel = ["b", "c"]\ninput = 1\n{0}\n'
        found = problems(row.format(earlier) + row.format(later))
        assert len(found) == 1
        assert "[[price]] is for the same and at the same time as the row in line" in found[0]

    def test_rows_that_do_not_meet(self) -> None:
        """Times that follow each other, other models, accounts and upstreams."""
        row = '[[price]]\nprovider = "a"\nmodel = "b"\ninput = 1\n'
        apart = ("until = 2026-02-01\n", "from = 2026-02-01\n", 'account = "x"\n', 'upstream = "y"\n')
        assert len(pricefile.parse("".join(row + more for more in apart).encode(), "p").rows) == 4

    def test_too_much(self, tmp_path: Path) -> None:
        """A million lines are refused before anybody reads them."""
        file = tmp_path / "prices.toml"
        file.write_text('[[discount]]\nprovider = "a"\npercent = 1\n' * 333_334)
        with pytest.raises(PriceFileError, match=r"prices.toml: takes at most 1 MiB"):
            read(str(file))

    def test_too_many_digits(self) -> None:
        """Which the parser of numbers refuses, not that of TOML."""
        assert problems("a = " + "9" * 5000)[0].startswith("prices.toml: it is no TOML")
        row = '[[discount]]\nprovider = "a"\npercent = 1\nfrom = 0001-01-01T00:00:00+14:00'
        assert pricefile.parse(row.encode(), "p").rows

    def test_too_deep(self) -> None:
        """Nor do brackets end us."""
        assert problems("a = " + "[" * 100_000)[0].startswith("prices.toml: it is ")


@given(st.text(max_size=200))
def test_any_text_is_a_file_or_refused(text: str) -> None:
    """Nothing else is raised, whatever somebody saved under that name."""
    try:
        pricefile.parse(text.encode("utf-8", "surrogatepass"), "p")
    except PriceFileError as refused:
        assert refused.problems  # noqa: PT017


_SCALARS = st.one_of(
    st.none().map(lambda _: "true"),
    st.integers(-5, 5).map(str),
    st.sampled_from(['"x"', "2026-01-01", "[]", '["a"]', "{ 0 = 1 }", "nan", "1.5", "07:00:00", '"5m"']),
)


@given(
    st.sampled_from(sorted(pricefile.TABLES)),
    st.dictionaries(
        st.sampled_from(["provider", "model", "percent", "from", "until", "input", "ttl", "times", "hour", "x"]),
        _SCALARS,
    ),
)
def test_any_row_is_right_or_refused(table: str, row: dict[str, str]) -> None:
    """By its line, and nothing else is raised."""
    text = f"[[{table}]]\n" + "\n".join(f"{key} = {value}" for key, value in row.items())
    try:
        pricefile.parse(text.encode(), "p")
    except PriceFileError as refused:
        assert all(one.startswith("p:") for one in refused.problems)  # noqa: PT017


def test_the_documented_file_is_right() -> None:
    """The example in ``docs/money.md``, and those that come along."""
    root = Path(__file__).resolve().parents[1]
    page = (root / "docs" / "money.md").read_text(encoding="utf-8")
    example = page.partition("```toml\n")[2].partition("```")[0]
    assert {row.table for row in pricefile.parse(example.encode(), "p").rows} == set(pricefile.TABLES)
    documented = {
        key for row in page.splitlines() if row.startswith("| `") for key in row.split("|")[1].split("`")[1::2]
    }
    keys = {key for table, _ in pricefile.TABLES.values() for key in table}
    assert keys - documented <= {"batch", "flex", "priority", "fast", "percent", "geo", "ttl", "times", "weekdays"} | {
        *("dates", "hour"),
    }
    for file in (root / "examples" / "prices").iterdir():
        assert read(str(file)).rows


@pytest.mark.parametrize("number", ["0x" + "f" * 100_000, "0." + "1" * 100_000], ids=["integer", "fraction"])
def test_a_number_without_end(number: str) -> None:
    """Is refused by its length: to work with it would hold the whole process up."""
    with pytest.raises(PriceFileError):
        pricefile.parse(f'[[price]]\nprovider = "p"\nmodel = "m"\ninput = {number}\n'.encode(), "prices.toml")


EXAMPLES = Path(__file__).parents[1] / "examples" / "prices"


class TestExamples:
    """What the price files do that the documentation shows."""

    @pytest.mark.parametrize(
        ("account", "times"), [("", "1"), ("data-zone", "1.1"), ("regional", "1.1"), ("provisioned", "0")]
    )
    def test_deployments_of_azure(self, account: str, times: str) -> None:
        """Told apart by accounts, for no call says what kind of deployment answered it."""
        text = (EXAMPLES / "azure-data-zones.toml").read_text(encoding="utf-8")
        usage = Usage(3_000_000, 1_000_000, 0, 1_000_000)
        azure = {"usage": usage, "provider": "azure.ai.openai", "models": ("gpt-4.1",)}
        # USD a million: input 2, read 0.50, output 8
        assert paid(text, **azure, account=account) == Decimal("12.5") * Decimal(times)
