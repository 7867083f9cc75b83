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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from ferrule.errors import FlowError
from ferrule.flow.nodes import Branch, Listing, Mark, Node, Scalar, node_of, read_nodes, scalar_value

__all__ = [
    "Document",
    "FlowSpec",
    "ItemSpec",
    "OnError",
    "Role",
    "raise_all",
    "read_document",
    "read_text",
]

MAX_BYTES = 1 << 20
"""Size of a flow file. The reader takes seconds for more, and a flow has a few hundred lines."""

Role = Literal["source", "step", "sink"]
OnError = Literal["fail", "skip", "dead_letter"]
Kind = Literal["source", "function", "sink"]
Overrides = Mapping[str, Any] | Iterable[str]
"""``{"source.config.path": "x"}``, or ``["source.config.path=x"]`` with values as they are typed on a command line."""

Where = tuple[str | int, ...]
"""A place inside an item: ``("config", "fields", 0)``."""

_KIND: dict[Role, Kind] = {"source": "source", "step": "function", "sink": "sink"}
_ON_ERROR: tuple[OnError, ...] = ("fail", "skip", "dead_letter")


@dataclass(frozen=True, slots=True)
class ItemSpec:
    """The source, a step or the sink.

    Attributes:
        role: Which of the three.
        kind: The kind of plugin that it takes.
        name: Unique in the flow: the step's own name, or the plugin's.
        plugin: Name of a plugin, or ``LIB`` or ``LIB:PLUGIN`` with an absolute path; None if `python` is given.
        python: ``module:name``, or None.
        language: The language that the plugin must be in, or None for any.
        config: As the file says it, before defaults are filled in.
        on_error: The item's own, or the flow's.
        mark: Where the item begins.
        marks: Where each of its keys and list items stands.
    """

    role: Role
    kind: Kind
    name: str
    plugin: str | None
    python: str | None
    language: str | None
    config: dict[str, Any]
    on_error: OnError
    mark: Mark
    marks: Mapping[Where, Mark] = field(repr=False, compare=False)

    def mark_of(self, *where: str | int) -> Mark:
        """Where `where` stands, or else the innermost thing around it that the file does have."""
        for length in range(len(where), 0, -1):
            found = self.marks.get(where[:length])
            if found is not None:
                return found
        return self.mark


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """A whole flow, all of it well-formed.

    Attributes:
        name: The flow's name; the file's stem if it gives none.
        path: The file, absolute; None for a flow that was given as text.
        source: Where records come from.
        steps: In order; may be empty.
        sink: Where they go.
        dead_letter: File for the records that an ``on_error: dead_letter`` puts aside, or None.
    """

    name: str
    path: Path | None
    source: ItemSpec
    steps: tuple[ItemSpec, ...]
    sink: ItemSpec
    dead_letter: Path | None

    @property
    def items(self) -> tuple[ItemSpec, ...]:
        """Source, steps, sink."""
        return (self.source, *self.steps, self.sink)


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
    if isinstance(root, Branch):
        root = walk.apply(root, overrides)
    spec, items = walk.flow(root)
    return Document(path, None if errors else spec, items, in_order(errors))


# --- from nodes to the spec -----------------------------------------------------------------------

