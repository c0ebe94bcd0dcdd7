//! What the project promises about its own shape: who imports whom, sizes, documentation, forms.

#[path = "architecture/types.rs"]
mod types;

use std::fs;
use std::path::{Path, PathBuf};

use calico_mesos::error::Code;

/// From the bottom up. A module may import from the rows below its own, and the lowest row from itself.
const ROWS: [&[&str]; 5] = [
    &["any_json", "names", "error", "config", "limits", "logging", "gate", "host", "tls", "dial"],
    &["mesos", "calico", "net", "workload", "consul"],
    &["task"],
    &["rig", "proxy"],
    &["cli"],
];
/// Called by Docker at every turn: links as little as possible.
const RUNTIME_MAY_IMPORT: [&str; 8] = ["names", "error", "host", "config", "logging", "gate", "tls", "net"];
/// Each outside service's library is named in one place.
const OWNERS: [(&str, &str); 5] = [
    ("etcd_client", "calico"),
    ("rtnetlink", "net"),
    ("bollard", "workload"),
    ("reqwest", "consul"),
    ("prost", "mesos"),
];
const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 90;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, without what git ignores.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        match entry.file_name().to_str() {
            Some("target" | ".git") => (),
            _ if path.is_dir() => found.extend(files(&path)),
            _ => found.push(path),
        }
    }
    found.sort();
    found
}

