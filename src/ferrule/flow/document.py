"""A flow file, read into a frozen spec in which everything knows where it stands.

Two dialects give the same spec: ferrule's own (``source``, ``steps``, ``sink``) and EKB's (``steps`` alone, each with
a ``connector_type`` or a ``processor_type``). Nothing here knows which plugins exist; :mod:`ferrule.flow.lint` does.

What the reader decides:

- A key that is not known is an error; there are none that are accepted and do nothing.
- ``${NAME}`` and ``${NAME:-default}`` stand for environment variables in every value, never in keys; the default is
  taken when the variable is unset or empty, and ``$${`` is a literal ``${``. What was put in stays text, unless the
  variable is a whole value without quotes: that is read as YAML reads a plain word, so ``limit: ${LIMIT}`` may be a
  number. It never becomes a list or a mapping.
- The path of a plugin library is relative to the flow file's folder, because the two travel together (one that is set
  from outside: to the working directory). Paths inside ``config`` are the plugin's own business, so they are left as
  they are, and are relative to the working directory, like ``delivery.dead_letter``.
- A step is named after its plugin. Where that gives a name twice, the second gets a number (``redact-2``).
- An error stands at the key whose entry is wrong (in a list, at the item), and one about a variable at its value.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ferrule.errors import FlowError, PluginError
from ferrule.flow.names import LIBRARY, is_ekb, numbered, short_name
from ferrule.flow.nodes import (
    Branch,
    Listing,
    Mark,
    Node,
    Scalar,
    describe,
    describe_value,
    is_null,
    read_nodes,
    scalar_value,
)
from ferrule.flow.overrides import Overrides, apply
from ferrule.flow.spec import ExpectedError, FlowSpec, ItemSpec, Kind, OnError, Retry, Role, TrialSpec, Where

__all__ = [
    "Document",
    "FlowSpec",
    "ItemSpec",
    "OnError",
    "Overrides",
    "Retry",
    "Role",
    "raise_all",
    "read_document",
    "read_text",
]

MAX_BYTES = 1 << 20
"""Size of a flow file. The reader takes seconds for more, and a flow has a few hundred lines."""

_KIND: dict[Role, Kind] = {"source": "source", "step": "function", "sink": "sink"}
_ON_ERROR: tuple[OnError, ...] = ("fail", "skip", "dead_letter")


@dataclass(frozen=True, slots=True)
class Document:
    """What reading a flow file gave.

    Attributes:
        path: The file as it was named, or None.
        spec: The flow, or None if there are errors.
        items: Every item that could be read, also when others could not, so that they can be checked further.
        errors: In the file's order.
    """

    path: Path | None
    spec: FlowSpec | None
    items: tuple[ItemSpec, ...]
    errors: tuple[FlowError, ...]

    def require(self) -> FlowSpec:
        """The spec.

        Raises:
            FlowError: There are errors: the first, with the others as its notes.
        """
        if self.spec is None:
            raise_all(self.errors)
        return self.spec


def raise_all(errors: Sequence[FlowError]) -> NoReturn:
    """Raise the first of `errors`; the others become its notes (``__notes__``), one each."""
    first, *others = errors
    for other in others:
        first.add_note(str(other))
    raise first


def in_order(errors: Iterable[FlowError]) -> tuple[FlowError, ...]:
    """By position; errors that concern the whole file come first."""
    return tuple(sorted(errors, key=lambda error: (error.line or 0, error.column or 0)))


def read_document(
    path: Path | str, *, environ: Mapping[str, str] | None = None, set: Overrides | None = None
) -> Document:
    """Read a flow file. Never raises for what the file holds: see :attr:`Document.errors`.

    Args:
        path: The file.
        environ: For ``${NAME}``; None is the process's environment.
        set: Values that replace the file's, by dotted key; a step by its number from 0 or its name.
    """
    path = Path(path)
    try:
        text = _load(path)
    except FlowError as error:
        return Document(path, None, (), (error,))
    return _read(text, path, environ, set)


def read_text(text: str, *, environ: Mapping[str, str] | None = None, set: Overrides | None = None) -> Document:
    """Read a flow that is not in a file; library paths are relative to the working directory."""
    return _read(text, None, environ, set)


def _load(path: Path) -> str:
    """The file's text.

    Raises:
        FlowError: It cannot be read, is no file, is too large, is empty or is not UTF-8.
    """
    try:
        if path.is_dir():
            raise FlowError("this is a folder, not a flow file", path=path, hint="Name the YAML file in it.")
        if not path.exists():
            raise FlowError("there is no such file", path=path, hint=_near_file(path))
        if not path.is_file():
            raise FlowError("this is no regular file", path=path, hint="A flow is read from a YAML file.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FlowError(f"cannot be read: {error.strerror or error}", path=path) from error
    if len(data) > MAX_BYTES:
        raise FlowError(
            f"this is larger than {MAX_BYTES >> 20} MiB, which no flow file is",
            path=path,
            hint="Is it data? A flow names its data file in the source's config.",
        )
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        raise FlowError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            path=path,
            line=data.count(b"\n", 0, error.start) + 1,
            column=len(data[start : error.start].decode("utf-8", "replace")) + 1,
            hint="Save the file as UTF-8.",
        ) from None


def _near_file(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None if path.parent.exists() else f"There is no folder {path.parent} either."
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else None


def _read(text: str, path: Path | None, environ: Mapping[str, str] | None, overrides: Overrides | None) -> Document:
    root, errors = read_nodes(text, path)
    walk = _Walk(path, os.environ if environ is None else environ, errors)
    if root is None and not errors:
        walk.fail(Mark(None, None), "the file is empty", "A flow needs at least source and sink.")
    if root is None:
        return Document(path, None, (), in_order(errors))
    if isinstance(root, Branch) and overrides is not None:
        root = apply(root, overrides, walk.fail)
    spec, items = walk.flow(root)
    return Document(path, None if errors else spec, items, in_order(errors))


# --- from nodes to the spec -----------------------------------------------------------------------

_FLOW_KEYS = ("name", "source", "steps", "sink", "on_error", "delivery", "lanes", "order", "tests")
_EKB_FLOW_KEYS = ("name", "steps", "on_error", "delivery", "lanes", "order", "tests")
_ITEM_KEYS = ("plugin", "python", "name", "config", "language", "on_error")
_EKB_ITEM_KEYS = ("connector_type", "processor_type", "name", "config", "on_error")
_DELIVERY_KEYS = ("dead_letter", "checkpoint", "durable")
_RETRY_KEYS = ("attempts", "backoff")
_BACKOFF_KEYS = ("initial", "factor", "max", "jitter")
_TEST_KEYS = ("name", "given", "expect", "errors", "ignore")
_ERROR_KEYS = ("record", "step", "status", "message")
_STATUSES = sorted(error.status_name for error in PluginError.__subclasses__())
_RETRY = Retry()
_ORDERS = ("source", "any")
MAX_LANES = 256
_EKB_TYPES = {
    f"{language}_{contract}": (language, role)
    for language in ("rust", "c", "python")
    for contract, role in (("source_connector", "source"), ("enrichment_function", "step"), ("sink_connector", "sink"))
}
_PYTHON_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<body>[^{}]*)\}|\$\{")
_VARIABLE_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Entry:
    mark: Mark
    node: Node


_Entries = dict[str, _Entry]


_Chosen = tuple[OnError, Mark, Retry | None]


@dataclass(slots=True)
class _Draft:
    """An item before names and on_error are settled."""

    role: Role
    reference: str
    own_name: tuple[str, Mark] | None
    plugin: str | None
    python: str | None
    language: str | None
    config: dict[str, Any]
    on_error: _Chosen | None
    mark: Mark
    marks: dict[Where, Mark]


class _Walk:
    """Turns nodes into a spec, and collects every error on the way."""

    def __init__(self, path: Path | None, environ: Mapping[str, str], errors: list[FlowError]) -> None:
        self.path = path
        self.environ = environ
        self.errors = errors
        self.folder = Path.cwd() if path is None else Path(os.path.abspath(path)).parent

    def fail(self, mark: Mark, problem: str, hint: str | None = None) -> None:
        if mark.override is not None:
            problem = f"{problem} (set by {mark.override!r})"
        self.errors.append(FlowError(problem, path=self.path, line=mark.line, column=mark.column, hint=hint))

    # --- the flow ---

    def flow(self, root: Node) -> tuple[FlowSpec | None, tuple[ItemSpec, ...]]:
        if not isinstance(root, Branch):
            self.fail(
                root.mark,
                f"a flow is a mapping with source, steps and sink, not {describe(root)}",
                "Begin with 'source:'.",
            )
            return None, ()
        ekb = is_ekb(root)
        top = self.entries(root, _EKB_FLOW_KEYS if ekb else _FLOW_KEYS, "a flow in EKB's keys" if ekb else "a flow")
        name = self.text(top.get("name"), "name") or (self.path.stem if self.path else "flow")
        default = self.on_error(top.get("on_error"))
        drafts = self.ekb_items(root, top) if ekb else self.own_items(root, top)
        dead_letter, checkpoint, durable = self.delivery(top.get("delivery"))
        lanes = self.lanes(top.get("lanes"))
        in_order = self.order(top.get("order"))
        names = self.names(drafts)
        step_names = [name for name, draft in zip(names, drafts, strict=True) if draft.role == "step"]
        tests = self.tests(top.get("tests"), step_names)
        items = tuple(
            ItemSpec(
                role=draft.role,
                kind=_KIND[draft.role],
                name=names[index],
                plugin=draft.plugin,
                python=draft.python,
                language=draft.language,
                config=draft.config,
                on_error=(draft.on_error or default or ("fail", root.mark, None))[0],
                retry=(draft.on_error or default or ("fail", root.mark, None))[2],
                mark=draft.mark,
                marks=draft.marks,
            )
            for index, draft in enumerate(drafts)
        )
        self.require_dead_letter(top, dead_letter, default, drafts)
        source = next((item for item in items if item.role == "source"), None)
        sink = next((item for item in items if item.role == "sink"), None)
        if source is None or sink is None:
            return None, items
        steps = tuple(item for item in items if item.role == "step")
        path = None if self.path is None else Path(os.path.abspath(self.path))
        spec = FlowSpec(name, path, source, steps, sink, dead_letter, checkpoint, durable, lanes, in_order, tests)
        return spec, items

    def require_dead_letter(
        self,
        top: _Entries,
        dead_letter: Path | None,
        default: _Chosen | None,
        drafts: list[_Draft],
    ) -> None:
        delivery = top["delivery"].node if "delivery" in top else None
        if dead_letter is not None or (isinstance(delivery, Branch) and "dead_letter" in delivery.entries):
            return  # it is there; if it is wrong, that has been said
        for chosen in (default, *(draft.on_error for draft in drafts)):
            if chosen is not None and chosen[0] == "dead_letter":
                self.fail(
                    chosen[1],
                    "on_error: dead_letter has no file to put records in",
                    "Add 'delivery: {dead_letter: FILE}' to the flow.",
                )

    def own_items(self, root: Branch, top: _Entries) -> list[_Draft]:
        drafts = []
        for role in ("source", "sink"):
            if role not in top and role not in root.entries:
                self.fail(root.mark, f"the flow has no {role}", f"Add '{role}: {{plugin: NAME}}'.")
        if "source" in top:
            drafts.append(self.own_item("source", top["source"]))
        for entry in self.listing(top.get("steps"), "steps"):
            drafts.append(self.own_item("step", entry))
        if "sink" in top:
            drafts.append(self.own_item("sink", top["sink"]))
        return [draft for draft in drafts if draft is not None]

    def own_item(self, role: Role, entry: _Entry) -> _Draft | None:
        what = {"source": "the source", "step": "a step", "sink": "the sink"}[role]
        if not isinstance(entry.node, Branch):
            self.fail(
                entry.mark,
                f"{what} is a mapping, for example {{plugin: NAME}}, not {describe(entry.node)}",
                f"Write '{{plugin: {entry.node.text}}}'."
                if isinstance(entry.node, Scalar) and re.fullmatch(r"[A-Za-z][\w.-]*", entry.node.text)
                else None,
            )
            return None
        before = len(self.errors)
        entries = self.entries(entry.node, _ITEM_KEYS, what)
        if "plugin" in entries and "python" in entries:
            self.fail(entries["python"].mark, f"{what} has both plugin and python", "Keep one.")
        elif "plugin" not in entries and "python" not in entries and len(self.errors) == before:
            self.fail(entry.mark, f"{what} names no plugin", "Add 'plugin: NAME' or 'python: MODULE:NAME'.")
        plugin = self.text(entries.get("plugin"), "plugin")
        python = self.text(entries.get("python"), "python")
        if python is not None:
            python = self.python_name(entries["python"].mark, python)
            if "language" in entries:
                self.fail(entries["language"].mark, "language goes with plugin, not with python", "Take it out.")
        return self.draft(role, entry, entries, plugin, python, self.text(entries.get("language"), "language"))

    def ekb_items(self, root: Branch, top: _Entries) -> list[_Draft]:
        drafts: list[_Draft] = []
        for entry in self.listing(top.get("steps"), "steps"):
            draft = self.ekb_item(entry)
            if draft is not None:
                self.check_order(draft, drafts)
                drafts.append(draft)
        complete = not self.errors
        for role in ("source", "sink"):
            if complete and not any(draft.role == role for draft in drafts):
                self.fail(
                    top["steps"].mark,
                    f"no step is the {role}",
                    f"Add one with 'connector_type: rust_{role}_connector' (or c_, python_).",
                )
        return drafts

    def check_order(self, draft: _Draft, before: list[_Draft]) -> None:
        """Records go from the first step to the last, so a file in another order would not say what happens."""
        key = "processor_type" if draft.role == "step" else "connector_type"
        mark = draft.marks[(key,)]
        roles = [earlier.role for earlier in before]
        if draft.role == "source" and "source" in roles:
            self.fail(mark, "a second source; a flow has one", "Make another flow of it.")
        elif draft.role == "sink" and "sink" in roles:
            self.fail(mark, "a second sink; a flow has one", "Make another flow of it.")
        elif draft.role == "source" and before:
            self.fail(mark, "the source is not the first step", "Move it to the top of steps.")
        elif "sink" in roles:
            self.fail(mark, "a step stands after the sink", "Move the sink to the end of steps.")

    def ekb_item(self, entry: _Entry) -> _Draft | None:
        if not isinstance(entry.node, Branch):
            found = describe(entry.node)
            self.fail(entry.mark, f"a step is a mapping with connector_type or processor_type, not {found}")
            return None
        entries = self.entries(entry.node, _EKB_ITEM_KEYS, "a step in EKB's keys")
        given = [key for key in ("connector_type", "processor_type") if key in entries]
        if len(given) != 1:
            self.fail(
                entries[given[1]].mark if given else entry.mark,
                "a step has one of connector_type and processor_type, not " + ("both" if given else "neither"),
                None if given else "Add 'processor_type: rust_enrichment_function', for example.",
            )
            return None
        key = given[0]
        kind = self.text(entries[key], key)
        if kind is None:
            return None
        allowed = [name for name, (_, role) in _EKB_TYPES.items() if (role == "step") == (key == "processor_type")]
        if kind not in allowed:
            self.fail(entries[key].mark, f"{key} is {kind!r}; expected {_one_of(allowed)}", _near(kind, allowed))
            return None
        language, role = _EKB_TYPES[kind]
        name = self.text(entries.get("name"), "name")
        if "name" not in entries:
            self.fail(entry.mark, "the step names no plugin", "Add 'name: PLUGIN'.")
        plugin, python = name, None
        # A Python plugin goes by its name or by where it is written; a Windows path has a colon as well.
        if language == "python" and name is not None and ":" in name and not LIBRARY.fullmatch(name):
            plugin, python = None, self.python_name(entries["name"].mark, name)
        entries = {"plugin" if key == "name" else key: value for key, value in entries.items()}
        assert role in ("source", "step", "sink")
        return self.draft(role, entry, entries, plugin, python, None if python else language)  # type: ignore[arg-type]

    def draft(
        self,
        role: Role,
        entry: _Entry,
        entries: _Entries,
        plugin: str | None,
        python: str | None,
        language: str | None,
    ) -> _Draft:
        marks: dict[Where, Mark] = {(key,): value.mark for key, value in entries.items()}
        own_name = self.text(entries.get("name"), "name")
        reference = short_name(plugin or python or role)
        if plugin is not None and LIBRARY.fullmatch(plugin):
            folder = self.folder if marks["plugin",].override is None else Path.cwd()
            plugin = os.path.normpath(os.path.join(folder, plugin))
        return _Draft(
            role=role,
            reference=reference,
            own_name=None if own_name is None else (own_name, entries["name"].mark),
            plugin=plugin,
            python=python,
            language=language,
            config=self.config(entries.get("config"), marks),
            on_error=self.on_error(entries.get("on_error")),
            mark=entry.mark,
            marks=marks,
        )

    def names(self, drafts: list[_Draft]) -> list[str]:
        """A name for each item: its own, or its plugin's with a number where that is taken."""
        taken: dict[str, Mark] = {}
        for draft in drafts:
            if draft.own_name is None:
                continue
            name, mark = draft.own_name
            if name in taken:
                first = taken[name].line
                self.fail(mark, f"name {name!r} is taken" + (f" by line {first}" if first else ""), "Give it another.")
            taken.setdefault(name, mark)
        return [draft.own_name[0] if draft.own_name else numbered(draft.reference, taken) for draft in drafts]

    def delivery(self, entry: _Entry | None) -> tuple[Path | None, Path | None, bool]:
        if entry is None or is_null(entry.node):
            return None, None, False
        if not isinstance(entry.node, Branch):
            self.fail(entry.mark, f"delivery is a mapping, {{dead_letter: FILE}}, not {describe(entry.node)}")
            return None, None, False
        entries = self.entries(entry.node, _DELIVERY_KEYS, "delivery")
        dead_letter = self.text(entries.get("dead_letter"), "dead_letter")
        checkpoint = self.text(entries.get("checkpoint"), "checkpoint")
        durable = self.flag(entries.get("durable"), "durable")
        if durable and "checkpoint" not in entries:
            self.fail(
                entries["durable"].mark,
                "durable: true has no checkpoint that could wait for the disk",
                "Add 'checkpoint: FILE' beside it.",
            )
        return (
            None if dead_letter is None else Path(dead_letter),
            None if checkpoint is None else Path(checkpoint),
            durable,
        )

    def lanes(self, entry: _Entry | None) -> int:
        if entry is not None and isinstance(entry.node, Scalar) and self.scalar(entry.node) == (True, "auto"):
            return 0
        return int(self.number(entry, "lanes", 1, least=1, most=MAX_LANES, whole=True, other=" or 'auto'"))

    def order(self, entry: _Entry | None) -> bool:
        if entry is None:
            return True
        value = self.text(entry, "order")
        if value is not None and value not in _ORDERS:
            self.fail(entry.mark, f"order is {_one_of(_ORDERS)}, not {value!r}", _near(value, _ORDERS))
        return value != "any"

    def retry(self, entry: _Entry) -> Retry | None:
        """``{attempts, backoff: {initial, factor, max, jitter}}``, every one with a default."""
        if is_null(entry.node):
            return Retry()
        if not isinstance(entry.node, Branch):
            self.fail(entry.mark, f"retry is a mapping, {{attempts: 3}}, not {describe(entry.node)}")
            return None
        entries = self.entries(entry.node, _RETRY_KEYS, "retry")
        attempts = int(
            self.number(entries.get("attempts"), "attempts", _RETRY.attempts, least=1, most=10**6, whole=True)
        )
        backoff = entries.get("backoff")
        if backoff is None:
            return Retry(attempts)
        if not isinstance(backoff.node, Branch):
            self.fail(backoff.mark, f"backoff is a mapping, {{initial: 0.1}}, not {describe(backoff.node)}")
            return None
        found = self.entries(backoff.node, _BACKOFF_KEYS, "backoff")
        initial = self.number(found.get("initial"), "initial", _RETRY.initial, least=0, most=86_400)
        factor = self.number(found.get("factor"), "factor", _RETRY.factor, least=1, most=1000)
        most = self.number(found.get("max"), "max", _RETRY.max, least=0, most=86_400)
        jitter = self.number(found.get("jitter"), "jitter", _RETRY.jitter, least=0, most=1)
        if initial > most:
            where = found.get("initial") or found["max"]
            self.fail(where.mark, f"initial is {initial:g} s, and max is less: {most:g} s", "Set both.")
        return Retry(attempts, initial, factor, most, jitter)

    # --- tests ---

    def tests(self, entry: _Entry | None, steps: list[str]) -> tuple[TrialSpec, ...]:
        found: list[TrialSpec] = []
        lines: dict[str, int | None] = {}
        for each in self.listing(entry, "tests", "Begin each test with '- name: '."):
            test = self.test(each, steps)
            if test is None:
                continue
            if test.name in lines:
                by = f" by line {lines[test.name]}" if lines[test.name] else ""
                self.fail(test.mark, f"test name {test.name!r} is taken{by}", "Give it another.")
            lines.setdefault(test.name, test.mark.line)
            found.append(test)
        return tuple(found)

    def test(self, entry: _Entry, steps: list[str]) -> TrialSpec | None:
        if not isinstance(entry.node, Branch):
            self.fail(
                entry.mark, f"a test is a mapping, {{name: …, given: […], expect: […]}}, not {describe(entry.node)}"
            )
            return None
        before = len(self.errors)
        entries = self.entries(entry.node, _TEST_KEYS, "a test")
        if len(self.errors) == before:
            for key in ("name", "given"):
                if key not in entries:
                    self.fail(entry.mark, f"the test has no {key}", f"Add '{key}:'.")
            if "expect" not in entries and "errors" not in entries:
                self.fail(entry.mark, "the test expects nothing", "Add 'expect:' with records, or 'errors:'.")
        if "ignore" in entries and "expect" not in entries:
            self.fail(entries["ignore"].mark, "ignore has no expect whose fields it could leave out", "Take it out.")
        name = self.text(entries.get("name"), "name")
        given = self.records(entries.get("given"), "given")
        expect = self.records(entries.get("expect"), "expect") if "expect" in entries else None
        errors = [
            self.expected_error(each, steps, len(given))
            for each in self.listing(entries.get("errors"), "errors", "Begin each error with '- record: '.")
        ]
        ignore = [
            text
            for each in self.listing(entries.get("ignore"), "ignore", "Write it as [FIELD, FIELD].")
            if (text := self.text(each, "a field to ignore")) is not None
        ]
        if name is None:
            return None
        kept = tuple(error for error in errors if error is not None)
        return TrialSpec(name, given, expect, kept, tuple(ignore), entry.mark)

    def records(self, entry: _Entry | None, what: str) -> tuple[dict[str, Any], ...]:
        found = []
        for each in self.listing(entry, what, "Begin each record with '- '."):
            if isinstance(each.node, Branch):
                found.append(self.value(each.node, (), {}))
            else:
                self.fail(each.mark, f"a record of {what} is a mapping, not {describe(each.node)}")
        return tuple(found)

    def expected_error(self, entry: _Entry, steps: list[str], given: int) -> ExpectedError | None:
        if not isinstance(entry.node, Branch):
            example = "{record: 1, status: INVALID_DATA}"
            self.fail(entry.mark, f"an error is a mapping, {example}, not {describe(entry.node)}")
            return None
        before = len(self.errors)
        entries = self.entries(entry.node, _ERROR_KEYS, "an error")
        if not entries and len(self.errors) == before:
            self.fail(entry.mark, "the error says nothing of itself", f"It may say {', '.join(_ERROR_KEYS)}.")
        record = None
        if "record" in entries:
            other = f": the test gives {given}"
            record = int(self.number(entries["record"], "record", 0, least=1, most=given or 1, whole=True, other=other))
        step, status = (self.text(entries.get(key), key) for key in ("step", "status"))
        if step is not None and step not in steps:
            self.fail(entries["step"].mark, f"no step has the name {step!r}", _known(step, steps))
        if status is not None and status not in _STATUSES:
            self.fail(entries["status"].mark, f"there is no status {status!r}", _known(status, _STATUSES))
        return ExpectedError(record, step, status, self.text(entries.get("message"), "message"), entry.mark)

    # --- values ---

    def entries(self, node: Branch, known: Sequence[str], what: str) -> _Entries:
        """The mapping's entries; those with a key that is not known are reported and left out."""
        found = {}
        for key, (mark, value) in node.entries.items():
            if key in known:
                found[key] = _Entry(mark, value)
            else:
                hint = _near(key, known) or f"Known keys are {', '.join(known)}."
                self.fail(mark, f"{what} has no key {key!r}", hint)
        return found

    def listing(self, entry: _Entry | None, what: str, hint: str = "Begin each step with '- '.") -> list[_Entry]:
        if entry is None or is_null(entry.node):
            return []
        if isinstance(entry.node, Listing):
            return [_Entry(item.mark, item) for item in entry.node.items]
        self.fail(entry.mark, f"{what} is a list, not {describe(entry.node)}", hint)
        return []

    def text(self, entry: _Entry | None, what: str) -> str | None:
        """A value that must be text and not empty; None if it is not there, or is wrong and was reported."""
        if entry is None:
            return None
        if not isinstance(entry.node, Scalar):
            self.fail(entry.mark, f"{what} is text, not {describe(entry.node)}")
            return None
        ok, value = self.scalar(entry.node)
        if not ok:
            return None
        if not isinstance(value, str):
            quoted = f' Write it in quotes: {what}: "{entry.node.text}".' if entry.node.text else ""
            self.fail(entry.mark, f"{what} is text, not {describe_value(value)}", quoted.strip() or None)
            return None
        if not value.strip():
            self.fail(entry.mark, f"{what} is empty")
            return None
        return value

    def python_name(self, mark: Mark, text: str) -> str | None:
        if _PYTHON_NAME.fullmatch(text):
            return text
        self.fail(mark, f"python is MODULE:NAME, not {text!r}", "For example 'my_package.steps:add_total'.")
        return None

    def number(
        self,
        entry: _Entry | None,
        what: str,
        default: float,
        *,
        least: int,
        most: int,
        whole: bool = False,
        other: str = "",
    ) -> float:
        """A number within bounds; the default if it is not there, or is wrong and was reported."""
        if entry is None:
            return default
        kind = "a whole number" if whole else "a number"
        expected = f"{what} is {kind} from {least:,} to {most:,}{other}"
        if not isinstance(entry.node, Scalar):
            self.fail(entry.mark, f"{expected}, not {describe(entry.node)}")
            return default
        ok, value = self.scalar(entry.node)
        if not ok:
            return default
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or not least <= value <= most:
            self.fail(entry.mark, f"{expected}, not {describe_value(value)}")
            return default
        return float(value)

    def flag(self, entry: _Entry | None, what: str) -> bool:
        """True or false; false if it is not there, or is wrong and was reported."""
        if entry is None:
            return False
        if not isinstance(entry.node, Scalar):
            self.fail(entry.mark, f"{what} is true or false, not {describe(entry.node)}")
            return False
        ok, value = self.scalar(entry.node)
        if ok and not isinstance(value, bool):
            self.fail(entry.mark, f"{what} is true or false, not {describe_value(value)}")
        return value is True

    def on_error(self, entry: _Entry | None) -> _Chosen | None:
        if entry is None:
            return None
        if isinstance(entry.node, Branch):
            entries = self.entries(entry.node, ("retry", "then"), "on_error")
            if "retry" not in entries:
                self.fail(entry.mark, "on_error as a mapping is {retry: {…}, then: …}; it has no retry")
                return None
            then = self.on_error(entries.get("then")) if "then" in entries else ("fail", entry.mark, None)
            if then is not None and then[2] is not None:
                self.fail(entries["then"].mark, f"then is {_one_of(_ON_ERROR)}, not another retry")
                return None
            retry = self.retry(entries["retry"])
            return None if then is None or retry is None else (then[0], then[1], retry)
        if not isinstance(entry.node, Scalar):
            self.fail(entry.mark, f"on_error is {_one_of(_ON_ERROR)}, not {describe(entry.node)}")
            return None
        value = self.text(entry, "on_error")
        for known in _ON_ERROR:
            if value == known:
                return known, entry.mark, None
        if value is not None:
            self.fail(entry.mark, f"on_error is {_one_of(_ON_ERROR)}, not {value!r}", _near(value, _ON_ERROR))
        return None

    def config(self, entry: _Entry | None, marks: dict[Where, Mark]) -> dict[str, Any]:
        if entry is None or is_null(entry.node):
            return {}
        if not isinstance(entry.node, Branch):
            self.fail(entry.mark, f"config is a mapping, not {describe(entry.node)}")
            return {}
        value = self.value(entry.node, ("config",), marks)
        assert isinstance(value, dict)
        return value

    def value(self, node: Node, where: Where, marks: dict[Where, Mark]) -> Any:
        """What a node says, variables put in; remembers where everything stands."""
        if isinstance(node, Scalar):
            return self.scalar(node)[1]
        if isinstance(node, Listing):
            for index, item in enumerate(node.items):
                marks[(*where, index)] = item.mark
            return [self.value(item, (*where, index), marks) for index, item in enumerate(node.items)]
        for key, (mark, _) in node.entries.items():
            marks[(*where, key)] = mark
        return {key: self.value(inner, (*where, key), marks) for key, (_, inner) in node.entries.items()}

    def scalar(self, node: Scalar) -> tuple[bool, Any]:
        """Whether the scalar has a value, and the value."""
        if node.mark.override is None and "${" in node.text:
            text, whole = self.substitute(node)
            if text is None:
                return False, None
            if not (whole and node.plain and node.tag is None):
                # Text around a variable is text, whatever it looks like together.
                return True, text
            node = replace(node, text=text)
        try:
            return True, scalar_value(node)
        except ValueError as error:
            self.fail(node.mark, str(error), "Write it in quotes if it is text.")
            return False, None

    def substitute(self, node: Scalar) -> tuple[str | None, bool]:
        """The text with its variables put in, or None; and whether it was nothing but one variable."""
        pieces: list[str] = []
        good = True
        end = 0
        for match in _VARIABLE.finditer(node.text):
            pieces.append(node.text[end : match.start()])
            end = match.end()
            value = "${" if match[0] == "$${" else self.variable(node.mark, match["body"])
            good = good and value is not None
            pieces.append(value or "")
        pieces.append(node.text[end:])
        only = _VARIABLE.fullmatch(node.text)
        return ("".join(pieces) if good else None), only is not None and only["body"] is not None

    def variable(self, mark: Mark, body: str | None) -> str | None:
        form = None if body is None else _VARIABLE_BODY.fullmatch(body)
        if form is None:
            found = "${" if body is None else f"${{{body}}}"
            expected = "expected ${NAME} or ${NAME:-default}"
            self.fail(mark, f"{found} is no variable; {expected}", "Write $${ for a plain ${.")
            return None
        value = self.environ.get(form["name"])
        if form["default"] is not None and not value:
            return form["default"]
        if value is None:
            known = [name for name in self.environ if name.upper() == name]
            near = difflib.get_close_matches(form["name"], known, n=1, cutoff=0.8)
            hint = f"Set it, or give a default: ${{{form['name']}:-VALUE}}."
            self.fail(
                mark,
                f"variable {form['name']} is not set",
                f"Did you mean {near[0]}? Otherwise set it, or give a default." if near else hint,
            )
        return value


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _near(name: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else None


def _known(name: str, known: Sequence[str]) -> str:
    return _near(name, known) or (f"Known are {', '.join(known)}." if known else "There are none.")