_FLOW_KEYS = ("name", "source", "steps", "sink", "on_error", "delivery")
_EKB_FLOW_KEYS = ("name", "steps", "on_error", "delivery")
_ITEM_KEYS = ("plugin", "python", "name", "config", "language", "on_error")
_EKB_ITEM_KEYS = ("connector_type", "processor_type", "name", "config", "on_error")
_DELIVERY_KEYS = ("dead_letter",)
_EKB_TYPES = {
    f"{language}_{contract}": (language, role)
    for language in ("rust", "c", "python")
    for contract, role in (("source_connector", "source"), ("enrichment_function", "step"), ("sink_connector", "sink"))
}
_LIBRARY = re.compile(r"(?P<path>.*\.(?:so|dylib|dll)|.*[/\\][^:]*)(?::(?P<plugin>[^:/\\]+))?", re.DOTALL)
_PYTHON_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<body>[^{}]*)\}|\$\{")
_VARIABLE_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Entry:
    mark: Mark
    node: Node


_Entries = dict[str, _Entry]


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
    on_error: tuple[OnError, Mark] | None
    mark: Mark
    marks: dict[Where, Mark]


class _Walk:
    """Turns nodes into a spec, and collects every error on the way."""

    def __init__(self, path: Path | None, environ: Mapping[str, str], errors: list[FlowError]) -> None:
        self.path = path
        self.environ = environ
        self.errors = errors
        self.step_names: list[str] = []
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
                f"a flow is a mapping with source, steps and sink, not {_describe(root)}",
                "Begin with 'source:'.",
            )
            return None, ()
        ekb = _is_ekb(root)
        top = self.entries(root, _EKB_FLOW_KEYS if ekb else _FLOW_KEYS, "a flow in EKB's keys" if ekb else "a flow")
        name = self.text(top.get("name"), "name") or (self.path.stem if self.path else "flow")
        default = self.on_error(top.get("on_error"))
        drafts = self.ekb_items(root, top) if ekb else self.own_items(root, top)
        dead_letter = self.delivery(top.get("delivery"))
        names = self.names(drafts)
        items = tuple(
            ItemSpec(
                role=draft.role,
                kind=_KIND[draft.role],
                name=names[index],
                plugin=draft.plugin,
                python=draft.python,
                language=draft.language,
                config=draft.config,
                on_error=(draft.on_error or default or ("fail", root.mark))[0],
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
        return FlowSpec(name, path, source, steps, sink, dead_letter), items

    def require_dead_letter(
        self,
        top: _Entries,
        dead_letter: Path | None,
        default: tuple[OnError, Mark] | None,
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
                f"{what} is a mapping, for example {{plugin: NAME}}, not {_describe(entry.node)}",
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
            found = _describe(entry.node)
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
        if language == "python" and name is not None and ":" in name and not _LIBRARY.fullmatch(name):
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
        reference = _short_name(plugin or python or role)
        if plugin is not None and _LIBRARY.fullmatch(plugin):
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
        return [draft.own_name[0] if draft.own_name else _number(draft.reference, taken) for draft in drafts]

    def delivery(self, entry: _Entry | None) -> Path | None:
        if entry is None or _is_null(entry.node):
            return None
        if not isinstance(entry.node, Branch):
            self.fail(entry.mark, f"delivery is a mapping, {{dead_letter: FILE}}, not {_describe(entry.node)}")
            return None
        found = self.text(self.entries(entry.node, _DELIVERY_KEYS, "delivery").get("dead_letter"), "dead_letter")
        return None if found is None else Path(found)

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

    def listing(self, entry: _Entry | None, what: str) -> list[_Entry]:
        if entry is None or _is_null(entry.node):
            return []
        if isinstance(entry.node, Listing):
            return [_Entry(item.mark, item) for item in entry.node.items]
        self.fail(entry.mark, f"{what} is a list, not {_describe(entry.node)}", "Begin each step with '- '.")
        return []

    def text(self, entry: _Entry | None, what: str) -> str | None:
        """A value that must be text and not empty; None if it is not there, or is wrong and was reported."""
        if entry is None:
            return None
        if not isinstance(entry.node, Scalar):
            self.fail(entry.mark, f"{what} is text, not {_describe(entry.node)}")
            return None
        ok, value = self.scalar(entry.node)
        if not ok:
            return None
        if not isinstance(value, str):
            quoted = f' Write it in quotes: {what}: "{entry.node.text}".' if entry.node.text else ""
            self.fail(entry.mark, f"{what} is text, not {_describe_value(value)}", quoted.strip() or None)
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

    def on_error(self, entry: _Entry | None) -> tuple[OnError, Mark] | None:
        if entry is None:
            return None
        if not isinstance(entry.node, Scalar):
            self.fail(entry.mark, f"on_error is {_one_of(_ON_ERROR)}, not {_describe(entry.node)}")
            return None
        value = self.text(entry, "on_error")
        for known in _ON_ERROR:
            if value == known:
                return known, entry.mark
        if value is not None:
            self.fail(entry.mark, f"on_error is {_one_of(_ON_ERROR)}, not {value!r}", _near(value, _ON_ERROR))
        return None

    def config(self, entry: _Entry | None, marks: dict[Where, Mark]) -> dict[str, Any]:
        if entry is None or _is_null(entry.node):
            return {}
        if not isinstance(entry.node, Branch):
            self.fail(entry.mark, f"config is a mapping, not {_describe(entry.node)}")
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

    # --- values from outside the file ---

    def apply(self, root: Branch, overrides: Overrides | None) -> Branch:
        """`root` with the overrides in it; what cannot be set is reported."""
        pairs: Iterable[tuple[str, Node]]
        if overrides is None:
            return root
        if isinstance(overrides, Mapping):
            pairs = [(key, node_of(value, Mark(None, None, f"{key}={value}"))) for key, value in overrides.items()]
        else:
            pairs = [pair for text in overrides if (pair := self.override(text)) is not None]
        self.step_names = _step_names(root)
        for key, value in pairs:
            changed = self.put(root, _split_key(root, key), value, ())
            if isinstance(changed, Branch):
                root = changed
        return root

    def override(self, text: str) -> tuple[str, Node] | None:
        """``KEY=VALUE`` as it is typed: VALUE is a plain word of YAML, or a list, mapping or quoted text in YAML."""
        mark = Mark(None, None, text)
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or any(not part.strip() for part in key.split(".")):
            self.fail(mark, "a value is set by KEY=VALUE", "For example 'source.config.path=data.csv'.")
            return None
        if value[:1] not in ("[", "{", '"', "'"):
            return key.strip(), Scalar(value, mark)
        node, errors = read_nodes(value)
        if node is None or errors:
            self.fail(mark, f"{value!r} cannot be read: {errors[0].problem if errors else 'it is empty'}")
            return None
        return key.strip(), _moved(node, mark)

    def put(self, node: Node | None, keys: Sequence[str], value: Node, done: tuple[str, ...]) -> Node | None:
        if not keys:
            return value
        key, *rest = keys
        mark = value.mark
        if node is None or _is_null(node):
            node = Branch({}, mark)
        if isinstance(node, Branch):
            old = node.entries.get(key)
            inner = self.put(old[1] if old else None, rest, value, (*done, key))
            if inner is None:
                return None
            at = mark if old is None or not rest else old[0]
            return replace(node, entries={**node.entries, key: (at, inner)})
        where = ".".join(done)
        if isinstance(node, Scalar):
            self.fail(mark, f"{where} is {_describe(node)}, which has nothing inside it")
            return None
        index = int(key) if key.isascii() and key.isdigit() and len(key) < 9 else -1
        if not 0 <= index < len(node.items):
            has = f"{len(node.items)} entries, numbered from 0" if node.items else "no entries"
            hint = f"Their names are {', '.join(self.step_names)}." if where == "steps" and self.step_names else None
            self.fail(mark, f"{where} has no entry {key!r}; it has {has}", hint)
            return None
        inner = self.put(node.items[index], rest, value, (*done, key))
        if inner is None:
            return None
        return replace(node, items=(*node.items[:index], inner, *node.items[index + 1 :]))


def _is_ekb(root: Branch) -> bool:
    """Whether a step has one of EKB's keys, and nothing at the top says that the file is ferrule's own."""
    steps = root.entries.get("steps")
    if steps is None or not isinstance(steps[1], Listing) or "source" in root.entries or "sink" in root.entries:
        return False
    keys = {"connector_type", "processor_type"}
    return any(isinstance(item, Branch) and not keys.isdisjoint(item.entries) for item in steps[1].items)


def _split_key(root: Branch, key: str) -> list[str]:
    """A dotted key with a step's name made its number, and EKB's source and sink found among its steps."""
    parts = key.split(".")
    steps = _step_entries(root)
    if _is_ekb(root) and parts[0] in ("source", "sink"):
        for index, entries in enumerate(steps):
            if _raw(entries, "connector_type").endswith(f"_{parts[0]}_connector"):
                return ["steps", str(index), *parts[1:]]
    names = _step_names(root)
    if parts[0] == "steps" and len(parts) > 1 and not parts[1].isdigit() and parts[1] in names:
        parts[1] = str(names.index(parts[1]))
    return parts


def _step_entries(root: Branch) -> list[Mapping[str, tuple[Mark, Node]]]:
    steps = root.entries.get("steps")
    if steps is None or not isinstance(steps[1], Listing):
        return []
    return [item.entries if isinstance(item, Branch) else {} for item in steps[1].items]


def _step_names(root: Branch) -> list[str]:
    """The names that the entries of ``steps`` will have; :meth:`_Walk.names` says the same of checked items."""
    steps = _step_entries(root)
    if _is_ekb(root):
        taken: dict[str, Mark] = {}
        return [_number(_short_name(_raw(entries, "name")), taken) for entries in steps]
    source, sink = (
        node.entries if isinstance(node, Branch) else {}
        for node in (root.entries.get(role, (None, None))[1] for role in ("source", "sink"))
    )
    taken = {_raw(entries, "name"): Mark(None, None) for entries in (source, *steps, sink)}
    if not _raw(source, "name"):
        _default_name(source, taken)
    return [_raw(entries, "name") or _default_name(entries, taken) for entries in steps]


def _raw(entries: Mapping[str, tuple[Mark, Node]], key: str) -> str:
    found = entries.get(key)
    return found[1].text if found is not None and isinstance(found[1], Scalar) else ""


def _default_name(entries: Mapping[str, tuple[Mark, Node]], taken: dict[str, Mark]) -> str:
    return _number(_short_name(_raw(entries, "plugin") or _raw(entries, "python")), taken)


def _number(name: str, taken: dict[str, Mark]) -> str:
    """`name`, or `name` with the first free number from 2; it is taken from now on."""
    count, found = 1, name
    while found in taken:
        count += 1
        found = f"{name}-{count}"
    taken[found] = Mark(None, None)
    return found


def _short_name(reference: str) -> str:
    """What to call an item after its plugin: for a library the plugin in it, or the file without lib and ending."""
    library = _LIBRARY.fullmatch(reference)
    if library is None:
        return reference.rpartition(":")[2]
    stem = re.split(r"[/\\]", library["path"])[-1]
    return library["plugin"] or re.sub(r"\.(so|dylib|dll)$", "", stem).removeprefix("lib") or reference


def _moved(node: Node, mark: Mark) -> Node:
    """The node as if all of it stood at `mark`."""
    if isinstance(node, Scalar):
        return replace(node, mark=mark)
    if isinstance(node, Listing):
        return replace(node, mark=mark, items=tuple(_moved(item, mark) for item in node.items))
    entries = {key: (mark, _moved(inner, mark)) for key, (_, inner) in node.entries.items()}
    return replace(node, mark=mark, entries=entries)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.tag is None and plain_is_null(node.text)


def plain_is_null(text: str) -> bool:
    """Whether an unquoted scalar is YAML's null."""
    return "${" not in text and text in ("", "~", "null", "Null", "NULL")


def _describe(node: Node) -> str:
    if isinstance(node, Branch):
        return "a mapping"
    if isinstance(node, Listing):
        return "a list"
    if _is_null(node):
        return "an empty value"
    try:
        return _describe_value(scalar_value(node))
    except ValueError:
        return repr(node.text)


def _describe_value(value: Any) -> str:
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return f"the text {_shorten(str(value))!r}"


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _near(name: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else None
