//! Style is a test: what the repository looks like, and that its documents say what is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "the names here are our own, in lower case"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The members of the workspace.
const MEMBERS: [&str; 5] = ["protocol", "client", "writer", "tests", "examples"];
/// A file longer than this does two things.
const FILE_LINES_MAX: usize = 400;
/// A function longer than this is hard to hold in mind.
const FUNCTION_LINES_MAX: usize = 70;
/// What `ls` shows at the root: one screen, no drawer for the rest.
const ROOT_ENTRIES_MAX: usize = 16;
/// The README's first program.
const HELLO_LINES_MAX: usize = 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("examples lies in the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `directory` whose name ends in `ending`, relative to the root.
fn files(directory: &str, ending: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Ok(entries) = fs::read_dir(root().join(directory)) else { return found };
    for entry in entries.map(Result::unwrap) {
        let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path, ending));
        } else if path.ends_with(ending) {
            found.insert(path);
        }
    }
    found
}

fn rust_files() -> BTreeSet<String> {
    MEMBERS.iter().flat_map(|member| files(member, ".rs")).collect()
}

fn documents() -> Vec<String> {
    let mut documents: Vec<String> = files("docs", ".md").into_iter().collect();
    documents.extend(files("examples", ".md"));
    documents.extend(["README.md", "CHANGELOG.md"].map(str::to_owned));
    documents
}

fn lines_of(path: &str, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let text = read(path);
    let numbered = text.lines().enumerate().filter(|(_, line)| wrong(line));
    numbered.map(|(at, line)| format!("{path}:{}: {}", at + 1, line.trim())).collect()
}

fn none(wrong: impl IntoIterator<Item = String>, rule: &str) {
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

/// What the compiler starts from: Cargo's own rules, and the paths given in a manifest.
fn is_crate_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts.as_slice(),
        [_, "src", "lib.rs" | "main.rs"]
            | [_, "build.rs"]
            | [_, "src", "bin", _]
            | [_, "tests" | "examples" | "benches", _]
            | [_, "src" | "tests", _, "main.rs"]
            | [_, "fuzz", "src", "lib.rs"]
            | [_, "fuzz", "src", "bin", _]
    )
}

/// Where the module `name`, declared in `parent`, may stand.
fn module_files(parent: &str, name: &str) -> [String; 2] {
    let (directory, file) = parent.rsplit_once('/').unwrap();
    let below = if is_crate_root(parent) || file == "mod.rs" {
        directory.to_owned()
    } else {
        format!("{directory}/{}", file.trim_end_matches(".rs"))
    };
    [format!("{below}/{name}.rs"), format!("{below}/{name}/mod.rs")]
}

#[test]
fn every_source_file_is_reachable_from_a_mod_line() {
    let all = rust_files();
    let mut reached: BTreeSet<String> = all.iter().filter(|path| is_crate_root(path)).cloned().collect();
    let mut todo: Vec<String> = reached.iter().cloned().collect();
    while let Some(parent) = todo.pop() {
        let text = read(&parent);
        let mut before = "";
        for line in text.lines() {
            let named = before.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"));
            before = line;
            let Some((visibility, name)) = line.trim_end_matches(';').rsplit_once("mod ") else { continue };
            let visibility = visibility.trim();
            if !line.ends_with(';') || !(visibility.is_empty() || visibility.starts_with("pub")) {
                continue;
            }
            let beside = named.map(|file| format!("{}/{file}", parent.rsplit_once('/').unwrap().0));
            for path in module_files(&parent, name).into_iter().chain(beside) {
                if all.contains(&path) && reached.insert(path.clone()) {
                    todo.push(path);
                }
            }
        }
    }
    none(all.difference(&reached).cloned(), "declare it, or delete it");
}

#[test]
fn no_file_is_too_long() {
    let lines = |path: String| (read(&path).lines().count(), path);
    let long = rust_files().into_iter().map(lines).filter(|(lines, _)| *lines > FILE_LINES_MAX);
    none(long.map(|(lines, path)| format!("{path}: {lines} lines")), "split the file");
}

#[test]
fn no_function_is_too_long() {
    let mut long = Vec::new();
    for path in rust_files() {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let indent = &line[..line.len() - code.len()];
            let signature = code.starts_with("fn ") || code.contains(" fn ") && code.starts_with("pub");
            let one_line = code.ends_with('}') || code.ends_with(';');
            if !signature || one_line {
                continue;
            }
            let end = format!("{indent}}}");
            let length = lines[at..].iter().position(|line| *line == end).map_or(0, |last| last + 1);
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{path}: {length} lines: {code}"));
            }
        }
    }
    none(long, "split the function");
}

#[test]
fn no_leftovers_of_writing_stay_in_the_code() {
    let words = ["todo!", "dbg!", "unimplemented!", "FIXME", "XXX"];
    let here = |path: &&String| !path.ends_with("tidy.rs");
    let found = |path: &String| lines_of(path, |line| words.iter().any(|word| line.contains(word)));
    none(rust_files().iter().filter(here).flat_map(found), "finish it");
}

#[test]
fn documents_name_no_lines() {
    let digit_after = |line: &str, mark: &str| {
        line.match_indices(mark)
            .any(|(at, _)| line[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit()))
    };
    let numbered =
        |line: &str| [".rs:", ".rs#L", ".md#L", ".sql:"].iter().any(|mark| digit_after(line, mark));
    let found = documents().into_iter().flat_map(|path| lines_of(&path, numbered));
    none(found, "lines move: name the function");
}

/// Text and target of every link in a document, code left out.
fn links(text: &str) -> Vec<(String, String)> {
    let mut links = Vec::new();
    let mut code = false;
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        if code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split(')').next().unwrap_or_default();
            let label = line[..at].rsplit('[').next().unwrap_or_default();
            links.push((label.to_owned(), target.to_owned()));
        }
    }
    links
}

