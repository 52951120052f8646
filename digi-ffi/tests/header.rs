//! `include/digi.h` is what cbindgen makes of the sources, and every item in it is documented.
//! `DIGI_WRITE_HEADER=1` (that is `make header`) writes it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use cbindgen::{Braces, Builder, Config, DocumentationStyle, Language, Style};
use digi_core::{CloseCode, Code};

/// In this order their items stand in the header.
const SOURCES: [&str; 13] = [
    "result", "handle", "cipher", "model", "frame", "session", "engine", "config", "host", "store", "log", "server",
    "consumer",
];

fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The one table of numbers, as constants.
fn numbers() -> String {
    let mut text = String::new();
    let mut define = |prefix: &str, name: &str, number: u16, about: &str| {
        writeln!(text, "/* {about} */\n#define {prefix}{} {number}", name.to_uppercase()).unwrap();
    };
    for code in Code::ALL {
        define("DIGI_ERR_", code.name(), code.number(), code.text());
    }
    for code in CloseCode::ALL {
        define("DIGI_CLOSE_", code.name(), code.number(), code.text());
    }
    text
}

fn generate() -> String {
    let read = |name: &str| fs::read_to_string(crate_file(&format!("header/{name}.h"))).unwrap();
    let version = format!(
        "/* The version that this header belongs to. */\n#define DIGI_VERSION \"{}\"\n",
        env!("CARGO_PKG_VERSION")
    );
    let config = Config {
        language: Language::C,
        cpp_compat: true,
        header: Some(read("top").trim_end().to_owned()),
        include_guard: Some("DIGI_H".into()),
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h", "string.h"].map(Into::into).into(),
        after_includes: Some(format!("\n{version}\n{}", numbers())),
        braces: Braces::SameLine,
        line_length: 110,
        style: Style::Both,
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::C99,
        ..Config::default()
    };
    let mut builder = Builder::new().with_config(config);
    for name in SOURCES {
        builder = builder.with_src(crate_file(&format!("src/{name}.rs")));
    }
    let mut out = Vec::new();
    builder.generate().unwrap().write(&mut out);
    // Not every compiler takes UTF-8 for granted.
    let text = String::from_utf8(out).unwrap().replace('…', "...");
    assert!(text.is_ascii());
    // The helpers need the type that comes before them.
    let marker = "} digi_text;\n";
    assert!(text.contains(marker));
    text.replacen(marker, &format!("{marker}\n{}", read("texts")), 1)
}

#[test]
fn the_header_is_up_to_date() {
    let (path, made) = (crate_file("../include/digi.h"), generate());
    if std::env::var_os("DIGI_WRITE_HEADER").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == made,
        "include/digi.h differs from the sources: make header"
    );
}

/// Struct members, too.
#[test]
fn every_item_is_documented() {
    let text = generate();
    let lines: Vec<&str> = text.lines().collect();
    let is_comment =
        |line: &str| ["/*", "*/", " *", "//"].iter().any(|start| line.trim_start().starts_with(start.trim_start()));
    let mut undocumented = Vec::new();
    for (number, line) in lines.iter().enumerate().skip_while(|(_, line)| !line.contains("#define DIGI_VERSION")) {
        let starts_item = (line.starts_with("#define ") && !line.contains("DIGI_TEXT("))
            || line.starts_with("typedef ")
            || (line.contains("digi_") && line.contains('(') && !line.starts_with(' ') && !line.starts_with("static"))
            || (line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(';') && !line.contains("return"));
        if starts_item && !is_comment(line) && !is_comment(lines[number - 1]) && !line.starts_with("  digi_text text =")
        {
            undocumented.push(*line);
        }
    }
    assert!(undocumented.is_empty(), "without a comment: {undocumented:#?}");
}

/// What `include/digi.h` names, `lib.rs` compiles.
#[test]
fn every_source_is_in_the_header() {
    let lib = fs::read_to_string(crate_file("src/lib.rs")).unwrap();
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let exporting =
        modules.filter(|name| fs::read_to_string(crate_file(&format!("src/{name}.rs"))).unwrap().contains("no_mangle"));
    let mut exporting: Vec<&str> = exporting.collect();
    exporting.push("handle");
    exporting.push("model");
    exporting.sort_unstable();
    let mut listed = SOURCES;
    listed.sort_unstable();
    assert_eq!(exporting, listed);
}
