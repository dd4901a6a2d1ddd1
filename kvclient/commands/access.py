"""The commands about users: who may use the server, and for what. ACL's rules are the server's; they are passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command

if TYPE_CHECKING:
    from kvclient.protocol import Name, Value


class AccessCommands(CommandSet):
    """Commands that manage users and what each may do."""

    @command("ACL|WHOAMI", to.text, safe=True)
    def acl_whoami(self) -> Args:
        """Return the name of the user that the client's connections are.

        Server command: ACL WHOAMI.
        """
        return (b"ACL", b"WHOAMI")

    @command("ACL|USERS", to.blobs, safe=True)
    def acl_users(self) -> Args:
        """Return the names of all users.

        Server command: ACL USERS.
        """
        return (b"ACL", b"USERS")

    @command("ACL|LIST", to.blobs, safe=True)
    def acl_list(self) -> Args:
        """Return a line a user, as an ACL file has them. Of passwords it has the SHA-256.

        Server command: ACL LIST.
        """
        return (b"ACL", b"LIST")

    @command("ACL|GETUSER", to.table_or_none, safe=True)
    def acl_getuser(self, username: Name) -> Args:
        """Return what is known about a user, None for no such user.

        Server command: ACL GETUSER.
        """
        return (b"ACL", b"GETUSER", username)

    @command("ACL|SETUSER", to.done)
    def acl_setuser(self, username: Name, *rules: Name) -> Args:
        """Change a user by rules such as ``on``, ``>password``, ``+@read`` and ``~prefix:*``, or make one.

        Server command: ACL SETUSER.
        """
        return (b"ACL", b"SETUSER", username, *rules)

    @command("ACL|DELUSER", to.integer)
    def acl_deluser(self, *usernames: Name) -> Args:
        """Remove users and end their connections; return how many there were.

        Server command: ACL DELUSER.
        """
        return (b"ACL", b"DELUSER", *usernames)

    @command("ACL|DRYRUN", to.text, safe=True)
    def acl_dryrun(self, username: Name, name: Name, *args: Value) -> Args:
        """Return ``OK`` if a user may run a command, or why not. Nothing is run.

        Server command: ACL DRYRUN.
        """
        return (b"ACL", b"DRYRUN", username, name, *args)

    @command("ACL|CAT", to.blobs, safe=True)
    def acl_cat(self, category: Name | None = None) -> Args:
        """Return the categories of commands, or the commands of one.

        Server command: ACL CAT.
        """
        return (b"ACL", b"CAT") if category is None else (b"ACL", b"CAT", category)

    @command("ACL|GENPASS", to.text, safe=True)
    def acl_genpass(self, bits: int = 256) -> Args:
        """Return a password of so many random bits, in hexadecimal.

        Server command: ACL GENPASS.
        """
        return (b"ACL", b"GENPASS", bits)

    @command("ACL|LOG", to.tables, safe=True)
    def acl_log(self, count: int = 10) -> Args:
        """Return what was denied lately, newest first.

        Server command: ACL LOG.
        """
        return (b"ACL", b"LOG", count)

    @command("ACL|SAVE", to.done)
    def acl_save(self) -> Args:
        """Write all users to the server's ACL file.

        Server command: ACL SAVE.
        """
        return (b"ACL", b"SAVE")

    @command("ACL|LOAD", to.done)
    def acl_load(self) -> Args:
        """Replace all users by those in the server's ACL file.

        Server command: ACL LOAD.
        """
        return (b"ACL", b"LOAD")

    @command("ACL|HELP", to.text, safe=True)
    def acl_help(self) -> Args:
        """Return the server's help on ACL.

        Server command: ACL HELP.
        """
        return (b"ACL", b"HELP")