/// The anchor that a heading gets on the usual sites.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_somewhere_and_name_tests_that_exist() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        for (label, target) in links(&text).into_iter().filter(|(_, target)| !target.contains("://")) {
            let (path, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let directory = document.rsplit_once('/').map_or("", |(directory, _)| directory);
            let file =
                if path.is_empty() { root().join(&document) } else { root().join(directory).join(path) };
            let Ok(content) = fs::read_to_string(&file) else {
                if !file.is_dir() {
                    broken.push(format!("{document}: {target} is not there"));
                }
                continue;
            };
            if !fragment.is_empty()
                && !content.lines().any(|line| line.starts_with('#') && anchor(line) == fragment)
            {
                broken.push(format!("{document}: {target} has no such heading"));
            }
            // A link to a source file whose text is a name with underscores in code names a function in it.
            let name = label.strip_prefix('`').and_then(|label| label.strip_suffix('`'));
            if let Some(name) =
                name.filter(|name| path.ends_with(".rs") && name.contains('_') && !name.ends_with(".rs"))
                && !content.contains(&format!("fn {name}("))
            {
                broken.push(format!("{document}: {path} has no fn {name}"));
            }
        }
    }
    none(broken, "mend the links");
}

#[test]
fn the_code_map_lists_exactly_the_files_that_exist() {
    let text = read("docs/architecture.md");
    let map =
        text.split("\n## Code map\n").nth(1).expect("there is a code map").split("\n## ").next().unwrap();
    let (mut listed, mut directory) = (BTreeSet::new(), "");
    for line in map.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            directory = heading.split('`').nth(1).expect("a heading of the code map is a directory");
        } else if let Some(entry) = line.strip_prefix("- `") {
            let path = format!("{directory}/{}", entry.split('`').next().unwrap());
            assert!(listed.insert(path.clone()), "{path} is listed twice");
        }
    }
    let exist = rust_files();
    none(exist.difference(&listed).cloned(), "missing from the code map of docs/architecture.md");
    none(listed.difference(&exist).cloned(), "listed in the code map, and not there");
}

/// The library code of a file: what stands before its tests.
fn library(path: &str) -> String {
    let text = read(path);
    text.split("\n#[cfg(test)]\n").next().unwrap_or_default().to_owned()
}

#[test]
fn each_crate_keeps_to_what_it_is_for() {
    let places = |word: &str, below: &[&str]| -> BTreeSet<String> {
        let all = below.iter().flat_map(|directory| files(directory, ".rs"));
        all.filter(|path| {
            library(path).lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word))
        })
        .collect()
    };
    for word in ["rusqlite", "thread::spawn", "thread::Builder"] {
        none(places(word, &["protocol/src"]), &format!("protocol has no {word}"));
    }
    let outside = places("rusqlite", &["client/src"]);
    none(outside.into_iter().filter(|path| !path.contains("/read/")), "only the reader opens databases");

    let product = ["protocol/src", "client/src", "writer/src"];
    let is_home = |path: &String| {
        path == "protocol/src/progress.rs"
            || path == "writer/src/fence.rs"
            || path.starts_with("writer/src/fence/")
    };
    let found = places("unsafe ", &product);
    none(found.into_iter().filter(|path| !is_home(path)), "unsafe code has two homes");

    // Wherever a file appears under a new name, somebody has thought about what a crash leaves behind.
    let renaming = [
        "protocol/src/publish.rs",
        "client/src/segment_file.rs",
        "writer/src/quarantine.rs",
        "writer/src/receipts.rs",
        "writer/src/cli/backup.rs",
        "writer/src/split/publish.rs",
    ]
    .map(str::to_owned);
    let found = places("fs::rename(", &product);
    none(found.into_iter().filter(|path| !renaming.contains(path)), "use protocol::publish");
}

#[test]
fn every_invariant_has_an_id_of_its_own_and_names_a_test() {
    let text = read("docs/architecture.md");
    let section =
        text.split("\n## Invariants\n").nth(1).expect("there are invariants").split("\n## ").next().unwrap();
    let mut ids = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| I")) {
        let id = row.split('|').nth(1).unwrap().trim();
        assert!(ids.insert(id), "{id} is used twice");
        assert!(links(row).iter().any(|(_, target)| target.ends_with(".rs")), "{id} names no test");
    }
    assert!(ids.len() >= 5, "there are invariants to state: {ids:?}");
}

#[test]
fn the_readme_starts_with_the_tested_program_and_the_commands_of_ci() {
    let (readme, hello, ci) = (read("README.md"), read("examples/src/bin/hello.rs"), read(".ci/run"));
    let program: String =
        hello.lines().filter(|line| !line.starts_with("//!")).fold(String::new(), |text, line| {
            if text.is_empty() && line.is_empty() { text } else { text + line + "\n" }
        });
    assert!(program.lines().count() <= HELLO_LINES_MAX, "hello is for a first screen");
    assert!(readme.contains(&program), "the README shows another program than examples/src/bin/hello.rs");
    let commands: Vec<&str> = ci.lines().filter_map(|line| line.strip_prefix("readme_step ")).collect();
    assert_eq!(commands.len(), 2, "one command for the main job, one for the tests");
    for command in commands {
        assert!(readme.lines().any(|line| line == command), "the README does not give: {command}");
    }
}

#[test]
fn the_root_fits_on_one_screen() {
    let entries =
        fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let shown: Vec<String> = entries.filter(|name| !name.starts_with('.') && name != "target").collect();
    assert!(shown.len() <= ROOT_ENTRIES_MAX, "{} entries: {shown:?}", shown.len());
}
