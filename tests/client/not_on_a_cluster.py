"""Which of the client's tests cannot be run on a cluster, or through a gateway, and why. All others are, as they are.

The first three kinds are what a program has to know that moves to a cluster; the last is about the tests.
"""

from __future__ import annotations

from typing import Final

_SLOTS: Final = "it has commands or transactions with keys of several slots"
_DATABASE: Final = "a cluster has one database"
_NODE: Final = (
    "it asks and tells one node of itself (CLIENT, CONFIG, INFO, MONITOR, PUBSUB and such), and expects it of all"
)
_TRACKING: Final = "a gateway does not tell of changes"

_INSIDE: Final = "it looks at the one connection that all tasks share"

REASONS: Final = {
    "test_strings": _SLOTS,
    "test_lcs": _SLOTS,
    "test_keys": _SLOTS,
    "test_bits": _SLOTS,
    "test_deleting_and_setting_at_once": _SLOTS,
    "test_transactions": _SLOTS,
    "test_commands_run_together_at_the_end": _SLOTS,
    "test_an_exception_in_the_block_sends_nothing": _SLOTS,
    "test_a_command_that_fails_does_not_hide_the_others": _SLOTS,
    "test_a_command_that_is_refused_keeps_all_from_running": _SLOTS,
    "test_always_being_too_late_is_told_in_the_end": _SLOTS,
    "test_transfers_keep_their_sum": _SLOTS,
    "test_database_and_name_are_set_in_the_handshake": _DATABASE,
    "test_client_commands": _NODE,
    "test_messages_come_in_order": _NODE,
    "test_listening_to_more_and_to_less": _NODE,
    "test_monitor": _NODE,
    "test_memory": _NODE,
    "test_latency": _NODE,
    "test_a_pause_holds_up_what_writes": _NODE,
    "test_slow_commands": _NODE,
    "test_a_connection_that_is_killed_is_made_again": _NODE,
    "test_killed_and_made_again_by_tasks": _NODE,
    "test_listening": _NODE,
    "test_tasks_share_one_connection": _NODE,
    "test_a_command_that_waits_by_design_holds_nobody_up": _NODE,
    "test_cancelled_tasks_take_nobodys_reply": _INSIDE,
    "test_a_part_is_never_kept_for_ever": _NODE,
    "test_changes_of_keys": _NODE,
    "test_top": _NODE,
}

ALSO_THROUGH_A_GATEWAY: Final = {
    "test_the_second_time_is_answered_from_here": _TRACKING,
    "test_prefixes_namespaces_and_types": _TRACKING,
    "test_when_all_is_quiet_it_agrees": _TRACKING,
    "test_by_tasks": _TRACKING,
    "test_server_commands": "a gateway does not wait for replicas",
    "test_pipelines": "ten thousand commands at once, for which a gateway needs longer than a client waits",
}
"""Beside those, what cannot be run through a gateway."""
FINE_THROUGH_A_GATEWAY: Final = {
    "test_a_command_that_is_refused_keeps_all_from_running",
    "test_a_pause_holds_up_what_writes",
    "test_an_exception_in_the_block_sends_nothing",
    "test_cancelled_tasks_take_nobodys_reply",
    "test_client_commands",
    "test_commands_run_together_at_the_end",
    "test_latency",
    "test_slow_commands",
    "test_tasks_share_one_connection",
}
"""Of the first, those that can be run through a gateway: one server to its clients, with a slow log of its own."""
