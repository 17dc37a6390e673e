"""The rights in a database beside those of the manifest: what differs, and the statement that mends it.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from daemon.manifest import OWNER, PUBLIC, Manifest, Policy, Right

Phase = Literal["create", "own", "protect", "grant"]
PHASES: tuple[Phase, ...] = ("create", "own", "protect", "grant")
"""In this order: what is granted before an object changes hands is granted by the wrong one."""

POLICY = "jobsd_organisations"
_OWNED = {"r": "table", "p": "table", "v": "view", "S": "sequence"}


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view or sequence; `guarded`: row-level security is on; `parent`: what it is a partition of."""

    name: str
    kind: str
    owner: str
    guarded: bool
    parent: str | None
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Routine:
    """A function: `place` is its name with its types."""

    place: str
    name: str
    owner: str
    definer: bool
    pinned: bool
    callers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the catalogue says.  `policies`: by table, then by name; `enters` and `creates`: what roles may do in the
    schema."""

    me: str
    super: bool
    schema: str
    roles: frozenset[str]
    relations: Mapping[str, Relation]
    rights: frozenset[Right]
    functions: Sequence[Routine]
    policies: Mapping[str, Mapping[str, Policy]]
    domains: Mapping[str, str]
    enters: frozenset[str]
    creates: frozenset[str]


@dataclass(frozen=True, slots=True)
class Change:
    """Something that differs from the manifest, and the statement after which it does not."""

    phase: Phase
    place: str
    says: str
    statement: str


def quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def drift(manifest: Manifest, seen: Seen, *, create: bool, own: bool) -> list[Change]:
    """In the order in which to mend it.  `create`: the roles that are missing too; `own`: also let jobsd_owner own what
    somebody else does, as it must once it owns table jobs."""
    jobs = seen.relations.get("jobs")
    own = OWNER in seen.roles and (own or (jobs is not None and jobs.owner == OWNER))
    changes = [
        *(_roles(manifest, seen) if create else ()),
        *(_owners(seen) if own else ()),
        *_functions(manifest, seen),
        *_policies(manifest, seen),
        *_schema(seen),
        *_missing(manifest, seen),
        *_excess(manifest, seen),
    ]
    return sorted(changes, key=lambda change: PHASES.index(change.phase))


def whole_plan(manifest: Manifest, seen: Seen) -> list[Change]:
    """All that is missing, as if the roles that are yet to be made were there."""
    made = replace(seen, roles=frozenset(manifest.roles))
    return [*_roles(manifest, seen), *drift(manifest, made, create=False, own=True)]


def strangers(manifest: Manifest, seen: Seen) -> dict[str, list[str]]:
    """Roles that the manifest does not know, and the objects on which they have rights: somebody's own doing."""
    known = {*manifest.roles, PUBLIC}
    found: dict[str, list[str]] = {}
    for right in sorted(seen.rights):
        if right.role not in known and right.object not in found.setdefault(right.role, []):
            found[right.role].append(right.object)
    return found


def _roles(manifest: Manifest, seen: Seen) -> Iterator[Change]:
    for role, says in manifest.roles.items():
        if role not in seen.roles:
            # who is no superuser must join the owner to give it anything, and who made it may
            joined = f"; grant {role} to current_user" if role == OWNER and not seen.super else ""
            yield Change("create", f"role {role}", f"is missing: {says}", f"create role {role} nologin{joined}")


def _owners(seen: Seen) -> Iterator[Change]:
    schema = quoted(seen.schema)
    if OWNER not in seen.creates:
        statement = f"grant usage, create on schema {schema} to {OWNER}"
        yield Change("own", f"schema {seen.schema}", f"{OWNER} cannot make partitions in it", statement)
    for relation in seen.relations.values():
        kind = _OWNED.get(relation.kind)
        if kind and relation.owner != OWNER:
            yield _owner(kind, relation.name, quoted(relation.name), relation.owner)
    for routine in seen.functions:
        if routine.owner != OWNER:
            yield _owner("function", routine.name, routine.place, routine.owner)
    for name, owner in seen.domains.items():
        if owner != OWNER:
            yield _owner("domain", name, quoted(name), owner)


def _owner(kind: str, name: str, place: str, owner: str) -> Change:
    return Change(
        "own", f"owner of {kind} {name}", f"is {owner}, whom no rule binds", f"alter {kind} {place} owner to {OWNER}"
    )


