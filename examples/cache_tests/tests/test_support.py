"""What the agent promises about its prompt cache. The last test fails: it shows what a failure looks like."""

from support import Conversation, with_the_time

QUESTIONS = ("May I return a lamp?", "It is broken.", "How long does it take?", "Thank you.", "One more thing.")


def test_a_conversation_stays_cached(promptcache, promptcache_emulator):
    """One call writes the instructions; every later one reads them."""
    conversation = Conversation()
    answers = [conversation.ask(question) for question in QUESTIONS]
    promptcache.assert_prefix_stable()
    promptcache.assert_cached(answers[1])
    promptcache.assert_hit_ratio(min=0.7)
    promptcache.assert_no_unread_writes(usd=0.0)


def test_customers_share_the_instructions(promptcache, promptcache_emulator):
    """Also between conversations, and after four idle minutes."""
    Conversation().ask("May I return a lamp?")
    promptcache_emulator.clock.advance(4 * 60)
    Conversation().ask("Where is my order?")
    promptcache.assert_cached(-1)


def test_the_instructions_are_the_reviewed_ones(promptcache, promptcache_emulator):
    """A change of what stands in front of the messages is seen in the pull request: its place, and its price."""
    Conversation().ask("May I return a lamp?")
    promptcache.assert_matches_snapshot()


def test_a_time_in_the_instructions(promptcache, promptcache_emulator):
    """Fails: every call writes the instructions again."""
    conversation = Conversation(instructions=with_the_time)
    for question in QUESTIONS:
        conversation.ask(question)
    promptcache.assert_hit_ratio(min=0.7)
