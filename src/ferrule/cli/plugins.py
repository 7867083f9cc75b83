"""``list`` and ``inspect``: what there is, without running any of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferrule.cli.options import AsJson
from ferrule.cli.output import (
    Failure,
    note,
    print_json,
    print_table,
    write,
)

if TYPE_CHECKING:
    from ferrule.manifest import Method
    from ferrule.plugins.registry import Found

__all__ = ["inspect", "list_plugins"]

# --- list -----------------------------------------------------------------------------------------


def list_plugins(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Only this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the plugins that are found, and why a file is not one.

    Runs nothing of them. Without DIR: those of the search path, which `ferrule doctor` shows.
    """
    from ferrule.plugins.registry import Registry

    if folder is not None and not folder.is_dir():
        raise Failure(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}.")
    scan = Registry().scan() if folder is None else Registry([folder], only=True).scan()
    found = [_found(each) for each in scan.found]
    shadowed = [_found(each) for each in scan.shadowed]
    rejected = [{"path": str(each.path), "problem": each.problem, "hint": each.hint} for each in scan.rejected]
    if as_json:
        print_json({"plugins": found, "shadowed": shadowed, "rejected": rejected})
        return
    columns = ("name", "kind", "language", "version", "from", "description")
    if found:
        print_table(columns, [[str(each[column] or "") for column in columns] for each in found])
    else:
        note("no plugins found; 'ferrule doctor' shows where they are looked for")
    if shadowed:
        write("\nHidden by one of the same kind, name and language that comes first:")
        print_table(("", "", ""), [(f"  {each['name']}", str(each["kind"]), str(each["from"])) for each in shadowed])
    if rejected:
        write("\nNot plugins:")
        print_table(("", ""), [(f"  {each['path']}", str(each["problem"])) for each in rejected])


def _found(found: Found) -> dict[str, Any]:
    """A found plugin for a listing."""
    return {
        "name": found.plugin.name,
        "kind": found.plugin.kind,
        "language": found.plugin.language,
        "version": found.manifest.version,
        "from": str(found.path) if found.path is not None else found.origin,
        "description": found.plugin.description,
    }


# --- inspect --------------------------------------------------------------------------------------


def inspect(
    library: Annotated[str, typer.Argument(metavar="LIB", help="A library file, or the name of a plugin.")],
    as_json: AsJson = False,
) -> None:
    """Show what a library says of itself; runs nothing of it.

    Plugins, methods, configuration, ABI, platform and hash.
    """
    from ferrule.errors import LibraryError
    from ferrule.manifest import parse_manifest
    from ferrule.native.image import read_image

    image = read_image(_library_of(library))
    manifest = parse_manifest(image.manifest_json, image.path)
    try:
        image.require_loadable()
        problem = None
    except LibraryError as error:
        problem = error.problem
    about = {
        "path": str(image.path),
        "size": image.size,
        "sha256": image.sha256,
        "format": image.format,
        "platform": image.platform,
        "abi": ".".join(map(str, image.abi)),
        "loadable": problem is None,
        "problem": problem,
    }
    if as_json:
        print_json({**about, "manifest": json.loads(image.manifest_json)})
        return
    title = f"{manifest.name} {manifest.version or ''}".strip()
    write(f"{title}{f'  ({manifest.license})' if manifest.license else ''}")
    if manifest.description:
        write(manifest.description)
    for name in ("path", "size", "sha256", "platform", "abi"):
        write(f"  {name:<10}{f'{image.size:,} bytes' if name == 'size' else about[name]}")
    if problem:
        write(f"  It cannot be loaded here: {problem}.")
    for plugin in manifest.plugins:
        write(f"\n{plugin.kind} {plugin.name}  ({plugin.language}, {plugin.threading})")
        if plugin.description:
            write(f"  {plugin.description}")
        write("")
        _show_config(plugin.config)
        _show_methods(plugin.methods)


def _library_of(text: str) -> Path:
    """The file that is meant: a path, or where a plugin of that name was found."""
    from ferrule.plugins.registry import Registry

    path = Path(text)
    if path.exists() or path.is_symlink() or len(path.parts) > 1 or path.suffix in (".so", ".dylib", ".dll"):
        return path
    found = Registry().find(None, text)
    if found.path is None:
        raise Failure(f"{text} is a Python plugin ({found.origin}); inspect shows libraries.")
    return found.path


def _show_config(schema: dict[str, Any]) -> None:
    """The fields of a configuration's schema, those of nested objects with dotted names."""
    rows = list(_fields(schema, schema, ""))
    if rows:
        print_table(("  config", "type", "default", "description"), rows)
    else:
        write("  no configuration")
    write("")


def _fields(schema: dict[str, Any], root: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        field = _referred(field, root)
        default = "required" if name in required else ""
        if "default" in field:
            default = json.dumps(field["default"], ensure_ascii=False)
        yield f"  {prefix}{name}", _type(field, root), default, str(field.get("description", ""))
        if field.get("properties") and prefix.count(".") < 8:
            yield from _fields(field, root, f"{prefix}{name}.")


def _referred(field: Any, root: dict[str, Any]) -> dict[str, Any]:
    """The schema behind a local `$ref`."""
    for _ in range(8):
        reference = field.get("$ref") if isinstance(field, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        target: Any = root
        for part in reference[2:].split("/"):
            target = target.get(part, {}) if isinstance(target, dict) else {}
        field = {**target, **{key: value for key, value in field.items() if key != "$ref"}}
    return field if isinstance(field, dict) else {}


def _type(field: dict[str, Any], root: dict[str, Any]) -> str:
    """A field's type in a few words."""
    if "enum" in field:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in field["enum"])
    if "const" in field:
        return json.dumps(field["const"], ensure_ascii=False)
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " | ".join(_type(_referred(each, root), root) for each in field[key])
    kind = field.get("type", "any")
    kinds = kind if isinstance(kind, list) else [kind]
    words = []
    for each in kinds:
        if each == "array" and isinstance(field.get("items"), dict):
            words.append(f"list of {_type(_referred(field['items'], root), root)}")
        elif each == "object" and isinstance(field.get("additionalProperties"), dict):
            words.append(f"map to {_type(_referred(field['additionalProperties'], root), root)}")
        else:
            words.append({"array": "list", "object": "map"}.get(each, str(each)))
    return " | ".join(words)


def _show_methods(methods: Sequence[Method]) -> None:
    short = {
        "application/json": "json",
        "application/x-ndjson": "json lines",
        "application/octet-stream": "bytes",
    }
    rows = []
    for method in methods:
        media = f"{short.get(method.input, method.input)} → {short.get(method.output, method.output)}"
        fed = f"fed {short.get(method.feed_type, method.feed_type)}"
        traits = [
            fed if method.need_feed else f"may be {fed}" if method.feed or method.feed_input else "",
            "cancellable" if method.cancellable else "",
            "metadata" if method.metadata else "",
        ]
        rows.append((f"  {method.name}", method.mode, media, ", ".join(filter(None, traits)), method.description or ""))
    print_table(("  method", "mode", "in → out", "traits", "description"), rows)
    for method in methods:
        for name in ("args", "result", "feed"):
            schema = getattr(method, name, None)
            if isinstance(schema, dict) and isinstance(text := schema.get("text"), str) and "media_type" in schema:
                write(f"    {method.name} {name}, {schema['media_type']}:")
                write(textwrap.indent(text.strip("\n"), "      "))
            elif schema:
                write(f"    {method.name} {name}: {json.dumps(schema, ensure_ascii=False)}")