def _functions(manifest: Manifest, seen: Seen) -> Iterator[Change]:
    known = _known(seen)
    for routine in seen.functions:
        place = f"function {routine.name}"
        wanted = manifest.functions[routine.name]
        if (wanted.definer or routine.definer) and not routine.pinned:
            statement = f"alter function {routine.place} set search_path = {quoted(seen.schema)}, pg_temp"
            says = "runs with its owner's rights under the caller's search_path, who can put objects of his own in"
            yield Change("protect", place, says, statement)
        if wanted.definer is not None and wanted.definer != routine.definer:
            who = "definer" if wanted.definer else "invoker"
            says = f"does not run with the rights of its {'owner' if wanted.definer else 'caller'}"
            yield Change("protect", place, says, f"alter function {routine.place} security {who}")
        for role in sorted(routine.callers - set(wanted.callers)):
            if role in known:
                statement = f"revoke execute on function {routine.place} from {role}"
                yield Change("protect", place, f"may be called by {role}", statement)
        for role in wanted.callers:
            if role in known and role not in routine.callers:
                statement = f"grant execute on function {routine.place} to {role}"
                yield Change("grant", place, f"may not be called by {role}", statement)


def _policies(manifest: Manifest, seen: Seen) -> Iterator[Change]:
    for table, policy in manifest.policies.items():
        relation = seen.relations.get(table)
        if relation is None or relation.kind not in "rp":  # a view looks after itself
            continue
        held = seen.policies.get(table, {})
        place = f"row-level security of {table}"
        if held.get(POLICY) != policy:
            check = f" with check {policy.check}" if policy.check else ""
            statement = (
                f"drop policy if exists {POLICY} on {quoted(table)}; "  # both at once: without one nobody sees a row
                f"create policy {POLICY} on {quoted(table)} using {policy.using}{check}"
            )
            says = "has another policy" if POLICY in held else "has no policy"
            yield Change("protect", place, says, statement)
        if not relation.guarded:
            statement = f"alter table {quoted(table)} enable row level security"
            yield Change("protect", place, "is off: organisations see each other's rows", statement)
        for name in held.keys() - {POLICY}:
            says = f"policy {name} is not ours, and may show more"
            yield Change("protect", place, says, f"drop policy {quoted(name)} on {quoted(table)}")


def _schema(seen: Seen) -> Iterator[Change]:
    place = f"schema {seen.schema}"
    for role in sorted(seen.roles - seen.enters):
        yield Change("grant", place, f"{role} may not use it", f"grant usage on schema {quoted(seen.schema)} to {role}")
    # where everybody may (public, before PostgreSQL 15), taking it from one role changes nothing
    for role in sorted(seen.creates - {OWNER} if PUBLIC not in seen.creates else ()):
        says = f"{role} may create objects in it"
        yield Change("protect", place, says, f"revoke create on schema {quoted(seen.schema)} from {role}")


def _missing(manifest: Manifest, seen: Seen) -> Iterator[Change]:
    wanted = {right for right in manifest.rights if right.role in _known(seen) and _there(right, seen)}
    for (role, name), rights in _by_object(wanted - seen.rights):
        statement = f"grant {_listed(rights)} on {quoted(name)} to {role}"
        yield Change("grant", f"rights of {role} on {name}", f"lacks {_listed(rights)}", statement)


def _excess(manifest: Manifest, seen: Seen) -> Iterator[Change]:
    """Of our own roles and of everybody; what was given to others is theirs."""
    ours = {right for right in seen.rights if right.role in {*manifest.roles, PUBLIC}}
    for (role, name), rights in _by_object(ours - manifest.rights):
        statement = f"revoke {_listed(rights)} on {quoted(name)} from {role}"
        yield Change("protect", f"rights of {role} on {name}", f"has {_listed(rights)}, and should not", statement)


def _known(seen: Seen) -> set[str]:
    return {*seen.roles, PUBLIC}


def _there(right: Right, seen: Seen) -> bool:
    relation = seen.relations.get(right.object)
    return relation is not None and (not right.column or right.column in relation.columns)


def _by_object(rights: Collection[Right]) -> Iterator[tuple[tuple[str, str], list[Right]]]:
    for key, found in groupby(sorted(rights), key=lambda right: (right.role, right.object)):
        yield key, list(found)


def _listed(rights: Sequence[Right]) -> str:
    """`delete, insert (a, b)`"""
    parts = []
    for privilege, found in groupby(rights, key=lambda right: right.privilege):
        columns = [right.column for right in found]
        if "" in columns:
            parts.append(privilege)
        if named := [quoted(column) for column in columns if column]:
            parts.append(f"{privilege} ({', '.join(named)})")
    return ", ".join(parts)
