//! The header is the truth: what the C compiler says of it is compared with what Rust says of this crate.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use ferrule_sys::*;

fn header() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../include/ferrule.h")
}

/// The header without comments, and the names that it defines: integer macros, and the fields of each struct.
fn declared() -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let text = std::fs::read_to_string(header()).expect("native_sdk/include/ferrule.h lies beside the Rust workspace");
    let begin = text.find("/* ferrule-cdef-begin */").expect("the marker where declarations begin");
    let end = text.find("/* ferrule-cdef-end */").expect("the marker where declarations end");
    let mut plain = String::new();
    let mut rest = &text[begin..end];
    while let Some(open) = rest.find("/*") {
        plain.push_str(&rest[..open]);
        rest = &rest[open + rest[open..].find("*/").expect("a comment ends") + 2..];
    }
    plain.push_str(rest);

    let constants = plain
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .map(|line| line.split_whitespace().next().expect("a macro has a name").to_owned())
        .collect();
    let mut structs = Vec::new();
    let mut rest = plain.as_str();
    while let Some(found) = rest.find("\nstruct ferrule_") {
        rest = &rest[found + "\nstruct ".len()..];
        let open = rest.find('{').expect("a struct has a body");
        let close = rest.find('}').expect("a body ends");
        let name = rest[..open].trim().to_owned();
        structs.push((name, rest[open + 1..close].split(';').flat_map(fields).collect()));
        rest = &rest[close..];
    }
    (constants, structs)
}

/// The names that one declaration of a struct declares: `uint32_t struct_size, flags` or `int32_t (*call)(…)`.
fn fields(declaration: &str) -> Vec<String> {
    let declaration = declaration.trim();
    if declaration.is_empty() {
        return Vec::new();
    }
    if let Some(open) = declaration.find("(*") {
        let close = declaration[open..].find(')').expect("a function pointer's name ends") + open;
        return vec![declaration[open + 2..close].to_owned()];
    }
    declaration
        .split(',')
        .map(|one| {
            let one = one.split('[').next().expect("split gives at least one");
            one.rsplit([' ', '*']).next().expect("split gives at least one").to_owned()
        })
        .collect()
}

macro_rules! constants {
    ($($name:ident)*) => { [$((stringify!($name).to_owned(), i64::from($name))),*] };
}

macro_rules! layouts {
    ($($name:ident { $($field:ident)* })*) => {
        [$(
            (stringify!($name).to_owned(), size_of::<$name>() as i64),
            $((concat!(stringify!($name), ".", stringify!($field)).to_owned(), offset_of!($name, $field) as i64)),*
        ),*]
    };
}

fn rust_says() -> BTreeMap<String, i64> {
    let mut all = BTreeMap::from(constants! {
        FERRULE_ABI_MAJOR FERRULE_ABI_MINOR FERRULE_OK FERRULE_END FERRULE_PENDING FERRULE_SKIP
        FERRULE_INVALID_ARGUMENT FERRULE_INVALID_CONFIG FERRULE_INVALID_DATA FERRULE_INVALID_STATE FERRULE_NOT_FOUND
        FERRULE_UNSUPPORTED FERRULE_UNAUTHENTICATED FERRULE_DENIED FERRULE_UNAVAILABLE FERRULE_TIMEOUT
        FERRULE_CANCELLED FERRULE_OUT_OF_MEMORY FERRULE_IO FERRULE_INTERNAL FERRULE_PANIC
        FERRULE_STREAM_UNLOCKED FERRULE_STREAM_WAKES
    });
    all.extend(layouts! {
        ferrule_manifest { magic abi_major abi_minor json_len }
        ferrule_buffer { struct_size flags data len capacity reserve }
        ferrule_call { struct_size flags id cancelled timeout_ms metadata metadata_len metadata_out }
        ferrule_host { struct_size flags abi_major abi_minor log_enabled log wake query }
        ferrule_instance_ops { struct_size flags method call open query }
        ferrule_instance { ops }
        ferrule_stream_ops { struct_size flags cancel close next feed position metadata query }
        ferrule_stream { ops }
    });
    all
}

fn c_says() -> BTreeMap<String, i64> {
    let (constants, structs) = declared();
    assert!(constants.len() >= 20 && structs.len() >= 8, "the header was not understood: {constants:?} {structs:?}");
    let mut lines = String::new();
    for name in &constants {
        lines.push_str(&format!("    printf(\"{name} %lld\\n\", (long long)({name}));\n"));
    }
    for (name, fields) in &structs {
        lines.push_str(&format!("    printf(\"{name} %lld\\n\", (long long)sizeof(struct {name}));\n"));
        for field in fields {
            lines.push_str(&format!(
                "    printf(\"{name}.{field} %lld\\n\", (long long)offsetof(struct {name}, {field}));\n"
            ));
        }
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("header-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the C program");
    let (source, program) = (folder.join("layout.c"), folder.join("layout"));
    let text = format!("#include <stdio.h>\n#include \"ferrule.h\"\nint main(void) {{\n{lines}    return 0;\n}}\n");
    std::fs::write(&source, text).expect("the C program is written");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(["-std=c99", "-Wall", "-Werror", "-I"])
        .arg(header().parent().expect("a file has a folder"))
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .status()
        .unwrap_or_else(|error| panic!("{compiler}: {error}; a C compiler is needed (CC names another)"));
    assert!(status.success(), "{compiler} refused {}", source.display());
    let output = Command::new(&program).output().expect("the C program runs");
    let _ = std::fs::remove_dir_all(&folder); // only tidiness
    String::from_utf8(output.stdout)
        .expect("names are ASCII")
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').expect("name and value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// Every constant, struct and field of the header is here, with the C compiler's value, size and offset; and nothing
/// that the header lacks.
#[test]
fn the_crate_is_the_header() {
    assert_eq!(rust_says(), c_says());
}
