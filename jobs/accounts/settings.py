"""What [jobs.NAME] says of the verbs about accounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.catalogue.names import table_name
from jobs.catalogue.settings import BatchSettings, Mail, check_columns, check_table
from jobs.storage.settings import LONGEST_LINK_S
from jobs.values import Duration, duration, key


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSettings(BatchSettings):
    """Of both verbs: where accounts are, and which tables hold what is theirs, beside what foreign keys lead to."""

    table: str = key(doc="The accounts; its key is one column.", example='"app.accounts"')
    deleted_column: str = key(doc="When an account was deleted; null: it was not.", example='"deleted_at"')
    links: dict[str, Any] = key(
        factory=dict,
        doc="Columns that hold what is an account's where no foreign key says so: table.column, and the column of the "
        "accounts, or of another table, that it equals.",
        example='{ "app.waiting_list.address" = "email" }',
    )
    account_columns: tuple[str, ...] = key(
        (),
        "Columns called so hold accounts, too, like those with a foreign key to them: a table that has one, and of "
        "which nothing says whose it is, parks the job.",
        example='["user_id"]',
    )
    requests_column: str | None = key(
        None,
        "Whose a request is, where its table has more than one column that holds an account.",
        example='"account_id"',
    )
    ignore: tuple[str, ...] = key(
        (),
        "Columns, as table.column, that are called as if they held accounts, and do not.",
        example='["app.plans.account_id"]',
    )

    def __post_init__(self) -> None:
        check_table("table", self.table)
        check_columns("deleted_column", self.deleted_column)
        check_columns("account_columns", *self.account_columns)
        check_columns("requests_column", self.requests_column)
        for name, to in self.links.items():
            _placed("links", name)
            if not isinstance(to, str):
                raise ValueError(f"links.{name}: {to!r} is no column")
            if "." in to:
                _placed(f"links.{name}", to)
            else:
                check_columns(f"links.{name}", to)
        for name in self.ignore:
            _placed("ignore", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseSettings(AccountSettings):
    """Erases what was the accounts' that were deleted."""

    grace: Duration = key(duration("0"), "How long after its deletion an account is kept as it is.", minimum=0)
    revoke: tuple[str, ...] = key(
        (),
        "Tables that give access: emptied for every deleted account at each run, whatever its grace.",
        example='["app.sessions"]',
    )
    blank: dict[str, Any] = key(
        factory=dict,
        doc="Tables whose rows stay, and the columns that are emptied in them: to null, or to their default.",
        example='{ "app.audit_log" = ["account_id", "subject", "detail"] }',
    )
    files: tuple[str, ...] = key(
        (),
        "Columns, as table.column, with paths in the storage: the files go before the rows.",
        example='["app.exports.location"]',
    )
    requests: str | None = key(
        None,
        "A table of requests, with completed_at, rows_deleted and a key to the account, which becomes null: it counts "
        "what was deleted, and is marked at the end.",
        example='"app.deletion_requests"',
    )

    def __post_init__(self) -> None:
        super(EraseSettings, self).__post_init__()
        for name in self.revoke:
            check_table("revoke", name)
        for name in self.files:
            _placed("files", name)
        if self.requests is not None:
            check_table("requests", self.requests)
        for name, columns in self.blank.items():
            check_table("blank", name)
            if not (isinstance(columns, list | tuple) and columns and all(isinstance(c, str) for c in columns)):
                raise ValueError(f'blank.{name}: takes the names of columns, like ["account_id"]')
            check_columns(f"blank.{name}", *columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings(AccountSettings):
    """Puts all that an account has into one file, and tells its owner."""

    requests: str = key(
        doc="A table of requests: id, state (wanted, running, ready, failed, expired), location, size_bytes, sha256, "
        "requested_at, ready_at, expires_at, and a key to the account.",
        example='"app.exports"',
    )
    address_column: str = key(doc="Where an account's owner is written to.", example='"email"')
    org_column: str | None = key(None, "The organisation of an account, for the mail's org_id.", example='"org_id"')
    leave_out: tuple[str, ...] = key(
        (),
        "Columns, as table.column, that are nobody's business: hashes of tokens, raw copies.",
        example='["app.sessions.token_hash"]',
    )
    keep: Duration = key(
        duration("7d"), "The file and its link are good for so long.", minimum=60, maximum=LONGEST_LINK_S
    )
    mail_from: str | None = key(None, "Who writes; unset: email.from.", example='"Shop <data@shop.example>"')
    mail_subject: str = key("Your data is ready", "Subject of the mail that brings the link.")
    mail_text: str = key(
        "All that we have of you is in one file, until {expires}:\n\n{link}\n",
        "Its text, with {link} and {expires}.",
    )

    def __post_init__(self) -> None:
        super(ExportSettings, self).__post_init__()
        check_table("requests", self.requests)
        check_columns("address_column", self.address_column)
        check_columns("org_column", self.org_column)
        for name in self.leave_out:
            _placed("leave_out", name)
        if "{link}" not in self.mail_text:
            raise ValueError("mail_text: it has no {link}, so nobody would find the file")

    def mail(self) -> Mail:
        return Mail(("mail_from", self.mail_from), ("mail_subject", self.mail_subject))


def place(text: str) -> tuple[str, str]:
    """The table and the column of `app.users.id`."""
    table, _, column = text.rpartition(".")
    return table, column


def _placed(field: str, text: str) -> None:
    table, column = place(text)
    try:
        table_name(table)
    except ValueError:
        raise ValueError(f'{field}: {text!r} is no column of a table; write it like "app.sessions.token"') from None
    check_columns(field, column)
