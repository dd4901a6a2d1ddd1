"""Publish and subscribe: messages from one connection to all that asked for them. Each handler works on the session.

What a subscriber is sent does not come from here: a published message is put into its push queue, which its own
connection's thread empties.
"""

from __future__ import annotations

from functools import partial

from kvserver import errors
from kvserver.commands.containers import add_help
from kvserver.commands.registry import Flags, Group, Keys, Runs, command
from kvserver.protocol.replies import Reply, Several
from kvserver.session import Kind, Session

_pubsub = partial(command, group=Group.PUBSUB, runs=Runs.ON_SESSION)
_SUBSCRIBER = Flags.PUBSUB | Flags.NOSCRIPT | Flags.LOADING | Flags.STALE
_PUBLISHER = Flags.PUBSUB | Flags.LOADING | Flags.STALE | Flags.FAST
_PER_NAME = "O(N), N channels"


def _subscribe(session: Session, kind: Kind, names: tuple[bytes, ...]) -> Several:
    if session.state.gateway is not None:
        session.state.gateway.listen(session.state.pubsub.publish)
    session.state.open_pushes(session)
    confirmations = session.state.pubsub.subscribe(session, kind, names)
    session.mind()
    return Several(confirmations)


def _unsubscribe(session: Session, kind: Kind, names: tuple[bytes, ...]) -> Several:
    confirmations = session.state.pubsub.unsubscribe(session, kind, names)
    session.mind()
    return Several(confirmations)


@_pubsub("SUBSCRIBE", "channel [channel ...]", arity=-2, flags=_SUBSCRIBER, since="2.0.0", complexity=_PER_NAME)
def subscribe(session: Session, *channels: bytes) -> Several:
    """Subscribes to channels; a confirmation for each, and from then on what is published to them."""
    return _subscribe(session, Kind.CHANNEL, channels)


@_pubsub("UNSUBSCRIBE", "[channel [channel ...]]", arity=-1, flags=_SUBSCRIBER, since="2.0.0", complexity=_PER_NAME)
def unsubscribe(session: Session, *channels: bytes) -> Several:
    """Ends subscriptions to channels, to all of them if none is named; a confirmation for each."""
    return _unsubscribe(session, Kind.CHANNEL, channels)


@_pubsub("PSUBSCRIBE", "pattern [pattern ...]", arity=-2, flags=_SUBSCRIBER, since="2.0.0", complexity=_PER_NAME)
def psubscribe(session: Session, *patterns: bytes) -> Several:
    """Subscribes to all channels whose names match a glob pattern, also those that come later."""
    return _subscribe(session, Kind.PATTERN, patterns)


@_pubsub("PUNSUBSCRIBE", "[pattern [pattern ...]]", arity=-1, flags=_SUBSCRIBER, since="2.0.0", complexity=_PER_NAME)
def punsubscribe(session: Session, *patterns: bytes) -> Several:
    """Ends subscriptions to patterns, to all of them if none is named; a confirmation for each."""
    return _unsubscribe(session, Kind.PATTERN, patterns)


_SHARD_KEYS = Keys(1, -1, 1, "not_key")


@_pubsub(
    "SSUBSCRIBE",
    "shardchannel [shardchannel ...]",
    arity=-2,
    flags=_SUBSCRIBER,
    keys=_SHARD_KEYS,
    since="7.0.0",
    complexity=_PER_NAME,
)
def ssubscribe(session: Session, *channels: bytes) -> Several:
    """Subscribes to shard channels, which in a cluster live where a key of that name would."""
    return _subscribe(session, Kind.SHARD, channels)


@_pubsub(
    "SUNSUBSCRIBE",
    "[shardchannel [shardchannel ...]]",
    arity=-1,
    flags=_SUBSCRIBER,
    keys=_SHARD_KEYS,
    since="7.0.0",
    complexity=_PER_NAME,
)
def sunsubscribe(session: Session, *channels: bytes) -> Several:
    """Ends subscriptions to shard channels, to all of them if none is named; a confirmation for each."""
    return _unsubscribe(session, Kind.SHARD, channels)


@_pubsub(
    "PUBLISH",
    "channel message",
    arity=3,
    flags=_PUBLISHER,
    since="2.0.0",
    complexity="O(N+M), N subscribers of the channel and M patterns",
)
def publish(session: Session, channel: bytes, message: bytes) -> int:
    """Sends a message to a channel's subscribers; returns how many it was sent to. Never waits for any of them."""
    return session.state.pubsub.publish(channel, message)


@_pubsub(
    "SPUBLISH",
    "shardchannel message",
    arity=3,
    flags=_PUBLISHER,
    keys=Keys(1, 1, 1, "not_key"),
    since="7.0.0",
    complexity="O(N), N subscribers",
)
def spublish(session: Session, channel: bytes, message: bytes) -> int:
    """Sends a message to a shard channel's subscribers; returns how many it was sent to."""
    return session.state.pubsub.publish(channel, message, shard=True)


@_pubsub("PUBSUB", "subcommand [argument ...]", arity=-2, since="2.8.0", categories=("!pubsub",))
def pubsub(_session: Session) -> Reply:
    """Tells about subscriptions, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("PUBSUB", group=Group.PUBSUB, since="6.2.0", extra=("!pubsub",))


_about = partial(_pubsub, flags=Flags.PUBSUB | Flags.LOADING | Flags.STALE, since="2.8.0")


@_about("PUBSUB|CHANNELS", "[pattern]", arity=-2, complexity="O(N), N channels")
def pubsub_channels(session: Session, *words: bytes) -> Reply:
    """Returns the channels that have subscribers, those that match a glob pattern if one is given."""
    return _channels(session, words, shard=False)


@_about("PUBSUB|NUMSUB", "[channel [channel ...]]", arity=-2, complexity=_PER_NAME)
def pubsub_numsub(session: Session, *channels: bytes) -> Reply:
    """Returns channels and how many subscribers each has; those by pattern do not count."""
    return _with_counts(session, channels, shard=False)


@_about("PUBSUB|NUMPAT", "", arity=2)
def pubsub_numpat(session: Session) -> int:
    """Returns how many different patterns are subscribed to."""
    return session.state.pubsub.count(Kind.PATTERN)


@_about("PUBSUB|SHARDCHANNELS", "[pattern]", arity=-2, since="7.0.0", complexity="O(N), N channels")
def pubsub_shardchannels(session: Session, *words: bytes) -> Reply:
    """Returns the shard channels that have subscribers, those that match a glob pattern if one is given."""
    return _channels(session, words, shard=True)


@_about("PUBSUB|SHARDNUMSUB", "[shardchannel [shardchannel ...]]", arity=-2, since="7.0.0", complexity=_PER_NAME)
def pubsub_shardnumsub(session: Session, *channels: bytes) -> Reply:
    """Returns shard channels and how many subscribers each has."""
    return _with_counts(session, channels, shard=True)


def _with_counts(session: Session, channels: tuple[bytes, ...], *, shard: bool) -> Reply:
    counts: list[Reply] = []
    for channel in channels:
        counts += [channel, session.state.pubsub.subscribers(channel, shard=shard)]
    return counts


def _channels(session: Session, words: tuple[bytes, ...], *, shard: bool) -> Reply:
    if len(words) > 1:
        raise errors.SubcommandUsageError
    return list(session.state.pubsub.channels(words[0] if words else None, shard=shard))