fn rust_files(dir: &str) -> Vec<(PathBuf, String)> {
    let rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    files(&root().join(dir))
        .into_iter()
        .filter(rust)
        .map(|path| (path.strip_prefix(root()).unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The top module that a file of `src/` belongs to; none for lib.rs and the programs.
fn module(file: &Path) -> Option<String> {
    let first = file.strip_prefix("src").ok()?.components().next()?.as_os_str().to_str()?;
    let name = first.trim_end_matches(".rs");
    (name != "lib" && name != "bin").then(|| name.to_owned())
}

/// Without comments and without the tests at the file's end.
fn code(text: &str) -> String {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The top modules named after `crate::`, in groups too: `crate::{a, b::{c, d}}` names a and b.
fn imports(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => found.push(word(std::mem::take(&mut item).trim())),
                _ if depth == 0 => item.push(c),
                _ => (),
            }
        }
        found.push(word(item.trim()));
    }
    found.retain(|name| !name.is_empty());
    found
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn may_import(from: &str, to: &str) -> bool {
    if from == "runtime" {
        return RUNTIME_MAY_IMPORT.contains(&to);
    }
    match (row(from), row(to)) {
        (Some(0), Some(0)) => true,
        (Some(from), Some(to)) => to < from,
        _ => false,
    }
}

#[test]
fn imports_point_downwards() {
    assert_eq!(
        imports("use crate::{resolve, net::{a, b}};\nuse crate::task::x;"),
        ["resolve", "net", "task"]
    );
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src") {
        let Some(from) = module(&file) else { continue };
        for to in imports(&code(&text)) {
            if from != to && !may_import(&from, &to) {
                wrong.push(format!("{} imports {to}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rooms of `src/task` and the rooms that may import them; a room that is not listed may be imported by all.
const DOORS: [(&str, &[&str]); 3] = [("ways_in", &[]), ("life", &["ways_in"]), ("cleaner", &["ways_in"])];
/// Rooms of `src/task` that stand at the bottom, with the rooms that they may import.
const GROUND: [(&str, &[&str]); 3] =
    [("request", &["health"]), ("health", &["request"]), ("record", &["channel"])];

#[test]
fn rooms_of_a_task_keep_to_their_picture() {
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src/task") {
        let inner = file.strip_prefix("src/task").unwrap().components().next().unwrap();
        let from = inner.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let rooms =
            code(&text).replace("crate::task::", "\0").replace("crate::", "").replace('\0', "crate::");
        for to in imports(&rooms).into_iter().filter(|to| *to != from) {
            let closed = DOORS.iter().any(|(room, may)| *room == to && !may.contains(&from.as_str()));
            let above = GROUND.iter().any(|(room, may)| *room == from && !may.contains(&to.as_str()));
            if from != "mod" && (closed || above) {
                wrong.push(format!("{} imports task::{to}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_module_has_its_row() {
    for (file, _) in rust_files("src") {
        if let Some(name) = module(&file) {
            assert!(name == "runtime" || row(&name).is_some(), "{} is in no row", file.display());
        }
    }
}

#[test]
fn each_outside_service_is_named_in_one_place() {
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src") {
        for (library, owner) in OWNERS {
            let named = code(&text).contains(&format!("{library}::"));
            if named && module(&file).as_deref() != Some(owner) {
                wrong.push(format!("{} names {library}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src").into_iter().chain(rust_files("tests")) {
        if text.lines().count() > LONGEST_FILE {
            wrong.push(format!("{} has {} lines", file.display(), text.lines().count()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not begin with a module documentation", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// rustfmt puts a function's last brace below the beginning of its first line.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let starts_function = |line: &str| {
        let words = line.trim_start();
        !words.starts_with("//") && words.split('(').next().unwrap().split(' ').any(|word| word == "fn")
    };
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| starts_function(line)) {
        let head = lines[index..].iter().find(|line| line.ends_with(['{', ';', '}']));
        if head.is_some_and(|line| line.ends_with(';')) {
            continue; // a trait's method without a body
        }
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", &line[..indent]);
        let length = lines[index..].iter().position(|candidate| **candidate == end).unwrap_or(0) + 1;
        found.push((*line, length));
    }
    found
}

#[test]
fn functions_fit_on_a_screen() {
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src").into_iter().chain(rust_files("tests")) {
        for (line, length) in functions(&text) {
            if length > LONGEST_FUNCTION {
                wrong.push(format!("{}: {length} lines: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each program includes the whole kit, so that the compiler cannot tell what none of them uses.
#[test]
fn the_test_kit_holds_nothing_unused() {
    let tests = rust_files("tests");
    let word = |c: char| !c.is_alphanumeric() && c != '_';
    let words: Vec<&str> = tests.iter().flat_map(|(_, text)| text.split(word)).collect();
    let mut names = Vec::new();
    for (_, text) in tests.iter().filter(|(file, _)| file.starts_with("tests/kit")) {
        for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("pub ")) {
            let kinds = ["async", "fn", "const", "struct", "enum", "trait", "type", "mod"];
            let mut rest = line.split(word).skip_while(|word| kinds.contains(word));
            let is_item = kinds.contains(&line.split(word).next().unwrap());
            names.extend(rest.next().filter(|_| is_item));
        }
    }
    assert!(names.contains(&"eventually") && names.contains(&"World"), "{names:?}");
    names.retain(|name| words.iter().filter(|word| *word == name).count() < 2);
    assert!(names.is_empty(), "no test uses {names:?}");
}

/// A module of tests may have a file or folder of its own.
fn is_of_tests(file: &Path) -> bool {
    file.iter().any(|part| part == "tests" || part.to_string_lossy().ends_with("tests.rs"))
}

#[test]
fn nothing_unwraps_outside_tests() {
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src") {
        if !is_of_tests(&file) && code(&text).contains(".unwrap()") {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The comments and the string literals of a file, without its code and without the tests at its end.
fn prose(text: &str) -> String {
    let mut rest = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut prose = String::new();
    while let Some(first) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|rest| rest.trim_start_matches('#'));
        let taken = if rest.starts_with("//") {
            let line = rest.lines().next().unwrap();
            prose.push_str(line.trim_start_matches(['/', '!']));
            line.len()
        } else if let Some(body) = raw.and_then(|rest| rest.strip_prefix('"')) {
            let hashes = rest.len() - body.len() - 2;
            let length = body.find(&format!("\"{}", "#".repeat(hashes))).unwrap();
            prose.push_str(&body[..length]);
            prose.push_str(" | ");
            length + 2 * hashes + 3
        } else if let Some(body) = rest.strip_prefix('"') {
            let mut escaped = false;
            let ends = |c: char| {
                let was_escaped = escaped;
                escaped = c == '\\' && !was_escaped;
                c == '"' && !was_escaped
            };
            let length = body.find(ends).unwrap();
            prose.push_str(&body[..length].replace("\\n", " "));
            prose.push_str(" | ");
            length + 2
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            // A quotation mark as a character begins no text.
            rest[2..].find('\'').unwrap() + 3
        } else {
            prose.push_str(if first == '\n' { " " } else { "" });
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    prose
}

/// Words that messages and comments avoid; CONTRIBUTING.md lists those that they use.
const UNWANTED: [&str; 10] =
    ["nobody", "somebody", "whoever", "mend", "mends", "mended", "shall", "he", "she", "at all"];

fn unwanted(prose: &str) -> Vec<String> {
    // The account of that name is not a word.
    let prose = prose.replace("nobody:x:65534:65534:nobody", "").to_lowercase();
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let words: Vec<String> = prose.split_whitespace().map(bare).collect();
    let pair = |at: usize| format!("{} {}", words[at], words.get(at + 1).map_or("", String::as_str));
    let is_unwanted =
        |at: usize| [&words[at], &pair(at)].iter().any(|text| UNWANTED.contains(&text.as_str()));
    let found = (0..words.len()).filter(|at| is_unwanted(*at));
    found.map(|at| words[at.saturating_sub(4)..words.len().min(at + 4)].join(" ")).collect()
}

#[test]
fn messages_and_comments_are_plain_english() {
    let sample = "/// Nobody, at\n/// all.\nfn he() { log(\"a \\\"b\\\" shall\"); let (c, r) = ('\"', r#\"at\"#, \"all\"); } // \"he\"\n";
    assert_eq!(unwanted(&prose(sample)).len(), 4, "{}", prose(sample));
    let mut wrong = Vec::new();
    for (file, text) in rust_files("src").into_iter().filter(|(file, _)| !is_of_tests(file)) {
        let found = unwanted(&prose(&text)).into_iter();
        wrong.extend(found.map(|words| format!("{}: … {words} …", file.display())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_changelog_keeps_its_form() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(text.starts_with("# Changelog\n"));
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings.first(), Some(&"[Unreleased]"));
    for heading in &headings[1..] {
        let (version, date) = heading.split_once(" - ").expect("## [1.2.3] - 2026-01-31");
        let digits = |text: &str, by: char, count| {
            let parts: Vec<&str> = text.split(by).collect();
            parts.len() == count && parts.iter().all(|part| part.parse::<u16>().is_ok())
        };
        assert!(digits(version.trim_matches(['[', ']']), '.', 3) && digits(date, '-', 3), "{heading}");
    }
    let kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    for kind in text.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(kinds.contains(&kind), "### {kind}");
    }
}

#[test]
fn the_licence_is_named_everywhere() {
    let licence = fs::read_to_string(root().join("LICENSE")).unwrap();
    assert!(licence.contains("Apache License") && licence.contains("Version 2.0, January 2004"));
    assert!(fs::read_to_string(root().join("Cargo.toml")).unwrap().contains("license = \"Apache-2.0\""));
}

/// Text that only makes sense on the machine of whoever wrote it.
#[test]
fn no_path_of_a_private_machine_is_committed() {
    let private = [concat!("/wo", "rk/"), concat!("/tmp", "/cm/"), concat!("/home", "/")];
    let mut wrong = Vec::new();
    for file in files(root()) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for path in private.iter().filter(|path| text.contains(**path)) {
            wrong.push(format!("{} names {path}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// README.md's table of failure codes, made from the enum.
fn code_table() -> String {
    let mut table =
        String::from("| code | whose fault | meaning | what to do |\n| --- | --- | --- | --- |\n");
    for code in Code::ALL {
        let (fault, meaning, advice) = (code.party().name(), code.meaning(), code.advice());
        table.push_str(&format!("| `{code}` | {fault} | {meaning} | {advice} |\n"));
    }
    table
}

#[test]
fn the_readme_has_the_table_of_the_failure_codes() {
    const BEGIN: &str = "<!-- failure codes: made from src/error/code.rs -->\n";
    const END: &str = "<!-- end of the failure codes -->\n";
    const RENEW: &str = "RENEW_README=1 cargo test --test architecture the_readme_has_the_table";
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the table's first mark");
    let (table, after) = rest.split_once(END).expect("the table's last mark");
    if std::env::var_os("RENEW_README").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", code_table())).unwrap();
        return;
    }
    assert!(
        table == code_table(),
        "the table of failure codes in README.md is out of date; renew it: {RENEW}"
    );
}

#[test]
fn failure_codes_are_spelled_in_one_module_alone() {
    let (owner, product) = (Path::new("src/error/code.rs"), rust_files("src"));
    let spells = |text: &str| {
        let mut after = text.split(concat!('"', "CM-")).skip(1);
        after.any(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    let others =
        product.iter().filter(|(file, text)| file != owner && !is_of_tests(file) && spells(&code(text)));
    let wrong: Vec<&PathBuf> = others.map(|(file, _)| file).collect();
    assert!(wrong.is_empty(), "use error::Code in {wrong:#?}");
    assert!(product.iter().any(|(file, text)| file == owner && spells(text)));
}

#[test]
fn every_failure_code_is_used() {
    let files = rust_files("src");
    let product: String =
        files.iter().filter(|(file, _)| !is_of_tests(file)).map(|(_, text)| code(text)).collect();
    let unused = |failure: &&Code| {
        let name = format!("Code::{failure:?}");
        let used = |(at, _): (usize, &str)| !product[at + name.len()..].starts_with(char::is_alphanumeric);
        !product.match_indices(&name).any(used)
    };
    let unused: Vec<&Code> = Code::ALL.iter().filter(unused).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// `end_to_end::faults::the_agent_restarts` is a function of tests/end_to_end/, `lib::…` one of src/, and two words
/// are a function of the program's own file or a whole module of it.
fn exists(name: &str) -> bool {
    let words: Vec<&str> = name.split("::").collect();
    let (program, function) = (words[0], words[words.len() - 1]);
    let folder = match program {
        "lib" => root().join("src").join(words[1..words.len() - 1].join("/")),
        program => root().join("tests").join(program),
    };
    let whole = |path: &Path| path.with_extension("rs").exists() || path.is_dir();
    let text: String = files_of(&folder).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.contains(&format!(" fn {function}("))
        || text.contains(&format!("\nfn {function}("))
        || whole(&folder.join(function))
}

/// The files of a module: `folder.rs`, and everything in `folder`.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let own = folder.with_extension("rs");
    let mut found = if folder.is_dir() { files(folder) } else { Vec::new() };
    found.extend(own.exists().then_some(own));
    found
}

#[test]
fn every_claim_about_security_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).collect();
    let claims: Vec<&&str> = rows.iter().filter(|row| !row.ends_with("| shown by |")).collect();
    assert!(claims.len() > 15, "only {} claims", claims.len());
    let mut wrong = Vec::new();
    for row in claims {
        let shown = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            wrong.push(format!("no test in: {row}"));
        }
        wrong.extend(named.into_iter().filter(|name| !exists(name)).map(str::to_owned));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The rows of a chapter's tables that name no test, and the tests in them that do not exist.
fn unproven(heading: &str, at_least: usize) -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = readme.split_once(heading).unwrap();
    let section = section.split("\n#").next().unwrap();
    let is_test = |word: &&str| word.contains("::") && !word.contains('…');
    let rows: Vec<&str> =
        section.lines().filter(|line| line.starts_with("| ") && !line.contains("**")).skip(2).collect();
    assert!(rows.len() > at_least, "only {} rows below {heading}", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let named: Vec<&str> = row.split('`').filter(is_test).collect();
        if named.is_empty() {
            wrong.push(format!("no test in: {row}"));
        }
        wrong.extend(named.into_iter().filter(|name| !exists(name)).map(str::to_owned));
    }
    wrong
}

#[test]
fn every_duty_of_the_readme_names_tests_that_exist() {
    let mut wrong = unproven("## The stock executor's duties", 30);
    wrong.extend(unproven("### Starts, ends and outages", 10));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
